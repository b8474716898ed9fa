/** Where two selections differ, and how near the first one was to it. */
import { type Config, type Matrix, marginsOf, reference, type Selection } from 'xmoe';

/** The tokens that chose other experts, and those that chose the same ones in another order. */
export function differences(a: Selection, b: Selection): { others: number[]; reordered: number[] } {
  const others: number[] = [];
  const reordered: number[] = [];
  for (let t = 0; t < a.numTokens; t++) {
    const [ofA, ofB] = [chosen(a, t), chosen(b, t)];
    if (ofA.length === ofB.length && ofA.every((expert, rank) => expert === ofB[rank])) continue;
    const isSame = ofA.length === ofB.length && ofA.every(expert => ofB.includes(expert));
    (isSame ? reordered : others).push(t);
  }
  return { others, reordered };
}

function chosen({ tokenOffsets, expertIndex }: Selection, token: number): Int32Array {
  return expertIndex.subarray(tokenOffsets[token], tokenOffsets[token + 1]);
}

/** The least error of probabilities, all together, that lets a token choose other experts: rules M1 and M2. */
export function nearest({ cols, data }: Matrix, token: number, threshold: number): number {
  const probs = { rows: 1, cols, data: data.subarray(token * cols, (token + 1) * cols) };
  const config: Config = {
    ...{ numExperts: cols, router: 'threshold', threshold, capacityFactor: null, activation: 'relu' },
  };
  const routing = { logits: probs, probs }; // the threshold router decides by probabilities alone
  const plan = reference.dispatch(routing, {}, config);
  const numSelected = plan.selection.expertIndex.length;
  const margins = marginsOf(routing, plan, config).filter(
    margin => margin.kind === 'threshold' || margin.rank + 1 === numSelected,
  );
  return Math.min(...margins.map(({ value }) => value));
}
