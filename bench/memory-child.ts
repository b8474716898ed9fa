/** Opens a model and writes with it, for memory.ts: `SMALL FILE FORMAT held | resident` -> one line of JSON. */
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
let peak = 0;
// Looking at what is held collects garbage, which would keep what is resident small.
const look = () => {
  global.gc!();
  peak = Math.max(peak, bytesNow() - before);
};
const { weightBytes, memoryBytes: wasmBytes } = await use(file, what === 'held' ? look : () => {});
if (what === 'resident') peak = 1024 * process.resourceUsage().maxRSS - before;
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
