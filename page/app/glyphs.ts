/** How bytes are shown: those that are text, and those that are none. */

export interface Glyph {
  /** What stands in the text; empty for a byte within a character of several. */
  readonly shown: string;
  /** What it is called. */
  readonly name: string;
  readonly kind: 'character' | 'space' | 'break' | 'part' | 'stray';
}

const NAMES: Readonly<Record<string, string>> = {
  ' ': 'space',
  '\t': 'tab',
  '\r': 'carriage return',
  '\u00a0': 'no-break space',
};

/** Reads UTF-8 one byte at a time. A character of several bytes is at the last of them. */
export class Glyphs {
  readonly #utf8 = new TextDecoder('utf-8', { ignoreBOM: true });

  push(byte: number): Glyph {
    const decoded = this.#utf8.decode(Uint8Array.of(byte), { stream: true });
    const text = decoded.replaceAll('\ufffd', '');
    const hex = byte.toString(16).padStart(2, '0');
    if (decoded === '') return { shown: '', name: `byte ${hex} within a character`, kind: 'part' };
    if (text === '') return { shown: hex, name: `byte ${hex}, no text`, kind: 'stray' };
    if (text === '\n') return { shown: '↵\n', name: 'line break', kind: 'break' };
    if (text === ' ') return { shown: ' ', name: 'space', kind: 'space' };
    if (/^\p{Cc}$/u.test(text)) {
      return { shown: pictureOf(text.charCodeAt(0), hex), name: NAMES[text] ?? `control byte ${hex}`, kind: 'stray' };
    }
    return { shown: text, name: NAMES[text] ?? text, kind: 'character' };
  }
}

/** Unicode has a picture of each control of ASCII. */
function pictureOf(code: number, hex: string): string {
  if (code === 0x7f) return '␡';
  return code < 0x20 ? String.fromCharCode(0x2400 + code) : hex;
}
