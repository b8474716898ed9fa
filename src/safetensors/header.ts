/** The header of a safetensors file: JSON text to entries. Grammar alone; where the bytes lie is judged with the bytes. */
import { DTYPES, type Dtype, isDtype } from './dtype.js';
import { JsonCursor, type JsonPath, quote } from './json.js';

/** Bytes that are not a safetensors file, or tensors that would not make one. */
export class SafetensorsError extends Error {
  override readonly name = 'SafetensorsError';
}

/** A tensor as the header describes it; `begin` and `end` are bytes from the start of the data. */
export interface Entry {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

export interface Header {
  /** No two of one name. */
  readonly entries: readonly Entry[];
  readonly metadata: ReadonlyMap<string, string>;
}

/** The one name that is no tensor's. */
export const METADATA = '__metadata__';
/** As many as NumPy has: memory for a shape stays small, whatever the header says. */
const MAX_DIMENSIONS = 64;

/**
 * `{ name: { "dtype", "shape", "data_offsets": [begin, end] }, …, "__metadata__": { key: string, … } }`, the last
 * optional, all in any order, nothing else.
 */
export function parseHeader(text: string): Header {
  const json = new JsonCursor(
    text,
    (path, expected, got) => new SafetensorsError(`${placeOf(path)} expected ${expected}, got ${got}`),
  );
  const entries: Entry[] = [];
  let metadata = new Map<string, string>();
  json.object(name => {
    if (name === METADATA) metadata = json.object(() => json.string());
    else entries.push(parseEntry(json, name));
  });
  json.end();
  return { entries, metadata };
}

function parseEntry(json: JsonCursor, name: string): Entry {
  const entry: { dtype?: Dtype; shape?: number[]; data_offsets?: number[] } = {};
  json.object(key => {
    if (key === 'dtype') entry.dtype = parseDtype(json);
    else if (key === 'shape') entry.shape = parseIntegers(json, MAX_DIMENSIONS);
    else if (key === 'data_offsets') entry.data_offsets = parseIntegers(json, 2);
    else throw json.unexpected('to be dtype, shape or data_offsets', 'another key');
  });
  const { dtype, shape, data_offsets: offsets } = entry;
  if (!dtype || !shape || offsets?.length !== 2) {
    throw json.unexpected('dtype, shape and two data_offsets', JSON.stringify(entry));
  }
  return { name, dtype, shape, begin: offsets[0], end: offsets[1] };
}

function parseDtype(json: JsonCursor): Dtype {
  const dtype = json.string();
  if (!isDtype(dtype)) throw json.unexpected(`one of ${DTYPES.join(', ')}`, quote(dtype));
  return dtype;
}

function parseIntegers(json: JsonCursor, most: number): number[] {
  return json.array(index => {
    if (index === most) throw json.unexpected(`the array to end after ${most} integers`);
    return json.integer();
  });
}

/** How an error names a place in the header: `tensor "a": "shape[2]"`. */
function placeOf([name, ...keys]: JsonPath): string {
  if (name === undefined) return '"header"';
  const key = keys.map((key, i) => (i === 0 ? key : `[${key}]`)).join('');
  const subject = name === METADATA ? `"${METADATA}"` : `tensor ${quote(String(name))}`;
  return keys.length === 0 ? subject : `${subject}: ${quote(key)}`;
}
