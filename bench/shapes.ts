/** The layers that the benches time, and the matrix products inside them. */

export interface Shape {
  readonly name: string;
  readonly dModel: number;
  /** 1: a dense FFN, without a router. */
  readonly numExperts: number;
  readonly dFf: number;
  readonly numTokens: number;
  /** On average. */
  readonly expertsPerToken: number;
}

export const shapes: readonly Shape[] = [
  // Small enough for the first cache: what a call costs besides the arithmetic.
  { name: 'S0', dModel: 64, numExperts: 8, dFf: 32, numTokens: 16, expertsPerToken: 2 },
  // The paper's layer: 2.4 GFLOP.
  { name: 'S1', dModel: 768, numExperts: 64, dFf: 384, numTokens: 512, expertsPerToken: 4 },
  // A small edge model.
  { name: 'S2', dModel: 512, numExperts: 32, dFf: 256, numTokens: 256, expertsPerToken: 3 },
  // Decode: one token, other experts at each step; 151 MB of weights in float32.
  { name: 'S3', dModel: 768, numExperts: 64, dFf: 384, numTokens: 1, expertsPerToken: 4 },
  // The dense FFN that S1 replaces: 4.8 GFLOP.
  { name: 'S4', dModel: 768, numExperts: 1, dFf: 3072, numTokens: 512, expertsPerToken: 1 },
];

/** y[n, m] = x[n, k] · w[m, k]ᵀ, one product of a shape. */
export interface Product {
  readonly name: string;
  readonly n: number;
  readonly m: number;
  readonly k: number;
}

/** The router's product, and the two of one expert that got its even share of the tokens, at least one. */
export function products({ name, dModel, numExperts, dFf, numTokens, expertsPerToken }: Shape): Product[] {
  const rows = Math.max(1, Math.round((numTokens * expertsPerToken) / numExperts));
  const router = { name: `${name} router`, n: numTokens, m: numExperts, k: dModel };
  const up = { name: `${name} up`, n: rows, m: dFf, k: dModel };
  const down = { name: `${name} down`, n: rows, m: dModel, k: dFf };
  return numExperts > 1 ? [router, up, down] : [up, down];
}

/** Of the experts' two products in one call, on average; a multiply and an add are 2. The router's is not counted. */
export function flopsOf({ numTokens, expertsPerToken, dModel, dFf }: Shape): number {
  return 4 * numTokens * expertsPerToken * dModel * dFf;
}

/** @throws RangeError naming the option */
export function shapeNamed(option: string, name: string): Shape {
  const shape = shapes.find(candidate => candidate.name === name);
  if (!shape) throw new RangeError(`"${option}" expected some of ${shapes.map(s => s.name).join()}, got ${name}`);
  return shape;
}
