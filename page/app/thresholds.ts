/** The thresholds of the page. */

export type Threshold = number | 'dense';

/** The positions of the slider: τ from 0.05 to 1 in steps of 0.05, then every expert. */
export const thresholds: readonly Threshold[] = [...Array.from({ length: 20 }, (_, i) => (i + 1) / 20), 'dense'];

export function thresholdText(threshold: Threshold): string {
  return threshold === 'dense' ? 'all experts' : `τ = ${threshold.toFixed(2)}`;
}
