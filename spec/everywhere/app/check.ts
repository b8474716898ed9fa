/** What the suite is made of. No test runner: it runs wherever a module does. */
import type { Backends } from './backends.js';

/** What a place may have: the doors of the package, and what an engine adds. */
export const FEATURES = [
  ...['xmoe', 'xmoe/cases', 'xmoe/safetensors', 'xmoe/layer-case', 'xmoe/oracle', 'xmoe/spec', 'xmoe/process'],
  ...['xmoe/model', 'xmoe/wasm', 'xmoe/runtime', 'relaxed SIMD', 'threads', 'files', 'addresses'],
] as const;

export interface Check {
  readonly feature: string;
  /** In the present tense. */
  readonly name: string;
  /**
   * May be asynchronous. Text that it returns is of bits that must be the same in every place.
   *
   * @throws Absent where the place lacks the feature
   */
  run(backends: Backends): unknown;
}

export interface Outcome {
  readonly feature: string;
  readonly name: string;
  readonly verdict: 'passed' | 'absent' | 'failed';
  /** Why it is absent, or how it failed; else empty. */
  readonly detail: string;
  /** What must be the same everywhere; else empty. */
  readonly bits: string;
}

/** The engine lacks a feature, and says why. */
export class Absent extends Error {}

export function expect(isSo: boolean, what: string): void {
  if (!isSo) throw new Error(`expected ${what}`);
}

export function expectNear(value: number, expected: number, allowed: number, what: string): void {
  expect(Math.abs(value - expected) <= allowed, `${what} within ${allowed} of ${expected}, got ${value}`);
}

/** The error that `call` throws. */
export function thrownBy(call: () => unknown): Error {
  try {
    call();
  } catch (error) {
    return error as Error;
  }
  throw new Error('expected an error, got none');
}

/** The error that a promise is rejected with. */
export function rejectionOf(promise: Promise<unknown>): Promise<Error> {
  return promise.then(
    () => {
      throw new Error('expected an error, got none');
    },
    (error: Error) => error,
  );
}

/** Floats as text, bit for bit, in short: FNV-1a of their bytes. */
export function bitsOf(values: Float32Array | Float64Array): string {
  let hash = 0x811c9dc5;
  for (const byte of new Uint8Array(values.buffer, values.byteOffset, values.byteLength)) {
    hash = Math.imul(hash ^ byte, 0x01000193);
  }
  return (hash >>> 0).toString(16).padStart(8, '0');
}
