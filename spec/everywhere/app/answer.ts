/** A program of somebody else's: it reads layer cases from stdin, and answers on stdout. */
import { readSync, writeSync } from 'node:fs';
import { forward, referenceF32 } from 'xmoe';
import { outputTensors, readLayerCase, writeOutputs } from 'xmoe/layer-case';

for (let question = read(); question; question = read()) {
  const { x, weights, config, inputs } = readLayerCase(question);
  const outputs = outputTensors(forward(referenceF32, x, weights, config, inputs));
  write(writeOutputs(outputs, 'F32', new Map()));
}

function read(): Uint8Array | undefined {
  const length = take(8);
  return length && take(Number(new DataView(length.buffer).getBigUint64(0, true)));
}

/** The next bytes of stdin; undefined at its end. */
function take(numBytes: number): Uint8Array<ArrayBuffer> | undefined {
  const bytes = new Uint8Array(numBytes);
  for (let at = 0; at < numBytes; ) {
    const count = readSync(0, bytes, at, numBytes - at, null);
    if (count === 0) return undefined;
    at += count;
  }
  return bytes;
}

function write(answer: Uint8Array): void {
  const bytes = new Uint8Array(8 + answer.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(answer.length), true);
  bytes.set(answer, 8);
  for (let at = 0; at < bytes.length; ) at += writeSync(1, bytes, at);
}
