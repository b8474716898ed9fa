/** What the visitor sets and asks for. */
import type { ExpertFormat } from 'xmoe/wasm';
import { byId, create } from './dom.js';
import type { LoadOptions } from './loader.js';
import type { WriteAsk } from './messages.js';
import { type Threshold, thresholds, thresholdText } from './thresholds.js';

export type TextChoice = 'written' | 'sotu' | 'moby' | 'kjv';

const nothing = () => {};

export class Controls {
  onWrite: () => void = nothing;
  onStop: () => void = nothing;
  /** Another text is chosen. */
  onText: () => void = nothing;
  onColour: () => void = nothing;
  onThreshold: () => void = nothing;
  onFile: (file: File) => void = nothing;
  onShipped: () => void = nothing;
  /** The model is to be held in another way. */
  onOptions: () => void = nothing;
  /** Of loading. */
  onCancel: () => void = nothing;

  readonly #writing = byId<HTMLFormElement>('writing');
  readonly #prompt = byId<HTMLTextAreaElement>('prompt');
  readonly #write = byId<HTMLButtonElement>('write');
  readonly #stop = byId<HTMLButtonElement>('stop');
  readonly #slider = byId<HTMLInputElement>('threshold');
  readonly #colourBy = byId<HTMLSelectElement>('colour-by');
  readonly #counts = byId<HTMLInputElement>('counts');
  readonly #texts = byId<HTMLFormElement>('texts');
  readonly #options = byId<HTMLFormElement>('model-options');
  readonly #file = byId<HTMLInputElement>('file');

  constructor() {
    const onClick = (id: string, act: () => void) => byId(id).addEventListener('click', act);
    onClick('stop', () => this.onStop());
    onClick('shipped', () => this.onShipped());
    onClick('cancel', () => this.onCancel());
    onClick('open', () => this.#file.click());
    for (const form of [this.#writing, this.#texts, this.#options]) {
      form.addEventListener('submit', event => event.preventDefault());
    }
    this.#writing.addEventListener('submit', () => this.onWrite());
    this.#writing.addEventListener('invalid', event => openAround(event.target as Element), { capture: true });
    this.#texts.addEventListener('change', () => this.onText());
    this.#options.addEventListener('change', () => this.onOptions());
    this.#colourBy.addEventListener('change', () => this.onColour());
    this.#counts.addEventListener('change', () => this.#showCounts());
    this.#slider.addEventListener('input', () => {
      this.#nameThreshold();
      this.onThreshold();
    });
    this.#file.addEventListener('change', () => {
      const file = this.#file.files?.[0];
      this.#file.value = ''; // so that the same file can be chosen again
      if (file) this.onFile(file);
    });
    this.#slider.max = String(thresholds.length - 1);
    this.#nameThreshold();
    this.#showCounts();
    this.hasModel = false;
  }

  set hasModel(hasModel: boolean) {
    this.#write.disabled = !hasModel;
    this.#slider.disabled = !hasModel;
  }

  set isWriting(isWriting: boolean) {
    this.#stop.disabled = !isWriting;
  }

  get threshold(): Threshold {
    return thresholds[this.#slider.valueAsNumber];
  }

  get text(): TextChoice {
    return new FormData(this.#texts).get('text') as TextChoice;
  }

  set text(choice: TextChoice) {
    (this.#texts.elements.namedItem('text') as RadioNodeList).value = choice;
  }

  /** Bytes of a shipped text that are read. */
  get numBytes(): number {
    return Number(new FormData(this.#texts).get('num-bytes'));
  }

  get promptBytes(): Uint8Array {
    return new TextEncoder().encode(this.#prompt.value);
  }

  get writing(): Omit<WriteAsk, 'prompt' | 'threshold'> {
    const data = new FormData(this.#writing);
    const number = (name: string) => Number(data.get(name));
    return {
      maxTokens: number('length'),
      temperature: number('temperature'),
      topK: number('top-k'),
      topP: number('top-p'),
      seed: number('seed'),
    };
  }

  get loading(): LoadOptions {
    const data = new FormData(this.#options);
    return { weights: data.get('weights') as ExpertFormat, threads: Number(data.get('threads')) };
  }

  /** The XMoE layers that bytes may be coloured by; all of them together first. */
  offerLayers(layers: readonly number[]): void {
    const options = layers.map((layer, i) => create('option', { value: String(i) }, `layer ${layer}`));
    this.#colourBy.replaceChildren(create('option', { value: '' }, 'all layers'), ...options);
  }

  /** Which of the XMoE layers; undefined: all. */
  get layer(): number | undefined {
    return this.#colourBy.value === '' ? undefined : Number(this.#colourBy.value);
  }

  #nameThreshold(): void {
    const text = thresholdText(this.threshold);
    byId('threshold-value').textContent = text;
    this.#slider.setAttribute('aria-valuetext', text);
  }

  #showCounts(): void {
    document.body.classList.toggle('counts', this.#counts.checked);
  }
}

/** What is folded away can have no focus, and a browser asks for nothing that has none. */
function openAround(field: Element): void {
  const details = field.closest('details');
  if (details) details.open = true;
}
