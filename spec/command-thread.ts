/** The thread of command.ts: runs commands as they are asked for, and says what each has printed. */
import { fileURLToPath } from 'node:url';
import { parentPort } from 'node:worker_threads';

const main = new URL('../../dist/cli/main.js', import.meta.url);
process.argv[1] = fileURLToPath(main);
const { run }: typeof import('../src/cli/run.js') = await import(new URL('run.js', main).href);

const printed = { stdout: '', stderr: '' };
for (const name of ['stdout', 'stderr'] as const) {
  process[name].write = (text: unknown) => {
    printed[name] += text;
    return true;
  };
}

parentPort!.on('message', async (args: string[]) => {
  Object.assign(printed, { stdout: '', stderr: '' });
  const status = await run(args);
  parentPort!.postMessage({ status, ...printed });
});
