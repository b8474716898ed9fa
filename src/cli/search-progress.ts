/** How far a search is, on stderr where that is a terminal; nothing elsewhere. */
import type { Progress } from '../oracle/index.js';

const EVERY_MS = 100;

export function searchProgress(name: string): { show: (progress: Progress) => void; end: () => void } {
  const { stderr } = process;
  if (!stderr.isTTY) return { show: () => {}, end: () => {} };
  let shown = 0;
  let wrote = false;
  const write = (line: string) => {
    stderr.write(`\r\x1b[K${line.slice(0, (stderr.columns || 80) - 1)}`);
    wrote = true;
  };
  return {
    show({ done, total, shrinking }) {
      if (!shrinking && performance.now() - shown < EVERY_MS) return;
      shown = performance.now();
      const so = shrinking
        ? `case ${done + 1} fails; looking for a smaller one`
        : `${done} of ${total} calls, no fault so far`;
      write(`${so} (Ctrl-C stops): ${name}`);
    },
    end() {
      if (wrote) stderr.write('\r\x1b[K');
      wrote = false;
    },
  };
}
