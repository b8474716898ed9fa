/**
 * Right backends under the oracle, for long: how many random layers it judges, and whether it ever accuses one.
 *
 * node build/bench/false-alarms.js [--runs N] [--seconds T] [--seed S] [--shard I/N] [--out DIR] [BACKEND …]
 *
 * Each backend gets N cases, or as many as T seconds allow. All of its trace is judged, and then some of its outputs alone, as if it
 * gave no others. A case that is an alarm is written to DIR, and the search goes on.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { type Backend, reference, referenceF32 } from 'xmoe';
import { writeLayerCase } from 'xmoe/layer-case';
import { callOf, conform, describe, type Implementation, implementationOf, shareOf, Tally } from 'xmoe/oracle';
import { wasmBackend } from 'xmoe/wasm';
import { partOfOutputs } from '../spec/part-of-outputs.js';

const backends: Readonly<Record<string, () => Backend | Promise<Backend>>> = {
  'reference-f32': () => ({ ...reference, ...referenceF32 }), // and its backward
  wasm: () => wasmBackend({ deterministic: true }),
  'wasm-relaxed': () => wasmBackend({ features: { relaxedSimd: 'enable' } }),
  'wasm-relaxed-f16': () => wasmBackend({ features: { relaxedSimd: 'enable' }, experts: 'f16' }),
  'wasm-relaxed-bf16': () => wasmBackend({ features: { relaxedSimd: 'enable' }, experts: 'bf16' }),
  'wasm-relaxed-int8': () => wasmBackend({ features: { relaxedSimd: 'enable' }, experts: 'int8' }),
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    runs: { type: 'string', default: '10000' },
    seconds: { type: 'string', default: 'Infinity' },
    seed: { type: 'string', default: '1' },
    shard: { type: 'string', default: '1/1' },
    out: { type: 'string', default: 'build/alarms' },
  },
});
const [runs, limit, seed] = [values.runs, values.seconds, values.seed].map(Number);
const [shard, numShards] = values.shard.split('/').map(Number);
const names = positionals.length > 0 ? positionals : Object.keys(backends);

interface Row {
  readonly tally: Tally;
  readonly alarms: number;
  readonly seconds: number;
}

/** Every fourth case with gradients, where the backend has them. */
async function judge(backendName: string, implementation: Implementation): Promise<Row> {
  const tally = new Tally();
  let alarms = 0;
  const start = performance.now();
  const seconds = () => (performance.now() - start) / 1000;
  for (let index = shard - 1; index < runs && seconds() < limit; index += numShards) {
    const call = callOf(seed, index, {}, index % 4 === 0);
    const outputs = await implementation.run(call);
    const conformance = conform(outputs, call, implementation.arithmetic);
    tally.add(conformance);
    const some = partOfOutputs(outputs, index);
    const ofPart = some.size > 0 ? conform(some, call, implementation.arithmetic) : conformance;
    const alarm = [conformance, ofPart].find(({ verdict }) => verdict === 'does not conform');
    if (!alarm) continue;
    alarms++;
    const name = `${backendName}-${seed}-${index}`;
    mkdirSync(values.out, { recursive: true });
    writeFileSync(
      `${values.out}/${name}.safetensors`,
      writeLayerCase({ ...call, name, recorded: new Map(), dropOrderOpen: false }),
    );
    console.error(`${name}\n${describe(alarm)}`);
  }
  return { tally, alarms, seconds: seconds() };
}

console.log(
  `seed ${seed}, shard ${values.shard}, Node ${process.version}, ${cpus()[0].model}, ${availableParallelism()} cores\n`,
);
console.log(
  '| backend | cases | alarms | decisions that arithmetic cannot tell | warnings | nearest to its bound | cases/s |',
);
console.log('| --- | --: | --: | --: | --: | --- | --: |');
let total = 0;
for (const name of names) {
  const backend = await Promise.resolve(backends[name]()).catch((error: Error) => error);
  if (backend instanceof Error) {
    console.log(`| ${name} | none: ${backend.message} | | | | | |`);
    continue;
  }
  const { tally, alarms, seconds } = await judge(name, implementationOf(backend));
  const stages = [...tally.stages].map(([stage, { worst, numAmbiguous, numWarnings }]) => ({
    stage,
    share: shareOf(worst),
    numAmbiguous,
    numWarnings,
  }));
  const nearest = stages.reduce((a, b) => (b.share > a.share ? b : a));
  const sum = (of: 'numAmbiguous' | 'numWarnings') => stages.reduce((all, stage) => all + stage[of], 0);
  const rate = Math.round(tally.numCalls / seconds);
  console.log(
    `| ${name} | ${tally.numCalls} | ${alarms} | ${sum('numAmbiguous')} | ${sum('numWarnings')} | ${nearest.stage}, ${nearest.share.toFixed(2)} of it | ${rate} |`,
  );
  total += alarms;
}
process.exitCode = total > 0 ? 1 : 0;
