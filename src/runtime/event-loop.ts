/** Turns of the event loop: with timers, messages and input handled in between. */

interface Globals {
  readonly setImmediate?: (callback: () => void) => unknown;
  readonly MessageChannel?: new () => { port1: Port; port2: Port };
}

interface Port {
  onmessage: (() => void) | null;
  postMessage(message: unknown): void;
  close(): void;
}

const { setImmediate, MessageChannel } = globalThis as unknown as Globals;

/** Resolves in a later turn: at once where it can be, since browsers make timers wait. */
export function nextTurn(): Promise<void> {
  return new Promise(resolve => {
    if (setImmediate) setImmediate(resolve);
    else if (MessageChannel) {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        port1.close();
        resolve();
      };
      port2.postMessage(undefined);
    } else setTimeout(resolve, 0);
  });
}
