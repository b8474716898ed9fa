/** What the oracle asks of an implementation, and what it answers. Types only. */
import type { Layer } from '../cases/index.js';
import type { NamedTensors } from '../layer-case/index.js';
import type { Arithmetic } from './bounds/arithmetic.js';

/** All that one call of a layer is given; a cotangent for y only where gradients are wanted. */
export type LayerCall = Omit<Layer, 'gradY'> & Partial<Pick<Layer, 'gradY'>>;

/**
 * What an implementation said, by the names that `out.*` has in a layer case: logits, probs, selected, kept, combine, y,
 * load_balancing_loss, loss and grad.*; besides them `expert_out` [A, d], the experts' rows before they are weighted, by
 * expert and by token within an expert. Any part may be missing, and is then not judged.
 */
export type Outputs = NamedTensors;

/** Someone's layer, wherever it runs. */
export interface Implementation {
  readonly name: string;
  readonly arithmetic: Arithmetic;
  /** Why it does not take such a call: a router or an activation that it does not have. Absent or undefined: it does. */
  refuses?(call: LayerCall): string | undefined;
  /** Gradients are wanted where `call.gradY` is there. @throws ImplementationError for a process that crashed, hung, … */
  run(call: LayerCall): Outputs | Promise<Outputs>;
  /** Ends processes and threads, and gives memory back. */
  close?(): void | Promise<void>;
}

/** The stages in the order in which they are judged. */
export type StageName =
  | 'logits'
  | 'probs'
  | 'selection'
  | 'dispatch'
  | 'experts'
  | 'combine'
  | 'loss'
  | `grad.${string}`;

/**
 * `agree`: within the bound, or equal decisions. `admissible`: decisions that differ from the reference's by no more than
 * the margins allow, or in an order that is open. `disagree`: wrong. `not judged`: not there, or nothing to judge it by.
 */
export type StageVerdict = 'agree' | 'admissible' | 'disagree' | 'not judged';

/** Where an output is worst against its bound. */
export interface Place {
  readonly token?: number;
  readonly expert?: number;
  readonly column?: number;
  readonly reference: number;
  readonly value: number;
  readonly difference: number;
  readonly bound: number;
  /** What honest roundings exceed with a probability of about 1e-8 only; given where sums are long enough to tell. */
  readonly likelyBound?: number;
  /** The difference in units in the last place of the stage's own format, at the reference's value. */
  readonly ulps: number;
}

export interface StageVerdicts {
  readonly stage: StageName;
  readonly verdict: StageVerdict;
  readonly worst?: Place;
  /**
   * Decisions nearer to going the other way than arithmetic can tell: tokens (selection, loss), experts (dispatch), or
   * tokens whose y was not judged (combine).
   */
  readonly numAmbiguous: number;
  /** The tighter, probabilistic bound was exceeded: a warning, never a fault. */
  readonly warning?: string;
  /** The end of `detail`, where y alone tells why it is this stage: what is said of simpler calls may tell better. */
  readonly guess?: string;
  /** One line for a person: what is wrong, why it is admissible, or why it was not judged. */
  readonly detail: string;
}

/** Something other than a stage that is off by too much. */
export interface Finding {
  readonly kind:
    | 'non-finite'
    | 'wrong shape'
    | 'duplicate expert'
    | 'out of range'
    | 'input modified'
    | 'not repeatable'
    | 'batch-dependent'
    | 'poisoned buffer'
    | 'tie order'
    | 'crashed'
    | 'hung'
    | 'wrote rubbish'
    | 'wrote too much'
    | 'refused';
  /** A property is told, and is no fault. */
  readonly severity: 'fault' | 'property';
  readonly stage?: StageName;
  readonly detail: string;
}

/** The verdict on one call. */
export interface Conformance {
  readonly verdict: 'conforms' | 'does not conform';
  /** In the order of stages; one for each that the call has. */
  readonly stages: readonly StageVerdicts[];
  readonly findings: readonly Finding[];
  /** The first stage that is wrong: where to look. */
  readonly blamed?: StageName;
}
