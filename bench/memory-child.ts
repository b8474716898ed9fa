/** Opens a model and writes with it, for memory.ts: `SMALL FILE FORMAT held | resident` -> one line of JSON. */
import { readFileSync, writeFileSync } from 'node:fs';
import { openRuntime, type RuntimeOptions } from 'xmoe/runtime';

/** All in bytes. */
export interface Measured {
  /** Packed weights, and the WebAssembly memory that they lie in at the end. */
  readonly weightBytes: number;
  readonly wasmBytes: number;
  /** At the worst, over what was there before. */
  readonly peak: number;
}

const [small, file, format, what] = process.argv.slice(2);
const weights = format as NonNullable<RuntimeOptions['weights']>;
const NUM_BYTES = 64;

await use(small, () => {});
global.gc!();
const before = bytesNow();
if (what === 'resident') writeFileSync('/proc/self/clear_refs', '5'); // the peak is now: Linux alone can say so
let peak = 0;
// Looking at what is held collects garbage, which would keep what is resident small.
const look = () => {
  global.gc!();
  peak = Math.max(peak, bytesNow() - before);
};
const { weightBytes, memoryBytes: wasmBytes } = await use(file, what === 'held' ? look : () => {});
if (what === 'resident') peak = residentPeak() - before;
console.log(JSON.stringify({ weightBytes, wasmBytes, peak } satisfies Measured));

async function use(path: string, look: () => void) {
  const runtime = await openRuntime(path, { weights, features: { relaxedSimd: 'enable' }, onProgress: look });
  for await (const _ of runtime.generate('The ', { maxTokens: NUM_BYTES, temperature: 0 })) look();
  const { usage } = runtime;
  runtime.dispose();
  return usage;
}

/** V8's heap and what its objects hold outside, a WebAssembly memory included; or the pages of the process. */
function bytesNow(): number {
  if (what === 'resident') return process.memoryUsage.rss();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** Not `process.resourceUsage().maxRSS`, which begins with what the parent had. */
function residentPeak(): number {
  const [, kilobytes] = /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))!;
  return 1024 * Number(kilobytes);
}
