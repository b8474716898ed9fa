/** The longest that a timer can wait, 24 days; one that is given more, or Infinity, goes off at once. */
const LONGEST_MS = 2 ** 31 - 1;

/** A time limit as a timer takes it. */
export function millisecondsOf(seconds: number): number {
  return Math.min(1000 * seconds, LONGEST_MS);
}
