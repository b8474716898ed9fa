/** The example client of the protocol, in another language: right, small, and wrong in one place when it is. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { xmoe } from './command.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const CLIENT = 'spec/clients/numpy_client.py';
const source = readFileSync(join(root, CLIENT), 'utf8');
const folder = mkdtempSync(join(tmpdir(), 'xmoe-'));

const numpy = spawnSync('python3', ['-c', 'import numpy']);
const skip = numpy.status !== 0 && 'needs python3 with NumPy (Debian: python3-numpy)';

function check(client: string, ...args: string[]) {
  return xmoe('check', '--save', folder, ...args, '--', 'python3', client);
}

test('the NumPy client has at most 40 lines', () => {
  assert.ok(source.trimEnd().split('\n').length <= 40);
});

test('the NumPy client conforms', { skip }, async () => {
  const { status, stdout, stderr } = await check(CLIENT, '--runs', '300', '--router', 'threshold,dense,topk,switch');
  assert.deepEqual([status, stderr], [0, ''], stdout);
  assert.match(stdout, /^conforms on (1\d\d|2\d\d) calls$/m);
});

const faults: [what: string, right: string, wrong: string, stage: string][] = [
  ['takes one expert more where the mass meets τ', '(mass[:, :-1] < c', '(mass[:, :-1] <= c', 'selection'],
  ['forgets that the first is forced', '= 1 + (mass[:, :-1] <', '= (mass <', 'selection'],
  ['does not subtract the largest logit', 'np.exp(logits - logits.max(1, keepdims=True))', 'np.exp(logits)', 'probs'],
  [
    'renormalises',
    'probs[rows, e, None] * linear',
    'probs[rows, e, None] / (probs * selected)[rows].sum(1)[:, None] * linear',
    'combine',
  ],
  ['rounds the capacity down', 'math.ceil(', 'math.floor(', 'dispatch'],
  [
    'drops by probability alone',
    'np.lexsort((-probs[:, e], np.where(selected[:, e], rank[:, e], E)))',
    'np.where(selected[:, e], -probs[:, e], 2).argsort(kind="stable")',
    'dispatch',
  ],
  ['counts padding for the capacity', 'c["capacity_factor"] * real.sum()', 'c["capacity_factor"] * T', 'dispatch'],
  ['takes the wrong gelu', 'geglu=gelu)', 'geglu=gelu_tanh)', 'experts'],
];

for (const [what, right, wrong, stage] of faults) {
  test(`a NumPy client that ${what} is blamed on its ${stage}`, { skip }, async () => {
    assert.equal(source.split(right).length, 2, right);
    const client = join(folder, 'client.py');
    writeFileSync(
      client,
      source.replace(right, () => wrong),
    );
    const { status, stdout, stderr } = await check(client, '--runs', '2000');
    assert.equal(status, 1, `${stdout}${stderr}`);
    assert.match(stdout, new RegExp(`^ +does not conform: look at ${stage}$`, 'm'));
  });
}
