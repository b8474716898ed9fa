/** One request to an address, and what the answer says of the bytes that it brings. */
import { type Abort, type ByteStream, SourceError, throwIfAborted } from './source-types.js';

/** What tells versions of a file apart byte by byte: RFC 9110, 8.8. */
export interface Validator {
  readonly header: 'etag' | 'last-modified';
  readonly value: string;
}

export interface Answer {
  readonly body: ByteStream;
  /** Whether it is what was wanted of the file, status 206, and not all of it. */
  readonly isPart: boolean;
  /** Of the first byte of the body, in the file. */
  readonly start: number;
  /** Where the body ends; undefined where the server does not say. */
  readonly end: number | undefined;
  /** Bytes of the whole file; undefined where the server does not say. */
  readonly length: number | undefined;
  /** Undefined where there is none that holds byte by byte, or where the bytes come compressed. */
  readonly validator: Validator | undefined;
}

/** Bytes from `start` on, up to `end` or the last; if the file is still that of the validator. */
export interface Wanted {
  readonly start: number;
  readonly end: number | undefined;
  readonly validator?: Validator | undefined;
}

/** What may be over when it is tried again. */
export class Interruption extends SourceError {}

/** Statuses that say so. */
const TRANSIENT: readonly number[] = [408, 425, 429, 500, 502, 503, 504];

/**
 * Ask for a file, or for a part of it, which a server may answer with the whole: status 200, `start` 0.
 *
 * @throws Interruption where nobody answers, or the server is not able to at present; SourceError for what is no such
 *         answer; the reason of an abort
 */
export async function ask(address: string, wanted: Wanted | undefined, signal: Abort | undefined): Promise<Answer> {
  const answer = await fetch(address, {
    ...(wanted && { headers: headersFor(wanted) }),
    ...(signal && { signal: signal as AbortSignal }),
  }).catch(cause => {
    throwIfAborted(signal);
    throw new Interruption(`"source" expected all of its bytes, got ${address}: ${cause}`, { cause });
  });
  try {
    return wanted && answer.status === 206 ? partOf(answer, wanted, address) : wholeOf(answer, wanted, address);
  } catch (error) {
    answer.body?.cancel().catch(() => {}); // however long it is
    throw error;
  }
}

function headersFor({ start, end, validator }: Wanted): Record<string, string> {
  return {
    range: `bytes=${start}-${end === undefined ? '' : end - 1}`,
    ...(validator && { 'if-range': validator.value }),
  };
}

function wholeOf(answer: Response, wanted: Wanted | undefined, address: string): Answer {
  const { status, body } = answer;
  if (status !== 200 || !body) {
    const expected = wanted ? `status 206 for bytes from ${wanted.start} on` : 'status 200 and a body';
    const kind = TRANSIENT.includes(status) ? Interruption : SourceError;
    throw new kind(`"source" expected ${expected}, got ${status} from ${address}`);
  }
  const length = lengthOf(answer);
  return { body, isPart: false, start: 0, end: length, length, validator: validatorOf(answer) };
}

function partOf(answer: Response, wanted: Wanted, address: string): Answer {
  const { body, headers } = answer;
  const range = headers.get('content-range');
  const [first, last, length] =
    /^bytes (\d+)-(\d+)\/(\d+)$/
      .exec(range ?? '')
      ?.slice(1)
      .map(Number) ?? [];
  const isRight = first === wanted.start && last >= first && last < (wanted.end ?? length) && last < length;
  if (!isRight || !body || isCompressed(answer)) {
    const got = isCompressed(answer) ? 'a compressed part' : `"content-range" ${range ?? 'none'}`;
    throw new SourceError(`"source" expected bytes from ${wanted.start} on, got ${got} from ${address}`);
  }
  return { body, isPart: true, start: first, end: last + 1, length, validator: validatorOf(answer) };
}

/** Of an answer from another origin nobody knows whether it was compressed: it may not be shown that header. */
function lengthOf(answer: Response): number | undefined {
  const length = answer.headers.get('content-length');
  return length === null || answer.type === 'cors' || isCompressed(answer) ? undefined : Number(length);
}

/** Positions count bytes as they were stored, and a body has been decompressed. */
function isCompressed({ headers }: Response): boolean {
  return (headers.get('content-encoding') ?? 'identity') !== 'identity';
}

/** RFC 9110, 13.1.5: no weak tag, a date where there is no tag, and no date of a file that was perhaps still written. */
function validatorOf(answer: Response): Validator | undefined {
  if (isCompressed(answer)) return undefined;
  const [tag, modified, now] = ['etag', 'last-modified', 'date'].map(name => answer.headers.get(name));
  if (tag !== null) return tag.startsWith('W/') ? undefined : { header: 'etag', value: tag };
  if (modified === null || now === null || !(Date.parse(modified) + 1000 <= Date.parse(now))) return undefined;
  return { header: 'last-modified', value: modified };
}
