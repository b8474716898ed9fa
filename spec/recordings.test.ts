/** What the paper authors' code computed, float64: selected and kept equal, every float within 1e-12 of the largest in its tensor. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { reference, referenceF32 } from 'xmoe';
import { type LayerCase, readLayerCase, writeLayerCase } from 'xmoe/layer-case';
import { runCase } from 'xmoe/oracle';

const folder = new URL('../../spec/recordings/', import.meta.url);
const names = readdirSync(folder).filter(name => name.endsWith('.safetensors'));
const load = (name: string) => readLayerCase(readFileSync(new URL(name, folder)));

/** Recorded with a tie broken in an order that nobody promised: other kept pairs are admissible. */
const OPEN = ['switch-top1', 'topk-2', 'topk-2-noise-capacity'];

test('all recorded cases are here', () => {
  assert.equal(names.length, 24);
});

for (const name of names) {
  test(`the reference reproduces ${name}, gradients included`, () => {
    const layerCase = load(name);
    const { reports } = runCase(reference, layerCase, true);
    for (const report of reports) {
      const isOpen = report.stage === 'kept' && OPEN.includes(layerCase.name);
      assert.equal(report.verdict, isOpen ? 'admissible' : 'agree', `${report.stage} ${report.detail}`);
      if (!isOpen)
        assert.ok(report.error <= 1e-12 * largest(layerCase, report.stage), `${report.stage} ${report.error}`);
    }
    assert.deepEqual(reports.map(({ stage }) => stage).sort(), [...layerCase.recorded.keys()].sort());
  });

  test(`the reference rounded to float32 is within its bounds on ${name}`, () => {
    const { reports } = runCase(referenceF32, load(name));
    assert.ok(reports.length >= 6);
    for (const { stage, verdict, detail } of reports) assert.notEqual(verdict, 'disagree', `${stage} ${detail}`);
  });
}

function largest({ recorded }: LayerCase, stage: string): number {
  return Math.max(...Array.from(recorded.get(stage)!.data, Math.abs));
}

test('a layer case survives writing and reading', () => {
  for (const name of ['topk-2-noise-capacity.safetensors', 'gelu-erf.safetensors']) {
    const layerCase = load(name);
    assert.deepEqual(readLayerCase(writeLayerCase(layerCase)), layerCase);
  }
});
