/** Programs in C, beside which the engine is measured: compiled when they are wanted, where there is a compiler. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Sampler } from './measure.js';

/** A compiled program, or the reason why there is none. */
export function compileNative(name: string): NativeProgram | string {
  if (process.arch !== 'x64') return `${name}.c is for x64`;
  const folder = mkdtempSync(join(tmpdir(), 'xmoe-bench-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  const [source, binary] = [fileURLToPath(new URL(`../../bench/${name}.c`, import.meta.url)), join(folder, name)];
  try {
    execFileSync('cc', ['-O3', '-mavx2', '-mfma', '-o', binary, source], { encoding: 'utf8', stdio: 'pipe' });
  } catch (error) {
    return `cc -O3 -mavx2 -mfma ${name}.c: ${(error as Error).message.trim()}`;
  }
  return { sampler: (...args) => ({ sample: ms => samplesOf(binary, [ms, ...args]) }) };
}

export interface NativeProgram {
  /** The program with these arguments behind the first, which is the time to take samples for, in ms. */
  sampler(...args: (string | number)[]): Sampler;
}

/** The program prints a time in ms on each line. */
function samplesOf(binary: string, args: readonly (string | number)[]): number[] {
  const output = execFileSync(binary, args.map(String), { encoding: 'utf8' });
  return output.trim().split('\n').map(Number);
}
