/** The text, byte by byte: coloured by experts, walked through with the arrow keys. */
import { byId, create } from './dom.js';
import { type Glyph, Glyphs } from './glyphs.js';
import type { Predicted } from './messages.js';
import { colourOf, type Step } from './scale.js';
import { counted } from './words.js';

export interface ShownByte {
  readonly byte: number;
  readonly glyph: Glyph;
  /** Undefined for what was not predicted, or not yet. */
  readonly predicted: Predicted | undefined;
}

/** Pixels from the end of the text within which it counts as seen. */
const NEAR_END = 32;

export class TextView {
  readonly #list = byId('bytes');
  #bytes: ShownByte[] = [];
  #glyphs = new Glyphs();
  #steps: readonly Step[] = [];
  #countOf: (predicted: Predicted) => number = () => 0;
  #selected: number | undefined;
  /** The one that was told last. */
  #shown: number | undefined;
  /** Told which byte is pointed at, or else selected; undefined: none. */
  onPoint: (index: number | undefined) => void = () => {};

  constructor() {
    this.#list.addEventListener('keydown', event => this.#onKey(event));
    this.#list.addEventListener('focusin', event => this.#select(this.#indexOf(event.target)));
    this.#list.addEventListener('click', event => this.#focus(this.#indexOf(event.target)));
    this.#list.addEventListener('pointerover', event => this.#show(this.#indexOf(event.target) ?? this.#selected));
    this.#list.addEventListener('pointerleave', () => this.#show(this.#selected));
  }

  get bytes(): readonly ShownByte[] {
    return this.#bytes;
  }

  get raw(): Uint8Array {
    return Uint8Array.from(this.#bytes, ({ byte }) => byte);
  }

  /** How bytes are coloured from now on, and those that are there already. */
  colourBy(steps: readonly Step[], countOf: (predicted: Predicted) => number): void {
    this.#steps = steps;
    this.#countOf = countOf;
    this.#bytes.forEach((_, index) => {
      this.#paint(index);
    });
  }

  clear(): void {
    this.#bytes = [];
    this.#glyphs = new Glyphs();
    this.#selected = undefined;
    this.#list.replaceChildren();
    this.#show(undefined);
  }

  /** Bytes that are to be predicted. */
  append(bytes: Uint8Array): void {
    this.#add(Array.from(bytes, byte => ({ byte, predicted: undefined })));
  }

  /** Bytes that were written. Who sees the end of the text follows it. */
  write(written: readonly Predicted[]): void {
    const isAtEnd = this.#list.scrollTop + this.#list.clientHeight > this.#list.scrollHeight - NEAR_END;
    this.#add(written.map(predicted => ({ byte: predicted.byte, predicted })));
    if (isAtEnd) this.#list.scrollTop = this.#list.scrollHeight;
  }

  #add(bytes: readonly Omit<ShownByte, 'glyph'>[]): void {
    const added = bytes.map(({ byte, predicted }) => {
      const glyph = this.#glyphs.push(byte);
      this.#bytes.push({ byte, glyph, predicted });
      const index = this.#bytes.length - 1;
      return create(
        'span',
        {
          className: `byte ${glyph.kind}`,
          attributes: { role: 'option', tabindex: index === 0 ? '0' : '-1', 'aria-selected': 'false' },
        },
        glyph.shown,
      );
    });
    this.#list.append(...added);
    for (let i = this.#bytes.length - added.length; i < this.#bytes.length; i++) this.#paint(i);
  }

  /** What it took to predict a byte that is there. */
  set(index: number, predicted: Predicted): void {
    this.#bytes[index] = { ...this.#bytes[index], predicted };
    this.#paint(index);
    if (index === this.#shown) this.onPoint(index);
  }

  #paint(index: number): void {
    const { glyph, predicted } = this.#bytes[index];
    const element = this.#elementAt(index);
    if (!predicted) {
      element.setAttribute('aria-label', `${glyph.name}, not predicted`);
      return;
    }
    const count = this.#countOf(predicted);
    element.dataset.colour = String(colourOf(this.#steps, count));
    element.dataset.count = String(count);
    element.setAttribute('aria-label', `${glyph.name}, ${counted(count, 'expert')}`);
  }

  #elementAt(index: number): HTMLElement {
    return this.#list.children[index] as HTMLElement;
  }

  #indexOf(target: EventTarget | null): number | undefined {
    const element = (target as Element | null)?.closest('.byte');
    return element ? Array.prototype.indexOf.call(this.#list.children, element) : undefined;
  }

  #focus(index: number | undefined): void {
    if (index !== undefined) this.#elementAt(index)?.focus();
  }

  /** The one that Tab comes to, and that is shown when nothing is pointed at. */
  #select(index: number | undefined): void {
    if (index === undefined) return;
    for (const [at, isSelected] of [
      [this.#selected ?? 0, false],
      [index, true],
    ] as const) {
      this.#elementAt(at)?.setAttribute('tabindex', isSelected ? '0' : '-1');
      this.#elementAt(at)?.setAttribute('aria-selected', String(isSelected));
    }
    this.#selected = index;
    this.#show(index);
  }

  #show(index: number | undefined): void {
    this.#shown = index;
    this.onPoint(index);
  }

  #onKey(event: KeyboardEvent): void {
    const from = this.#selected ?? 0;
    const to = this.#target(event.key, from);
    if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.#focus(Math.max(0, Math.min(this.#bytes.length - 1, to)));
  }

  #target(key: string, from: number): number | undefined {
    if (key === 'ArrowRight') return from + 1;
    if (key === 'ArrowLeft') return from - 1;
    if (key === 'Home') return 0;
    if (key === 'End') return this.#bytes.length - 1;
    if (key === 'ArrowDown') return this.#inNextLine(from, 1);
    if (key === 'ArrowUp') return this.#inNextLine(from, -1);
    return undefined;
  }

  /** The byte of the next line in that direction that is nearest below or above. */
  #inNextLine(from: number, direction: 1 | -1): number {
    const start = this.#elementAt(from).getBoundingClientRect();
    let [best, line] = [from, undefined as number | undefined];
    for (let at = from + direction; at >= 0 && at < this.#bytes.length; at += direction) {
      const { left, top, height } = this.#elementAt(at).getBoundingClientRect();
      if (Math.abs(top - start.top) < height / 2) continue;
      line ??= top;
      if (Math.abs(top - line) > height / 2) break;
      const distance = Math.abs(left - start.left);
      if (best === from || distance < Math.abs(this.#elementAt(best).getBoundingClientRect().left - start.left))
        best = at;
    }
    return best;
  }
}
