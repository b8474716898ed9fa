/** The WebAssembly backend: plain, with relaxed SIMD, and on threads. */
import { forward } from 'xmoe';
import { layerOfSizes } from 'xmoe/cases';
import { type WasmBackend, wasmBackend } from 'xmoe/wasm';
import { Absent, bitsOf, type Check, expect, rejectionOf } from './check.js';
import { expectAgreement } from './file-checks.js';

/** Large enough for several tasks; every dimension leaves a tail. */
const { x, weights, config, inputs } = layerOfSizes(203, 9, 43, 21);

/** The fused call. */
function yOf(backend: WasmBackend): Float32Array {
  const layer = backend.load(weights, config);
  const y = layer.forward(x, inputs).data.slice();
  layer.dispose();
  return y as Float32Array;
}

/** @throws Absent where this backend could not be had */
function having(backend: WasmBackend, feature: 'relaxedSimd' | 'threads'): WasmBackend {
  const reason = backend.info.notUsed[feature];
  if (reason !== undefined) throw new Absent(reason);
  return backend;
}

export const wasmChecks: readonly Check[] = [
  {
    feature: 'xmoe/wasm',
    name: 'recorded calls are within the bounds of float32',
    run: ({ deterministic }) => expectAgreement(deterministic, false),
  },
  {
    feature: 'xmoe/wasm',
    name: 'the deterministic target has the same bits everywhere, fused or in stages',
    run({ deterministic }) {
      const fused = bitsOf(yOf(deterministic));
      const staged = bitsOf(forward(deterministic, x, weights, config, inputs).y.data as Float32Array);
      expect(fused === staged, `the bits of the stages, ${staged}, got ${fused}`);
      return fused;
    },
  },
  {
    feature: 'xmoe/wasm',
    name: 'a wrong option is refused by name',
    async run() {
      const error = await rejectionOf(wasmBackend({ threads: 0 }));
      expect(String(error).includes('"options.threads" expected'), `an error that names it, got ${error}`);
    },
  },
  {
    feature: 'xmoe/wasm',
    name: 'what is asked for and cannot be had is no error, and what can be had is right',
    run({ optedIn }) {
      const { revectorized, notUsed } = optedIn.info;
      expect(
        revectorized !== (notUsed.revectorize !== undefined),
        `a reason, or vectors of 256 bits, got ${revectorized}`,
      );
      expectAgreement(optedIn, false);
    },
  },
  {
    feature: 'relaxed SIMD',
    name: 'recorded calls are within the bounds of float32',
    run: ({ fastest }) => expectAgreement(having(fastest, 'relaxedSimd'), false),
  },
  {
    feature: 'threads',
    name: 'two threads give the bits of one',
    run({ threaded, deterministic }) {
      const [two, one] = [bitsOf(yOf(having(threaded, 'threads'))), bitsOf(yOf(deterministic))];
      expect(two === one, `the bits of one thread, ${one}, got ${two}`);
      return two;
    },
  },
  {
    feature: 'threads',
    name: 'forwardAsync gives them too',
    async run({ threaded, deterministic }) {
      const layer = having(threaded, 'threads').load(weights, config);
      const [two, one] = [
        bitsOf((await layer.forwardAsync(x, inputs)).data as Float32Array),
        bitsOf(yOf(deterministic)),
      ];
      layer.dispose();
      expect(two === one, `the bits of one thread, ${one}, got ${two}`);
    },
  },
];
