/** Waiting. */

/** Until the page is looked at: at once where it is. @throws the reason of the abort */
export async function whenVisible(signal: AbortSignal): Promise<void> {
  while (document.hidden) await heard(document, 'visibilitychange', signal);
}

/** @throws the reason of the abort */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await heard(AbortSignal.timeout(ms), 'abort', signal);
}

function heard(target: EventTarget, type: string, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = () => reject(signal.reason);
    if (signal.aborted) fail();
    signal.addEventListener('abort', fail, { once: true });
    target.addEventListener(
      type,
      () => {
        signal.removeEventListener('abort', fail);
        resolve();
      },
      { once: true, signal },
    );
  });
}
