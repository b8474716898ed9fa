/** Does a contender compute the model? What it writes at temperature 0, and how well it predicts a text, against the reference. */
import type { Floats } from 'xmoe';
import { evaluate, generate, type Model, sample } from 'xmoe/model';
import type { Reader } from './readers/reader.js';
import { textOf } from './texts.js';

/** Bytes: to write after, to write, and to predict. */
const [PROMPT, WRITTEN, PREDICTED] = [64, 48, 192];

/** How far bits per byte may be from the reference's, over them: float32; less, which the model was not trained for. */
const TOLERANCE = { f32: 1e-5, less: 0.02 };

export interface Wanted {
  readonly written: string;
  readonly bitsPerByte: number;
}

/** What the reference writes and predicts: some seconds. */
export function wantedOf(model: Model): Wanted {
  const tokens = [...generate(model, textOf(PROMPT), { maxTokens: WRITTEN, temperature: 0 })];
  return {
    written: Buffer.from(tokens.map(({ byte }) => byte)).toString(),
    bitsPerByte: evaluate(model, textOf(PREDICTED + 1)).bitsPerByte,
  };
}

/** Of whoever is not ours it is told, and he is left out. */
export class WrongAnswer extends Error {}

/**
 * One line for people.
 *
 * @throws WrongAnswer where float32 writes another text, or bits per byte are too far off
 */
export async function check(reader: Reader, wanted: Wanted, isFloat32: boolean): Promise<string> {
  const written = await write(reader);
  const bitsPerByte = await predict(reader);
  const off = Math.abs(bitsPerByte / wanted.bitsPerByte - 1);
  const same = written === wanted.written;
  if (isFloat32 && !same) throw new WrongAnswer(`expected to write ${quoted(wanted.written)}, got ${quoted(written)}`);
  if (!(off <= (isFloat32 ? TOLERANCE.f32 : TOLERANCE.less)))
    throw new WrongAnswer(`expected ${wanted.bitsPerByte} bits per byte, got ${bitsPerByte}`);
  return `${bitsPerByte.toFixed(6)} bits per byte, the reference ${wanted.bitsPerByte.toFixed(6)}; writes ${same ? 'the same' : quoted(written)}`;
}

/** The most probable byte. */
export function mostProbable(logits: Floats): number {
  return sample(logits, { temperature: 0 }, noRandom);
}

const noRandom = new Uint32Array(4);

async function write(reader: Reader): Promise<string> {
  reader.clear();
  const bytes: number[] = [];
  for (let ids = textOf(PROMPT); bytes.length < WRITTEN; ids = Uint8Array.of(bytes.at(-1)!))
    bytes.push(mostProbable(await reader.read(ids)));
  return Buffer.from(bytes).toString();
}

async function predict(reader: Reader): Promise<number> {
  reader.clear();
  const text = textOf(PREDICTED + 1);
  let bits = 0;
  for (let i = 0; i < PREDICTED; i++) {
    const logits = await reader.read(text.subarray(i, i + 1));
    const largest = logits[mostProbable(logits)];
    let sum = 0;
    for (const z of logits) sum += Math.exp(z - largest);
    bits += Math.log2(sum) - (logits[text[i + 1]] - largest) / Math.LN2;
  }
  return bits / PREDICTED;
}

function quoted(text: string): string {
  return JSON.stringify(text);
}
