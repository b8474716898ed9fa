/** What happens, and what went wrong. */
import { byId } from './dom.js';

/** What an error means to who sees it, by its name. */
const MEANINGS: Readonly<Record<string, string>> = {
  SafetensorsError: 'That is no model file, or not all of one.',
  SourceError: 'The bytes could not be had.',
  ModelLostError: 'The model is gone.',
  WorkerError: 'A thread of the model failed.',
  TypeError: 'That is no model this page can run.',
  RangeError: 'That is no model this page can run.',
};

export class Notice {
  readonly #status = byId('status');
  readonly #box = byId('error');
  readonly #meaning = byId('error-meaning');
  readonly #message = byId('error-message');
  readonly #retry = byId<HTMLButtonElement>('error-retry');
  readonly #close = byId<HTMLButtonElement>('error-close');

  constructor() {
    this.#close.addEventListener('click', () => this.clearError());
  }

  /** Read out when there is time. */
  status(text: string): void {
    this.#status.textContent = text;
  }

  /** @param retry what is done when it is tried again */
  error(error: unknown, retry?: () => void): void {
    const { name, message } = error instanceof Error ? error : new Error(String(error));
    this.#meaning.textContent = MEANINGS[name] ?? 'That did not work.';
    this.#message.textContent = `${name}: ${message}`;
    this.#retry.hidden = retry === undefined;
    this.#retry.onclick = () => {
      this.clearError();
      retry?.();
    };
    this.#box.hidden = false;
  }

  clearError(): void {
    this.#box.hidden = true;
    this.#message.textContent = '';
  }
}
