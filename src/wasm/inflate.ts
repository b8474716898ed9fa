/** The kernels are stored as zlib's `deflateRaw` writes them: a sixth of their size. */

/** What the next bits begin with, by as many bits as the longest code has: a symbol, and above its 9 bits the length of its code. */
interface Code {
  readonly longest: number;
  readonly table: Uint16Array;
}

/** Codes of a length are consecutive, in the order of their symbols, and begin where those of the length before end, doubled. */
function codeOf(lengths: Uint8Array): Code {
  const longest = Math.max(...lengths);
  const table = new Uint16Array(1 << longest);
  let code = 0;
  for (let length = 1; length <= longest; length++, code *= 2) {
    lengths.forEach((ofSymbol, symbol) => {
      if (ofSymbol !== length) return;
      for (let i = reversed(code++, length); i < table.length; i += 1 << length) table[i] = (length << 9) | symbol;
    });
  }
  return { longest, table };
}

/** A code is written from its highest bit on; everything else from its lowest. */
function reversed(code: number, length: number): number {
  let result = 0;
  for (let i = 0; i < length; i++) result |= ((code >> i) & 1) << (length - 1 - i);
  return result;
}

/** The lengths of the codes of blocks that bring none. */
const FIXED = Uint8Array.from({ length: 288 }, (_, symbol) =>
  symbol < 144 ? 8 : symbol < 256 ? 9 : symbol < 280 ? 7 : 8,
);

/** The order in which the lengths of the code of code lengths are written. */
const ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

const END = 256;

/**
 * Inflate raw DEFLATE (RFC 1951), all at once. The platform's DecompressionStream will not do: workerd refuses it while a worker
 * starts, and compiles nothing later.
 *
 * @param numBytes of the result
 * @throws Error for what is no DEFLATE, or is longer or shorter
 */
export function inflate(data: Uint8Array, numBytes: number): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(numBytes);
  let end = 0; // of what is written
  let at = 0; // in bits

  /** At most 16 of the next bits; past the end they are 0. */
  function peek(count: number): number {
    const first = at >> 3;
    const three = data[first] | (data[first + 1] << 8) | (data[first + 2] << 16);
    return (three >> (at & 7)) & ((1 << count) - 1);
  }

  function bits(count: number): number {
    const value = peek(count);
    at += count;
    return value;
  }

  function symbol({ longest, table }: Code): number {
    const found = table[peek(longest)];
    if (found === 0 || at >= 8 * data.length) throw new Error('"data" expected DEFLATE, got a code that there is not');
    at += found >> 9;
    return found & 511;
  }

  function lengthsOfCodes(): [Code, Code] {
    const [numLiterals, numDistances, numOrdered] = [257 + bits(5), 1 + bits(5), 4 + bits(4)];
    const ofLengths = new Uint8Array(ORDER.length);
    for (let i = 0; i < numOrdered; i++) ofLengths[ORDER[i]] = bits(3);
    const code = codeOf(ofLengths);
    const lengths = new Uint8Array(numLiterals + numDistances);
    for (let i = 0; i < lengths.length; ) {
      const length = symbol(code);
      if (length < 16) {
        lengths[i++] = length;
        continue;
      }
      const repeats = length === 16 ? 3 + bits(2) : length === 17 ? 3 + bits(3) : 11 + bits(7);
      if (length === 16) lengths.fill(lengths[i - 1], i, i + repeats); // the others repeat 0
      i += repeats;
    }
    return [codeOf(lengths.subarray(0, numLiterals)), codeOf(lengths.subarray(numLiterals))];
  }

  function stored(): void {
    at = (at + 7) & ~7;
    const length = bits(16);
    at += 16; // its complement
    out.set(data.subarray(at >> 3, (at >> 3) + length), end);
    end += length;
    at += 8 * length;
  }

  function compressed([literals, distances]: [Code, Code]): void {
    for (let literal = symbol(literals); literal !== END; literal = symbol(literals)) {
      if (literal < END) {
        out[end++] = literal;
        continue;
      }
      const length = lengthOf(literal - 257);
      const distance = distanceOf(symbol(distances));
      for (const stop = end + length; end < stop; end++) out[end] = out[end - distance];
    }
  }

  /** 3 to 10, then four numbers for each number of extra bits; the last means 258. */
  function lengthOf(i: number): number {
    if (i < 8 || i === 28) return i < 8 ? 3 + i : 258;
    const extra = (i >> 2) - 1;
    return 3 + ((4 + (i & 3)) << extra) + bits(extra);
  }

  /** 1 to 4, then two numbers for each number of extra bits. */
  function distanceOf(i: number): number {
    if (i < 4) return 1 + i;
    const extra = (i >> 1) - 1;
    return 1 + ((2 + (i & 1)) << extra) + bits(extra);
  }

  for (let isLast = 0; !isLast; ) {
    isLast = bits(1);
    const kind = bits(2);
    if (kind === 0) stored();
    else compressed(kind === 1 ? [codeOf(FIXED), codeOf(new Uint8Array(30).fill(5))] : lengthsOfCodes());
  }
  if (end !== numBytes) throw new Error(`"data" expected ${numBytes} bytes deflated, got ${end}`);
  return out;
}
