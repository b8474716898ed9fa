/** Which colour is how many experts. */
import { byId, create } from './dom.js';
import type { Step } from './scale.js';

export function showLegend(steps: readonly Step[]): void {
  byId('legend').replaceChildren(
    ...steps.map(({ from, to, colour }) => {
      const item = create('li', {}, from === to ? `${from}` : `${from}–${to}`);
      item.dataset.colour = String(colour);
      return item;
    }),
  );
}
