/** Where the suite runs: runtimes on the installed package as it is, and bundles of it. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { doorsOf as pathsOf } from '../browser/server.js';
import type { FEATURES, Outcome } from './app/check.js';
import { bundlers, esbuild } from './bundles.js';
import { type App, doorsOf, PEERS } from './lay-out.js';
import { chromium, reportOfPage } from './page.js';
import { here, printedBy, runtime } from './processes.js';
import { answerOf, type Behaviour } from './workerd.js';

export interface Place {
  readonly name: string;
  /** Is run on every change; the rest by the command. */
  readonly isQuick: boolean;
  /** Features that it is known not to have; anything else that is absent is a failure, and so is one of these that is there. */
  readonly lacks: readonly (typeof FEATURES)[number][];
  /** The program, if this machine has it. */
  readonly program: string | undefined;
  version(): Promise<string>;
  run(app: App): Promise<Outcome[]>;
}

const RELAXED = 'relaxed SIMD';
const THREADS = 'threads';
const PROCESS = 'xmoe/process';
const FILES = 'files';
const ADDRESSES = 'addresses';

/** The JSON that is the last line; before it a runtime may have said something. */
function parse(printed: string): Outcome[] {
  const report = JSON.parse(printed.trim().split('\n').at(-1)!);
  if (!Array.isArray(report)) throw new Error(report);
  return report;
}

async function versionOf(file: string): Promise<string> {
  const printed = await printedBy(file, ['--version'], { cwd: here });
  return /\d[\w.-]*/.exec(printed)![0];
}

interface ProcessOptions extends Partial<Place> {
  /** Arguments before a file that it is to run. */
  readonly args?: readonly string[];
  /** Arguments before a file of tests; without, that of the README is not run. */
  readonly testArgs?: readonly string[];
}

/** A runtime that is a process: it runs a file, prints, and ends by itself. */
function processPlace(name: string, file: string | undefined, more: ProcessOptions = {}): Place {
  const { args = [], testArgs, ...rest } = more;
  return {
    name,
    isQuick: false,
    lacks: [],
    program: file,
    version: () => versionOf(file!),
    async run({ folder, entry, testFile }) {
      const options = { cwd: folder, env: { DENO_DIR: join(folder, '.deno'), XMOE_RUNS: '3' } };
      const outcomes = parse(await printedBy(file!, [...args, entry('print')], options));
      if (testArgs) outcomes.push(outcomeOfTests(await printedBy(file!, [...testArgs, testFile], options)));
      return outcomes;
    },
    ...rest,
  };
}

/** Of the file of tests in the README, which has ended well. */
function outcomeOfTests(printed: string): Outcome {
  const name = 'the test file of the README passes, run by the runtime as it is';
  return { feature: 'xmoe/spec', name, verdict: 'passed', detail: printed, bits: '' };
}

const workerd = runtime('@cloudflare', 'workerd-', 'bin/workerd');

function workerdPlace(name: string, behaviour: Behaviour): Place {
  return {
    name,
    isQuick: false,
    lacks: [THREADS, PROCESS, FILES],
    program: workerd,
    version: () => versionOf(workerd!),
    async run({ folder, entry }) {
      await esbuild(entry('fetch'), join(folder, 'worker.js'));
      return parse(await answerOf(workerd!, folder, 'worker.js', behaviour));
    },
  };
}

function chromiumPlace(name: string, lacks: Place['lacks'], isQuick: boolean, run: Place['run']): Place {
  return {
    name,
    isQuick,
    lacks: [PROCESS, FILES, ...lacks],
    program: chromium,
    version: () => versionOf(chromium!),
    run,
  };
}

/** A page without a bundle: the browser finds the doors by an import map. */
function pageOf(app: App): string {
  const doors = Object.entries(doorsOf(app)).map(([door, file]) => [door, `/node_modules/xmoe/${file}`]);
  const imports = { ...pathsOf(PEERS), ...Object.fromEntries(doors) };
  writeFileSync(
    join(app.folder, 'unbundled.html'),
    `<!doctype html><title>xmoe</title>
<script type="importmap">${JSON.stringify({ imports })}</script>
<script type="module" src="/spec/everywhere/app/post.js"></script>
`,
  );
  return 'unbundled.html';
}

const node = process.execPath;
const lacksOfNode = (version: string) => (Number.parseInt(version, 10) < 22 ? ([RELAXED] as const) : []);

const thisNode = processPlace('this Node', node, {
  isQuick: true,
  lacks: lacksOfNode(process.versions.node),
  testArgs: [],
});

const nodes = ['20', '22', '24', '26'].map(major =>
  processPlace(`Node ${major}`, runtime('', `node-${major}`, 'bin/node'), {
    lacks: lacksOfNode(major),
    testArgs: [],
  }),
);

const deno = runtime('@deno', '', 'deno');

const others: readonly Place[] = [
  processPlace('Deno', deno, {
    args: ['run', '--allow-read', '--allow-net', '--allow-env', '--allow-run'],
    testArgs: ['test', '--no-check', '--allow-env'],
  }),
  processPlace('Deno, without permissions', deno, { args: ['run'], lacks: [PROCESS, FILES, ADDRESSES] }),
  processPlace('Bun', runtime('@oven', 'bun-', 'bin/bun'), { args: ['run'], testArgs: ['test'] }),
  // From this day's behaviour on, kernels can be compiled while a worker starts.
  workerdPlace('workerd', { date: '2025-06-01', flags: [] }),
  workerdPlace('workerd, `nodejs_compat`', { date: '2026-01-01', flags: ['nodejs_compat'] }),
  chromiumPlace('Chromium, cross-origin isolated', [], true, async app =>
    parse(await reportOfPage(app.folder, pageOf(app), true)),
  ),
  chromiumPlace('Chromium, not isolated', [THREADS], false, async app =>
    parse(await reportOfPage(app.folder, pageOf(app), false)),
  ),
];

const bundled = bundlers.flatMap(({ name, forNode, forPage }) => [
  processPlace(`${name}, in Node`, node, {
    isQuick: true,
    lacks: lacksOfNode(process.versions.node),
    async run(app) {
      const out = join(app.folder, `${name}-node`);
      await forNode(app, out);
      return parse(await printedBy(node, [join(out, 'main.js')], { cwd: out }));
    },
  }),
  chromiumPlace(`${name}, in Chromium`, [], name === 'esbuild', async app => {
    const out = join(app.folder, `${name}-page`);
    await forPage(app, out);
    return parse(await reportOfPage(out, 'index.html', true));
  }),
]);

/** Those of a quick run, or all. */
export function places(isQuick: boolean): readonly Place[] {
  return isQuick ? [thisNode, ...others, ...bundled].filter(place => place.isQuick) : [...nodes, ...others, ...bundled];
}
