/** Every snippet of the README runs, and prints what its comments say. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const readme = readFileSync(join(root, 'README.md'), 'utf8');
const snippets = [...readme.matchAll(/```(\w+)\n([\s\S]*?)```/g)].map(([, language, code]) => ({ language, code }));
const scripts = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).scripts;

function run(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return stdout;
}

/** What `console.log` prints according to the comments behind it: the numbers right after `//`. */
function promised(code: string): string[] {
  return [...code.matchAll(/console\.log\(.*\); \/\/ ([\d. ]+)/g)].map(match => match[1].trim());
}

const inJavaScript = snippets.filter(({ language }) => language === 'js');
inJavaScript.forEach(({ code }, i) => {
  test(`README snippet ${i + 1} runs and prints what it promises`, () => {
    mkdirSync(join(root, 'build/readme'), { recursive: true });
    const path = join(root, `build/readme/snippet-${i + 1}.mjs`);
    writeFileSync(path, code);
    const printed = run(path).trim().split('\n');
    for (const line of promised(code)) assert.ok(printed.includes(line), `${line} not in ${printed}`);
  });
});

const commands = snippets
  .filter(({ language }) => language === 'sh')
  .flatMap(({ code }) =>
    code
      .trim()
      .split('\n')
      .map(line => line.split(' #')[0].trim()),
  );

for (const command of commands) {
  test(`README command: ${command}`, () => {
    if (command.startsWith('npm ')) {
      // installing within a test is CI's business; what these two run is here
      for (const [, script] of command.matchAll(/npm (start|cit|run \w+)/g)) {
        assert.ok(scripts[script === 'cit' ? 'test' : script.replace('run ', '')], script);
      }
      return;
    }
    const [program, ...args] = [...command.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain);
    assert.equal(program, 'node');
    assert.notEqual(run(...args), '');
  });
}

test('the README has what it says it has', () => {
  assert.equal(inJavaScript.length, 4);
  assert.ok(commands.length >= 7);
  const scriptOfStart = scripts.start.split('node ')[1].split(' ');
  assert.match(run(...scriptOfStart, '--max-tokens', '100'), /^At τ = 0\.9 /m);
});
