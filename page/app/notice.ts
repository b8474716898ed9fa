/** What happens, and what went wrong. */
import { byId } from './dom.js';

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

  /**
   * @param meaning what it means to who sees it
   * @param retry what is done when it is tried again
   */
  error(meaning: string, error: unknown, retry?: () => void): void {
    const { name, message } = error instanceof Error ? error : new Error(String(error));
    this.#meaning.textContent = meaning;
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
