/** What many verdicts come to. */
import type { Conformance, Finding, Place, StageName, StageVerdict } from '../types.js';

export interface StageTally {
  readonly verdicts: Record<StageVerdict, number>;
  /** Decisions nearer to going the other way than arithmetic can tell, over all calls. */
  numAmbiguous: number;
  /** Calls in which the probabilistic bound was exceeded. */
  numWarnings: number;
  /** The largest difference as a share of its bound, and where. */
  worst?: Place;
  /** Why it was not judged, the last time that it was not. */
  notJudged?: string;
}

/** A finding, the first of its kind, and in how many calls there was one. */
export interface FindingTally {
  readonly first: Finding;
  count: number;
}

export class Tally {
  numCalls = 0;
  numConforming = 0;
  /** Of the conforming: refused, or without an output that has a stage, so that nothing was judged. */
  numUnjudged = 0;
  readonly stages = new Map<StageName, StageTally>();
  /** By kind and severity, in the order of their first. */
  readonly findings = new Map<string, FindingTally>();

  add({ verdict, stages, findings }: Conformance): void {
    this.numCalls++;
    if (verdict === 'conforms') {
      this.numConforming++;
      if (stages.every(stage => stage.verdict === 'not judged')) this.numUnjudged++;
    }
    for (const stage of stages) {
      const tally = this.#stage(stage.stage);
      tally.verdicts[stage.verdict]++;
      tally.numAmbiguous += stage.numAmbiguous;
      if (stage.warning !== undefined) tally.numWarnings++;
      if (stage.worst && shareOf(stage.worst) > shareOf(tally.worst)) tally.worst = stage.worst;
      if (stage.verdict === 'not judged') tally.notJudged = stage.detail;
    }
    for (const finding of findings) {
      const key = `${finding.severity} ${finding.kind}${finding.kind === 'tie order' ? orderOf(finding) : ''}`;
      const tally = this.findings.get(key);
      if (tally) tally.count++;
      else this.findings.set(key, { first: finding, count: 1 });
    }
  }

  #stage(name: StageName): StageTally {
    const existing = this.stages.get(name);
    if (existing) return existing;
    const verdicts = { agree: 0, admissible: 0, disagree: 0, 'not judged': 0 };
    const fresh: StageTally = { verdicts, numAmbiguous: 0, numWarnings: 0 };
    this.stages.set(name, fresh);
    return fresh;
  }
}

/** Each order of ties is told apart; of other findings the first of its kind stands for all. */
function orderOf({ detail }: Finding): string {
  return ` ${detail.replace(/ \(.*/, '')}`;
}

/** A difference as a share of what is allowed. */
export function shareOf(worst: Place | undefined): number {
  if (!worst || worst.difference === 0) return 0;
  return worst.difference / worst.bound;
}
