/** One version of the file at an address, over connections that may break. */
import { chunksOf } from './chunks.js';
import { type Answer, ask, Interruption, type Validator } from './http.js';
import { PAUSES, pause } from './pause.js';
import { type Abort, SourceError } from './source-types.js';

/**
 * Bytes of one version of a file: that of the first answer. When a connection breaks, another one goes on where it stopped
 * (`Range`, `If-Range`), after a pause that grows while no new byte comes.
 *
 * Versions  each answer must have the validator and length of the first. Where a server knows no ranges and sends the same
 *           version from its start, the bytes that were here already are skipped; another version is an error, never the
 *           start of a second try: what has arrived is in use by then
 * Origins   a server of another origin must show a page ETag and Content-Range, and allow If-Range
 */
export class RemoteFile {
  readonly #address: string;
  readonly #validator: Validator | undefined;
  readonly #pauses: readonly number[];
  #length: number | undefined;

  /** @param first the answer that says which version it is */
  constructor(address: string, first: Answer, pauses: readonly number[] = PAUSES) {
    this.#address = address;
    this.#validator = first.validator;
    this.#length = first.length;
    this.#pauses = pauses;
  }

  /** Every byte. @param first the answer that brings them, unless its connection breaks */
  whole(first: Answer, signal: Abort | undefined): AsyncGenerator<Uint8Array, void> {
    return this.#chunks({ start: 0, end: undefined, needsPart: false }, signal, first);
  }

  /** Those from `start` to `end`; a server that sends others is an error. */
  part(start: number, end: number, signal: Abort | undefined): AsyncGenerator<Uint8Array, void> {
    return this.#chunks({ start, end, needsPart: true }, signal);
  }

  async *#chunks(wanted: Wanted, signal: Abort | undefined, first?: Answer): AsyncGenerator<Uint8Array, void> {
    let at = wanted.start;
    let answer = first;
    for (let numVain = 0; ; numVain++) {
      try {
        answer ??= await this.#goOn(at, wanted, signal);
        for await (const chunk of this.#from(at, answer, signal)) {
          if (chunk.length === 0) continue;
          at += chunk.length;
          numVain = 0;
          yield chunk;
        }
        const end = wanted.end ?? this.#length;
        if (end === undefined || at === end) return;
        throw new Interruption(`"source" expected ${end} bytes, got the end of an answer after ${at}`);
      } catch (error) {
        if (!(error instanceof Interruption)) throw error;
        if (at === (wanted.end ?? this.#length)) return; // what broke had nothing left to bring
        if (!this.#validator || numVain >= this.#pauses.length) throw this.#givenUp(at, error);
      }
      await pause(this.#pauses[numVain], signal);
      answer = undefined;
    }
  }

  /** The answer that has the bytes from `at` on. */
  async #goOn(at: number, { end, needsPart }: Wanted, signal: Abort | undefined): Promise<Answer> {
    const answer = await ask(this.#address, { start: at, end, validator: this.#validator }, signal);
    const fault = this.#faultOf(answer, needsPart);
    if (fault) {
      answer.body
        .getReader()
        .cancel()
        .catch(() => {});
      throw new SourceError(
        `"source" expected bytes from ${at} on of the same version, got ${fault} from ${this.#address}`,
      );
    }
    this.#length ??= answer.length;
    return answer;
  }

  #faultOf({ isPart, length, validator }: Answer, needsPart: boolean): string | undefined {
    const version = this.#validator;
    if (validator?.header !== version?.header || validator?.value !== version?.value) {
      return `version ${validator?.value ?? 'unknown'} instead of ${version?.value}`;
    }
    if (length !== undefined && length !== (this.#length ?? length)) {
      return `a file of ${length} bytes instead of ${this.#length}`;
    }
    return needsPart && !isPart ? 'status 200, all of it' : undefined;
  }

  /** The bytes of an answer, but for those before `at`. @throws SourceError for more bytes than it said */
  async *#from(at: number, { body, start, end }: Answer, signal: Abort | undefined): AsyncGenerator<Uint8Array, void> {
    let position = start;
    const failed = (cause: unknown) => {
      throw new Interruption(`${cause}`, { cause });
    };
    for await (const chunk of chunksOf(body, signal, failed)) {
      const skipped = Math.min(chunk.length, Math.max(0, at - position));
      position += chunk.length;
      if (end !== undefined && position > end) {
        throw new SourceError(`"source" expected an answer to end at byte ${end}, got more from ${this.#address}`);
      }
      yield chunk.subarray(skipped);
    }
  }

  #givenUp(at: number, { message, cause }: Interruption): SourceError {
    const why = this.#validator
      ? `${this.#pauses.length} tries in vain`
      : 'its server gave no strong "etag" or "last-modified" to go on with';
    return new SourceError(
      `"source" expected all of its bytes, got ${this.#address} that broke after ${at} bytes (${why}): ${cause ?? message}`,
      { cause },
    );
  }
}

interface Wanted {
  readonly start: number;
  readonly end: number | undefined;
  readonly needsPart: boolean;
}
