import type { LayerCase } from './index.js';

/** The narrower dtype in which a file holds this call exactly. */
export function exactDtype({
  x,
  weights,
  inputs,
  gradY,
}: Pick<LayerCase, 'x' | 'weights' | 'inputs' | 'gradY'>): 'F32' | 'F64' {
  const { router, up, upBias, gate = [], gateBias, down, downBias } = weights;
  const matrices = [x, gradY, inputs.noise, router, ...up, upBias, ...gate, gateBias, ...down, downBias];
  const fits = matrices.every(a => !a || a.data instanceof Float32Array || a.data.every(v => Math.fround(v) === v));
  return fits ? 'F32' : 'F64';
}
