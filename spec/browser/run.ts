/**
 * The backend's tests in headless Chromium: on a page that is cross-origin isolated, on one that is not, and on one whose
 * policy forbids workers. Environment: CHROMIUM (path of the browser), RUNS, SEED.
 */
import { RUNS } from '../environment.js';
import { findChromium, openChromium } from './chromium.js';
import type { Result } from './results.js';
import { serve } from './server.js';

/** A page that says nothing for so long has come to a halt. */
const SILENCE_MS = 180_000;

const isolation = { 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp' };

const pages = [
  {
    name: 'isolated',
    headers: isolation,
    files: ['wasm', 'wasm-bits', 'wasm-formats', 'wasm-threads', 'runtime-faults', 'browser/isolated'],
  },
  {
    name: 'not isolated',
    headers: {},
    files: ['wasm', 'wasm-bits', 'wasm-formats', 'wasm-threads', 'runtime-faults', 'browser/not-isolated'],
  },
  {
    name: 'without workers',
    headers: { ...isolation, 'content-security-policy': "worker-src 'none'" },
    files: ['browser/without-workers'],
  },
];

const chromium = findChromium();
if (!chromium) {
  console.error('"CHROMIUM" expected the path of a Chromium, or one on the PATH, got none');
  process.exit(2);
}

let numFailed = 0;
for (const { name, headers, files } of pages) {
  console.log(`# page: ${name}`);
  const results = await resultsOf(chromium, headers, files);
  const count = (what: keyof Result) => results.filter(result => result[what] !== undefined).length;
  numFailed += count('failure');
  console.log(`# ${results.length} tests, ${count('failure')} failed, ${count('skipped')} skipped\n`);
}
process.exitCode = numFailed > 0 ? 1 : 0;

async function resultsOf(
  path: string,
  headers: Readonly<Record<string, string>>,
  files: readonly string[],
): Promise<Result[]> {
  const results: Result[] = [];
  let current = 'the page';
  let silence: NodeJS.Timeout | undefined;
  const add = (result: Result) => {
    results.push(result);
    print(result);
  };
  const { promise: ended, resolve: end } = withResolvers();
  const listen = () => {
    clearTimeout(silence);
    silence = setTimeout(() => {
      add({ name: current, failure: `nothing heard for ${SILENCE_MS / 1000} s` });
      end();
    }, SILENCE_MS);
  };
  const server = await serve(headers, (kind, body) => {
    listen();
    if (kind === '/began') current = body as string;
    if (kind === '/result') add(body as Result);
    if (kind === '/end') end();
  });
  listen();
  const { SEED } = process.env;
  const settings = new URLSearchParams({ files: files.join(), RUNS: `${RUNS}`, ...(SEED !== undefined && { SEED }) });
  const browser = openChromium(path, `${server.url}?${settings}`);
  const died = await Promise.race([ended, browser.ended]);
  if (died !== undefined) add({ name: current, failure: `the browser ended: ${died}` });
  clearTimeout(silence);
  await browser.close();
  server.close();
  if (results.length === 0) add({ name: 'the page', failure: 'no test ran' });
  return results;
}

function print({ name, notes = [], skipped, failure }: Result): void {
  const skip = skipped === undefined ? '' : ` # SKIP ${skipped}`;
  console.log(`${failure === undefined ? 'ok' : 'not ok'} - ${name}${skip}`);
  for (const line of [...notes, ...(failure === undefined ? [] : failure.split('\n'))]) console.log(`    ${line}`);
}

function withResolvers(): { promise: Promise<void>; resolve: () => void } {
  let resolve = () => {};
  const promise = new Promise<void>(done => {
    resolve = done;
  });
  return { promise, resolve };
}
