/** One output against the reference's, element by element. */

import { type Approximate, isBound } from '../bounds/approximate.js';
import { type FloatFormat, ulpAt } from '../bounds/arithmetic.js';
import type { Place } from '../types.js';
import type { Observed } from './observe.js';

export interface Difference {
  /** Where it is worst against its bound; absent where all is equal. */
  readonly worst?: Place;
  /** Where that is, in row-major order. */
  readonly index?: number;
  /** |difference| / bound there; 0 where all is equal. */
  readonly ratio: number;
  readonly numWrong: number;
  readonly numNonFinite: number;
  /** Elements without a finite bound: the format may overflow there. */
  readonly numUnbounded: number;
  readonly numValues: number;
}

/** From a flat index to a place. */
export type PlaceOf = (index: number) => Pick<Place, 'token' | 'expert' | 'column'>;

/** `counts` says which elements are compared; default all. */
export function differenceOf(
  { data }: Observed,
  { value, error }: Approximate,
  format: FloatFormat,
  placeOf: PlaceOf,
  counts?: (index: number) => boolean,
): Difference {
  let [numWrong, numNonFinite, numUnbounded, numValues] = [0, 0, 0, 0];
  let [worst, ratio] = [-1, 0];
  for (let i = 0; i < data.length; i++) {
    if (counts && !counts(i)) continue;
    numValues++;
    const difference = Math.abs(data[i] - value.data[i]);
    if (difference === 0) continue;
    if (!isBound(error[i])) {
      numUnbounded++;
      continue;
    }
    if (!Number.isFinite(data[i])) numNonFinite++;
    const isWrong = !(difference <= error[i]);
    if (isWrong) numWrong++;
    const own = Number.isFinite(difference) ? difference / error[i] : Number.POSITIVE_INFINITY;
    if (own > ratio || (worst < 0 && isWrong)) [worst, ratio] = [i, own];
  }
  const counted = { ratio, numWrong, numNonFinite, numUnbounded, numValues };
  if (worst < 0) return counted;
  const [reference, got] = [value.data[worst], data[worst]];
  const difference = Math.abs(got - reference);
  const place: Place = {
    ...placeOf(worst),
    reference,
    value: got,
    difference,
    bound: error[worst],
    ulps: difference / ulpAt(format, reference),
  };
  return { ...counted, worst: place, index: worst };
}

/** By token and expert, or column. */
export function byToken(cols: number, of: 'expert' | 'column'): PlaceOf {
  return index => ({ token: Math.floor(index / cols), [of]: index % cols });
}
