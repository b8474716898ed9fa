/** Which of two ways of computing the same is faster here: both made hot, and timed in turns. */

/** Rounds that make kernels hot. */
const WARM_ROUNDS = 40;
/** A time is the least of so many rounds. */
const PROBE_ROUNDS = 6;

/** Runs rounds until the engine has had reason, and so much time, to optimise; between them the event loop turns. */
export async function heat(round: () => void, milliseconds = 0): Promise<void> {
  const end = performance.now() + milliseconds;
  for (let i = 0; i < WARM_ROUNDS || performance.now() < end; i++) {
    round();
    await new Promise(resolve => setTimeout(resolve, 0));
  }
}

/** Whether one, which is hot, takes less time than the other, which is too. */
export function isFaster(one: () => void, other: () => void): boolean {
  const times = Array.from({ length: PROBE_ROUNDS }, () => [timeOf(one), timeOf(other)]);
  const [least, leastOfOther] = [0, 1].map(which => Math.min(...times.map(pair => pair[which])));
  return least < leastOfOther;
}

function timeOf(round: () => void): number {
  const start = performance.now();
  round();
  return performance.now() - start;
}
