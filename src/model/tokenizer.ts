/** Bytes as tokens: the id of a token is its byte. */

/** The tokens of a text: the bytes of its UTF-8. */
export function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/**
 * UTF-8 read one byte at a time: `push` returns the characters that the byte completes, often none, and `end` what is
 * left. Bytes that are no UTF-8 become U+FFFD, as the WHATWG Encoding Standard says; a byte order mark is a character.
 */
export function decoder(): { push(byte: number): string; end(): string } {
  const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
  return {
    push: byte => utf8.decode(Uint8Array.of(byte), { stream: true }),
    end: () => utf8.decode(),
  };
}
