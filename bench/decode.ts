/**
 * How much of the memory's speed does a decode use? S3 reads the weights of four experts at each call, from memory; beside it,
 * as many bytes are read and nothing else: in WebAssembly, in one stream and four, on one thread and two, and in C.
 */
import { wasm } from './contenders/wasm.js';
import { type Entry, LONG } from './measure.js';
import { compileNative } from './native.js';
import { bytesPerWeight } from './precision.js';
import { emit, note, tableOf } from './report.js';
import { timeTogether } from './session.js';
import { shapeNamed } from './shapes.js';
import { readerOf, readerOnTwo } from './stream.js';
import { sharedMemory } from './wasm-module.js';

const shape = shapeNamed('shape', 'S3');
const { dModel, dFf, numExperts, expertsPerToken } = shape;
const ofExpert = 2 * dModel * dFf;
const part = 4 * ofExpert * expertsPerToken; // what a call reads in float32
const numBytes = 4 * ofExpert * numExperts;

const memory = sharedMemory(numBytes);
new Uint8Array(memory.buffer).fill(1); // pages that were never written may all be one and the same
const inTurn = (read: (from: number, to: number) => number) => {
  let from = 0;
  return () => {
    from = (from + part) % numBytes;
    read(from, from + part);
  };
};
const onTwo = ([1, 4] as const).map(streams => readerOnTwo(memory, streams));
const name = (where: string, streams: number) => `read in ${where}, ${streams === 1 ? 'one stream' : 'four streams'}`;
const reads: Entry[] = ([1, 4] as const).flatMap((streams, i) => [
  { contender: name('WASM', streams), threads: 1, shape: shape.name, run: inTurn(readerOf(memory, streams)) },
  { contender: name('WASM', streams), threads: 2, shape: shape.name, run: inTurn(onTwo[i].read) },
]);
const native = compileNative('native-stream');
if (typeof native === 'string') note(`read in C left out: ${native}`);
else {
  for (const streams of [1, 4]) {
    const run = native.sampler(numBytes, part, streams);
    reads.push({ contender: name('C', streams), threads: 1, shape: shape.name, run });
  }
}

const parts = [1, 2].flatMap(threads => wasm.map(contender => ({ contender, shape, threads })));
const rows = await timeTogether(parts, LONG, reads);
for (const { close } of onTwo) close();

const precisions = new Map(wasm.map(({ name, precision = 'f32' }) => [name, precision]));
const bytesOf = (contender: string) => (part / 4) * bytesPerWeight[precisions.get(contender) ?? 'f32'];
emit(rows, () => tableOf(rows, { unit: 'GB/s', perCall: ({ contender }) => bytesOf(contender) }));
