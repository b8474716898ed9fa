/** Things that come one by one, handed on together: a page that drew each of them would fall behind, and freeze. */

/** Often enough to be seen as a stream. */
const MS = 33;

export class Batches<T> {
  readonly #take: (items: readonly T[]) => void;
  #items: T[] = [];
  #timer: number | undefined;

  /** @param take is given what came since the last time, at least one */
  constructor(take: (items: readonly T[]) => void) {
    this.#take = take;
  }

  push(item: T): void {
    this.#items.push(item);
    this.#timer ??= setTimeout(() => this.flush(), MS); // no frame of animation: a hidden page has none
  }

  /** Hands on what is there, now. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const items = this.#items;
    this.#items = [];
    if (items.length > 0) this.#take(items);
  }
}
