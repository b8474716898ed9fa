/** Numbers of experts -> steps of colour. */

export interface Step {
  readonly from: number;
  readonly to: number;
  /** Of the colours in style.css: `--step-0` is the fewest. */
  readonly colour: number;
}

const NUM_COLOURS = 8;

/** Steps from `min` to `max` experts, as many as there are colours at most, each a like factor above the one before. */
export function stepsOf(min: number, max: number): Step[] {
  const bounds: number[] = [];
  for (let k = 0; k < NUM_COLOURS && (bounds.at(-1) ?? 0) < max; k++) {
    const bound = Math.round(min * (max / min) ** (k / (NUM_COLOURS - 1)));
    bounds.push(Math.min(max, Math.max(bound, (bounds.at(-1) ?? min - 1) + 1)));
  }
  const last = Math.max(1, bounds.length - 1);
  return bounds.map((to, k) => ({
    from: k === 0 ? min : bounds[k - 1] + 1,
    to,
    colour: Math.round((k * (NUM_COLOURS - 1)) / last),
  }));
}

/** The colour of so many experts; fewer than the least (all dropped) are as the least. */
export function colourOf(steps: readonly Step[], count: number): number {
  return (steps.find(({ to }) => count <= to) ?? steps.at(-1)!).colour;
}
