/** Every rule of SEMANTICS.md has its source and its example, and is named by a test; no test names a rule that is not there. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

const spec = new URL('../../spec/', import.meta.url);
const sections = readFileSync(new URL('SEMANTICS.md', spec), 'utf8').split(/^### /m).slice(1);
const rules = sections.map(section => ({ id: section.split(' ')[0], text: section }));
const namedByTests = new Set(
  readdirSync(spec)
    .filter(name => name.endsWith('.test.ts'))
    .flatMap(name => [
      ...readFileSync(new URL(name, spec), 'utf8').matchAll(/\b(?:test|property)\(\s*['"`]([RDECLGMS]\d+)\b/g),
    ])
    .map(match => match[1]),
);

test('every rule has a source and an example worked by hand', () => {
  assert.ok(rules.length > 40);
  for (const { id, text } of rules) {
    assert.match(id, /^[RDECLGMS]\d+$/);
    assert.match(text, /^- Source: \S/m, `rule ${id}`);
    assert.ok(/^- Example: \S/m.test(text), `rule ${id} has no example`);
  }
});

test('every rule is named by a test, and every rule that a test names exists', () => {
  const ids = rules.map(({ id }) => id);
  assert.deepEqual(new Set(ids).size, ids.length, 'a rule id stands twice');
  assert.deepEqual(
    ids.filter(id => !namedByTests.has(id)),
    [],
    'rules that no test names',
  );
  assert.deepEqual(
    [...namedByTests].filter(id => !ids.includes(id)),
    [],
    'tests that name no rule',
  );
});
