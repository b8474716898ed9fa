/**
 * The vocabulary: what flows through an XMoE layer, stage by stage. Types only.
 *
 *   T numTokens   E numExperts   d dModel   m dFf (hidden width of one expert)   A numAssignments (kept pairs)
 */

export type Floats = Float64Array | Float32Array;

/** Row-major: element [i, j] is `data[i * cols + j]`. */
export interface Matrix {
  readonly rows: number;
  readonly cols: number;
  readonly data: Floats;
}

/**
 * The weights of one layer. Expert e computes `down[e] · σ(up[e]·x + upBias[e]) + downBias[e]`; with a gate,
 * `down[e] · (σ(gate[e]·x + gateBias[e]) ⊙ (up[e]·x + upBias[e])) + downBias[e]`. An absent bias is none.
 */
export interface Weights {
  /** Wr, one row for each column of logits: [E, d], [E + 1, d] with a skip expert, [0, d] for Hash, which has no router. */
  readonly router: Matrix;
  /** W1: E matrices [m, d]. */
  readonly up: readonly Matrix[];
  /** b1: [E, m]. */
  readonly upBias?: Matrix;
  /** Wg: E matrices [m, d]; only the gated activations have it. */
  readonly gate?: readonly Matrix[];
  /** bg: [E, m]. */
  readonly gateBias?: Matrix;
  /** W2: E matrices [d, m]. */
  readonly down: readonly Matrix[];
  /** b2: [E, d]. */
  readonly downBias?: Matrix;
}

export type RouterName = 'threshold' | 'dense' | 'topk' | 'switch' | 'hash' | 'base_eval' | 'base_train';

/** `swiglu` and `geglu` are the gated forms, with silu and gelu. */
export type ActivationName = 'relu' | 'gelu' | 'gelu_tanh' | 'silu' | 'swiglu' | 'geglu';

export interface Config {
  /** E, not counting a skip expert. */
  readonly numExperts: number;
  readonly router: RouterName;
  /** τ, the probability mass to reach. Router `threshold` needs it; the others ignore it. */
  readonly threshold?: number;
  /** k. Router `topk` needs it; the others ignore it. */
  readonly topK?: number;
  /** γ; `null`: no drop, every expert takes all tokens that select it. `dense` and `base_train` never drop. */
  readonly capacityFactor: number | null;
  /** C_min; 4, as in the authors' code, when absent. */
  readonly minCapacity?: number;
  /** Expert 0 computes nothing and has no capacity limit; the real experts are 1 … E. Default false. */
  readonly skipExpert?: boolean;
  readonly activation: ActivationName;
  /** α, the coefficient of the load-balancing loss in the training loss. Default 0. */
  readonly auxLossCoef?: number;
}

/** What some routers need besides the logits. */
export interface RoutingInputs {
  /** topk: added to the logits when ranks 1 … k − 1 are chosen, already scaled; absent is 0. [T, E] */
  readonly noise?: Matrix;
  /** hash: the id of each token, an index into `hashTable`. [T] */
  readonly tokenIds?: Int32Array;
  /** hash: the expert of each id. [V] */
  readonly hashTable?: Int32Array;
  /** 1 = a real token, 0 = padding. [T]; absent: all are real. */
  readonly tokenMask?: Uint8Array;
}

/** What the router says of every token, padding included. Both [T, E]; [T, 0] for Hash, which has no router. */
export interface Routing {
  readonly logits: Matrix;
  readonly probs: Matrix;
}

/**
 * Which experts each token chose, before capacity. Token t chose `expertIndex[i]` for i from `tokenOffsets[t]` up to
 * `tokenOffsets[t + 1]`, in order of rank: the first is its first choice. A padded token chose none.
 */
export interface Selection {
  readonly numTokens: number;
  /** Columns of logits: E, or E + 1 with a skip expert. */
  readonly numExperts: number;
  readonly tokenOffsets: Int32Array;
  readonly expertIndex: Int32Array;
}

/**
 * Who goes where, with which weight. Rows are the kept (token, expert) pairs, grouped by expert, by token within an
 * expert: expert e owns rows `expertOffsets[e]` up to `expertOffsets[e + 1]`.
 */
export interface DispatchPlan {
  readonly selection: Selection;
  /** Parallel to `selection.expertIndex`: 1 = kept, 0 = dropped. */
  readonly kept: Uint8Array;
  /** C: the rows an expert accepts. Where nothing is dropped, the largest count that a real expert received. */
  readonly capacity: number;
  /** [E + 1] */
  readonly expertOffsets: Int32Array;
  /** The token of each row. [A] */
  readonly tokenIndex: Int32Array;
  /** The combine weight of each row. [A] */
  readonly combineWeight: Floats;
}

/** What the experts computed, a row for each kept pair, in plan order. The rows of a skip expert are zero. */
export interface ExpertRows {
  /** After activation (and gate): [A, m]. */
  readonly hidden: Matrix;
  /** [A, d], not yet weighted. */
  readonly out: Matrix;
}

/** Rule S1. All are 0 when there is no real token. */
export interface Statistics {
  readonly selectedPerToken: number;
  readonly keptPerToken: number;
  /** Share of tokens that lost a selected expert. */
  readonly tokensWithDrop: number;
  /** Share of tokens that lost their first choice. */
  readonly tokensWithoutFirst: number;
  /** Share of (real) experts that kept fewer than C tokens. */
  readonly expertsNotFull: number;
  /** Selected, before capacity, over T. [E] */
  readonly tokensPerExpert: Float64Array;
  /** Population deviation of the top-1 counts, over their mean. */
  readonly top1Variation: number;
  /** Share of hidden activations > 0, all kept rows of real experts pooled. */
  readonly hiddenActive: number;
}

/** FLOPs of one call; a multiply and an add are 2. */
export interface Cost {
  readonly router: number;
  readonly experts: number;
  readonly total: number;
}

/** Every stage of one layer call. */
export interface Trace {
  readonly backend: string;
  readonly routing: Routing;
  readonly plan: DispatchPlan;
  readonly experts: ExpertRows;
  /** [T, d] */
  readonly y: Matrix;
  /** l_aux, before α. */
  readonly loadBalancingLoss: number;
  readonly statistics: Statistics;
  readonly cost: Cost;
}

/** Gradients of Σ(y ⊙ gradY) + α·l_aux. Shapes are those of `x` and of the weights; a part is there when its weight is. */
export interface Gradients {
  readonly loss: number;
  readonly x: Matrix;
  readonly weights: Weights;
}

/** An implementation of the layer: four stages, each judged on its own. Replace what you speed up: `{ ...reference, name, runExperts }`. */
export interface Backend {
  readonly name: string;
  /** The floats that it computes in and hands over. */
  readonly precision: 'f64' | 'f32';
  route(x: Matrix, weights: Weights): Routing;
  dispatch(routing: Routing, inputs: RoutingInputs, config: Config): DispatchPlan;
  runExperts(x: Matrix, plan: DispatchPlan, weights: Weights, config: Config): ExpertRows;
  combine(expertOut: Matrix, plan: DispatchPlan): Matrix;
  /**
   * The four in one call, which hands over no rows in between; the bits are the same. Absent where a backend has none: who
   * replaces a stage of one that has it, leaves it out.
   */
  readonly fused?:
    | ((x: Matrix, weights: Weights, config: Config, inputs: RoutingInputs) => Pick<Trace, 'plan' | 'y'>)
    | undefined;
  /** Absent where a backend has no backward. */
  backward?(trace: Trace, x: Matrix, weights: Weights, config: Config, gradY: Matrix, inputs: RoutingInputs): Gradients;
}
