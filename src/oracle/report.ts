/** `admissible`: not the recorded decision, but one that the semantics allow too. */
export type Verdict = 'agree' | 'admissible' | 'disagree';

export interface StageReport {
  /** The output's name in a layer case: logits, probs, selected, kept, combine, y, load_balancing_loss, loss, grad.… */
  readonly stage: string;
  readonly verdict: Verdict;
  /** Floats: |difference| where it is worst against what is allowed. Decisions: how many pairs differ. */
  readonly error: number;
  readonly allowed: number;
  /** The worst place, or why other decisions are admissible; empty where all is equal. */
  readonly detail: string;
}
