/** Every snippet of the README runs, and prints what its comments say. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const readme = readFileSync(join(root, 'README.md'), 'utf8');
const snippets = [...readme.matchAll(/```(\w+)\n([\s\S]*?)```/g)].map(([, language, code]) => ({ language, code }));
const scripts = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).scripts;

/** Where snippets are, and where those commands run that name one. */
const folder = join(root, 'build/readme');
rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });

/** Searches are short here: other tests make them at length. */
const env = { ...process.env, XMOE_RUNS: '10' };
const shorter = (args: string[]) => (args[0] === 'check' && args[1] === '--backend' ? ['--runs', '200'] : []);

function run(cwd: string, ...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd, encoding: 'utf8', env });
  assert.equal(status, 0, stdout + stderr);
  return stdout;
}

/** What `console.log` prints according to the comments behind it: the numbers right after `//`. */
function promised(code: string): string[] {
  return [...code.matchAll(/console\.log\(.*\); \/\/ ([\d. ]+)/g)].map(match => match[1].trim());
}

const inJavaScript = snippets.filter(({ language }) => language === 'js');
inJavaScript.forEach(({ code }, i) => {
  const name = /^\/\/ (\S+\.mjs)\n/.exec(code)?.[1]; // a file of that name, which a command runs
  const path = join(folder, name ?? `snippet-${i + 1}.mjs`);
  writeFileSync(path, code);
  if (name) return;
  test(`README snippet ${i + 1} runs and prints what it promises`, () => {
    const printed = run(root, path).trim().split('\n');
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

const hasNumpy = spawnSync('python3', ['-c', 'import numpy']).status === 0;

for (const command of commands) {
  const skip = command.includes('python3') && !hasNumpy && 'needs python3 with NumPy';
  test(`README command: ${command}`, { skip }, () => {
    if (command.startsWith('npm ')) {
      // installing within a test is CI's business; what these two run is here
      for (const [, script] of command.matchAll(/npm (start|cit|run \w+)/g)) {
        assert.ok(scripts[script === 'cit' ? 'test' : script.replace('run ', '')], script);
      }
      return;
    }
    const [program, ...args] = [...command.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain);
    if (program === 'npx') {
      assert.equal(args.shift(), 'xmoe');
      assert.notEqual(run(folder, join(root, 'dist/cli/main.js'), ...args, ...shorter(args)), '');
    } else {
      assert.equal(program, 'node');
      if (args[0].includes('/')) assert.notEqual(run(root, ...args), '');
      else run(folder, ...args);
    }
  });
}

test('the README has what it says it has', () => {
  assert.equal(inJavaScript.length, 7);
  assert.ok(commands.length >= 7);
  const scriptOfStart = scripts.start.split('node ')[1].split(' ');
  assert.match(run(root, ...scriptOfStart, '--max-tokens', '100'), /^At τ = 0\.9 /m);
});
