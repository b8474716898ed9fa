/** What PyTorch computed conforms: the authors' code in float32, and the recorder's layer in every format that a device has. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { readLayerCase, recordedUnder } from 'xmoe/layer-case';
import { type ArithmeticName, arithmeticNamed, conform, describe, type StageVerdicts } from 'xmoe/oracle';

const recordings = new URL('../../spec/recordings/', import.meta.url);

/** The prefix of what was computed with experts in each format. */
const prefixes: readonly [ArithmeticName, string][] = [
  ['f32', 'out32.'],
  ['tf32', 'out_tf32.'],
  ['f16', 'out_f16.'],
  ['bf16', 'out_bf16.'],
];

/** How many formats each device's recordings have. */
const devices = { 'pytorch-cpu': 3, 'pytorch-cuda': 4 };

function filesIn(folder: URL): string[] {
  return readdirSync(folder).filter(name => name.endsWith('.safetensors'));
}

/** The verdict on what a file holds under a prefix, which must conform. */
function judged(file: Uint8Array, prefix: string, arithmetic: ArithmeticName): readonly StageVerdicts[] {
  const { gradY, ...layerCase } = readLayerCase(file);
  const outputs = recordedUnder(prefix, file);
  const withGradients = gradY && outputs.has('grad.x');
  const call = withGradients ? { ...layerCase, gradY } : layerCase;
  const conformance = conform(outputs, call, arithmeticNamed(arithmetic));
  assert.equal(conformance.verdict, 'conforms', describe(conformance));
  return conformance.stages;
}

for (const name of filesIn(recordings)) {
  test(`the authors' code in float32 conforms on ${name}`, () => {
    const stages = judged(readFileSync(new URL(name, recordings)), 'out32.', 'f32');
    assert.ok(stages.some(({ stage, verdict }) => stage === 'combine' && verdict === 'agree'));
  });
}

for (const [device, numFormats] of Object.entries(devices)) {
  const folder = new URL(`${device}/`, recordings);
  const names = existsSync(folder) ? filesIn(folder) : [];
  test(`recordings of ${device}`, { skip: names.length === 0 && 'not made yet: spec/recordings/record.py' }, () => {
    assert.equal(names.length, 21);
  });
  for (const name of names) {
    test(`${device} conforms on ${name} in each of its formats, forward and backward`, () => {
      const file = readFileSync(new URL(name, folder));
      const formats = prefixes.filter(([, prefix]) => recordedUnder(prefix, file).size > 0);
      assert.equal(formats.length, numFormats);
      for (const [arithmetic, prefix] of formats) {
        const stages = judged(file, prefix, arithmetic);
        const notJudged = stages.filter(({ verdict }) => verdict === 'not judged');
        assert.deepEqual(
          notJudged.map(({ stage, detail }) => `${stage}: ${detail}`),
          [],
        );
        assert.ok(stages.some(({ stage }) => stage === 'grad.experts.down_proj'));
      }
    });
  }
}

test('what half-precision experts gave does not pass as float32: the experts are blamed', () => {
  const folder = new URL('pytorch-cpu/', recordings);
  const withRows = filesIn(folder).filter(name => !/^(all-padded|no-tokens)/.test(name));
  assert.equal(withRows.length, 19);
  for (const name of withRows) {
    const file = readFileSync(new URL(name, folder));
    for (const prefix of ['out_f16.', 'out_bf16.']) {
      const { blamed } = conform(recordedUnder(prefix, file), readLayerCase(file), arithmeticNamed('f32'));
      assert.equal(blamed, 'experts', `${name} ${prefix}`);
    }
  }
});
