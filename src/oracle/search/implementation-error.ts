import type { Finding } from '../types.js';

/** An implementation gave no answer that could be judged: it crashed, hung, wrote rubbish, or does not take such calls. */
export class ImplementationError extends Error {
  override readonly name = 'ImplementationError';
  readonly kind: Finding['kind'];

  constructor(kind: Finding['kind'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}
