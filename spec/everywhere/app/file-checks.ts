/** Files: those of strangers, recorded calls, and the oracle on them. */
import { type Backend, reference } from 'xmoe';
import { layerOfSizes } from 'xmoe/cases';
import { readLayerCase, writeLayerCase } from 'xmoe/layer-case';
import { conform, implementationOf, runCase } from 'xmoe/oracle';
import { fromFloat64, readSafetensors, SafetensorsError, toFloat64, writeSafetensors } from 'xmoe/safetensors';
import { bitsOf, type Check, expect, thrownBy } from './check.js';
import { recordings } from './recordings.js';

export function recordedCases() {
  return Object.values(recordings).map(base64 => readLayerCase(Uint8Array.from(atob(base64), c => c.charCodeAt(0))));
}

/** Every stage within its bound, decisions equal or in an order that is open. */
export function expectAgreement(backend: Backend, withGradients: boolean): void {
  for (const layerCase of recordedCases()) {
    for (const { stage, verdict, error, allowed, detail } of runCase(backend, layerCase, withGradients).reports) {
      const isOpen = stage === 'kept' && layerCase.dropOrderOpen;
      expect(verdict === 'agree' || isOpen, `${layerCase.name} ${stage} <= ${allowed}, got ${error}: ${detail}`);
    }
  }
}

export const fileChecks: readonly Check[] = [
  {
    feature: 'xmoe/safetensors',
    name: 'tensors come back as they were written',
    run() {
      const values = [0, -0, 1.5, -65504, 2 ** -24];
      for (const dtype of ['F64', 'F32', 'F16'] as const) {
        const tensors = new Map([['a', fromFloat64(values, [5], dtype)]]);
        const file = readSafetensors(writeSafetensors({ tensors, metadata: new Map([['k', 'ä']]) }));
        const read = toFloat64(file.tensors.get('a')!, 'a');
        expect(bitsOf(read) === bitsOf(Float64Array.from(values)), `${dtype} values as written, got ${read}`);
        expect(file.metadata.get('k') === 'ä', 'metadata as written');
      }
    },
  },
  {
    feature: 'xmoe/safetensors',
    name: 'every shorter file, and one with a byte more, is refused',
    run() {
      const whole = writeSafetensors({
        tensors: new Map([['a', fromFloat64([1, 2], [2], 'F32')]]),
        metadata: new Map(),
      });
      const longer = Uint8Array.from([...whole, 0]);
      for (const bytes of [longer, ...Array.from(whole, (_, length) => whole.slice(0, length))]) {
        const error = thrownBy(() => readSafetensors(bytes));
        expect(error instanceof SafetensorsError, `a SafetensorsError at ${bytes.length} bytes, got ${error}`);
      }
    },
  },
  {
    feature: 'xmoe/safetensors',
    name: 'a file that asks for 2^62 bytes is refused',
    run() {
      const tensor = '{"a":{"dtype":"F64","shape":[1073741824,536870912],"data_offsets":[0,4611686018427387904]}}';
      for (const header of [tensor, '{"a":', '['.repeat(100_000)]) {
        const file = new Uint8Array(8 + header.length);
        new DataView(file.buffer).setUint32(0, header.length, true);
        file.set(new TextEncoder().encode(header), 8);
        const error = thrownBy(() => readSafetensors(file));
        expect(error instanceof SafetensorsError, `a SafetensorsError for ${header.slice(0, 9)}, got ${error}`);
      }
    },
  },
  {
    feature: 'xmoe/layer-case',
    name: 'a recorded call is read, written and read again',
    run() {
      for (const layerCase of recordedCases()) {
        const again = readLayerCase(writeLayerCase(layerCase));
        expect(bitsOf(again.x.data as Float64Array) === bitsOf(layerCase.x.data as Float64Array), 'x as recorded');
        expect(again.recorded.size === layerCase.recorded.size && again.recorded.size > 0, 'outputs as recorded');
      }
    },
  },
  {
    feature: 'xmoe/oracle',
    name: 'the reference reproduces recorded calls, gradients included',
    run: () => expectAgreement(reference, true),
  },
  {
    feature: 'xmoe/oracle',
    name: 'a backend with a fault is found out at its stage',
    run() {
      const faulty: Backend = {
        ...reference,
        combine(expertOut, plan) {
          const y = reference.combine(expertOut, plan);
          return { ...y, data: y.data.map(value => 2 * value) };
        },
      };
      const wrong = runCase(faulty, recordedCases()[0]).reports.filter(({ verdict }) => verdict === 'disagree');
      const stages = wrong.map(({ stage }) => stage).join();
      expect(stages === 'y', `y alone to disagree, got ${stages || 'none'}`);
    },
  },
  {
    feature: 'xmoe/oracle',
    name: 'the backends conform on a random layer; a weight too much in y is blamed on combine',
    async run({ deterministic, fastest }) {
      const { gradY: _, ...call } = layerOfSizes(23, 9, 21, 13, { router: 'topk', storage: 'f32' });
      for (const backend of [reference, deterministic, fastest]) {
        const implementation = implementationOf(backend);
        const outputs = await implementation.run(call);
        const { verdict, blamed } = conform(outputs, call, implementation.arithmetic);
        expect(verdict === 'conforms', `${backend.name} to conform, got ${blamed} blamed`);
        outputs.get('y')!.data[7] += 1;
        expect(
          conform(outputs, call, implementation.arithmetic).blamed === 'combine',
          `combine blamed, ${backend.name}`,
        );
      }
    },
  },
];
