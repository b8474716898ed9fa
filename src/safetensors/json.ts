/** A strict reader of JSON that is asked for what must come next: nothing nests deeper than its caller looks. */

/** The keys and positions that lead from the outermost value to the one being read. */
export type JsonPath = readonly (string | number)[];

/** Makes the error for a value at `path` that is not what was expected. */
export type JsonFault = (path: JsonPath, expected: string, got: string) => Error;

const SPACE = new Set([' ', '\n', '\r', '\t']);

/**
 * Reads a JSON text (RFC 8259) from its start to its end, each character once. Stricter than `JSON.parse` where two
 * readers could understand one text differently: a key comes once in its object, however it is escaped, a number is
 * a plain non-negative integer that a float64 holds exactly, and a string has no lone surrogate.
 */
export class JsonCursor {
  readonly #text: string;
  readonly #fault: JsonFault;
  readonly #path: (string | number)[] = [];
  #at = 0;

  constructor(text: string, fault: JsonFault) {
    this.#text = text;
    this.#fault = fault;
  }

  /** `{"key": value, …}`; `member` reads each value. */
  object<V>(member: (key: string) => V): Map<string, V> {
    this.#take('{', 'an object');
    const members = new Map<string, V>();
    for (let more = !this.#skip('}'); more; more = this.#continues('}')) {
      const key = this.string();
      this.#path.push(key);
      if (members.has(key)) throw this.unexpected('once', 'it a second time');
      this.#take(':', '":"');
      members.set(key, member(key));
      this.#path.pop();
    }
    return members;
  }

  /** `[value, …]`; `element` reads each value. */
  array<V>(element: (index: number) => V): V[] {
    this.#take('[', 'an array');
    const elements: V[] = [];
    for (let more = !this.#skip(']'); more; more = this.#continues(']')) {
      this.#path.push(elements.length);
      elements.push(element(elements.length));
      this.#path.pop();
    }
    return elements;
  }

  string(): string {
    this.#skipSpace();
    const start = this.#at;
    if (this.#text[start] !== '"') throw this.unexpected('a string');
    let escaped = false;
    let end = start + 1;
    while (end < this.#text.length && this.#text[end] !== '"') {
      if (this.#text[end] === '\\') {
        escaped = true;
        end++;
      } else if (this.#text[end] < ' ') throw this.unexpected('a string without control characters');
      end++;
    }
    if (end >= this.#text.length) throw this.unexpected('a string that ends');
    const value = escaped ? this.#unescape(this.#text.slice(start, end + 1)) : this.#text.slice(start + 1, end);
    this.#at = end + 1;
    return value;
  }

  /** An integer from 0 to 2^53 - 1, without sign, fraction or exponent. */
  integer(): number {
    const token = this.#token();
    const value = /^(0|[1-9]\d*)$/.test(token) ? Number(token) : Number.NaN;
    if (!Number.isSafeInteger(value)) throw this.unexpected('an integer from 0 to 2^53 - 1');
    this.#at += token.length;
    return value;
  }

  /** Only white space may follow. */
  end(): void {
    this.#skipSpace();
    if (this.#at < this.#text.length) throw this.unexpected('to end after its last brace');
  }

  /** The error for the value being read; what was got is the next token, unless the caller says better. */
  unexpected(expected: string, got = printable(this.#token()) || 'the end of the text'): Error {
    return this.#fault(this.#path, expected, got);
  }

  #unescape(literal: string): string {
    let value: string;
    try {
      value = JSON.parse(literal);
    } catch {
      throw this.unexpected('a string with valid escapes');
    }
    if (/\p{Surrogate}/u.test(value)) throw this.unexpected('a string without lone surrogates');
    return value;
  }

  /** The next token, cut after 40 characters: longer than any integer, and as long as an error needs. */
  #token(): string {
    this.#skipSpace();
    const ahead = this.#text.slice(this.#at, this.#at + 40);
    return /^(?:"(?:[^"\\]|\\.)*"?|[^\s,:"{}[\]]+|.)/su.exec(ahead)?.[0] ?? '';
  }

  #continues(close: string): boolean {
    if (this.#skip(',')) return true;
    this.#take(close, `"," or "${close}"`);
    return false;
  }

  #take(character: string, expected: string): void {
    if (!this.#skip(character)) throw this.unexpected(expected);
  }

  #skip(character: string): boolean {
    this.#skipSpace();
    if (this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #skipSpace(): void {
    while (SPACE.has(this.#text[this.#at])) this.#at++;
  }
}

/** A text as an error shows it: in quotes, cut after 200 characters, with nothing in it that a terminal would obey. */
export function quote(text: string): string {
  return printable(JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text));
}

function printable(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, c => `\\u{${c.codePointAt(0)?.toString(16)}}`);
}
