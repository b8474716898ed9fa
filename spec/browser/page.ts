/** What runs in the page: imports the files of tests, runs the tests, and tells the server of each. */
import { env } from '../environment.js';
import type { Result } from './results.js';
import { type RegisteredTest, registered } from './test.js';

async function run({ name, options, run }: RegisteredTest): Promise<Result> {
  if (options.skip) return { name, skipped: String(options.skip) };
  let skipped: string | undefined;
  const notes: string[] = [];
  try {
    await run({
      diagnostic: text => notes.push(text),
      skip: reason => {
        skipped = reason;
      },
    });
  } catch (error) {
    return { name, notes, failure: error instanceof Error ? `${error.message}\n${error.stack}` : String(error) };
  }
  return { name, notes, skipped };
}

function report(path: string, body: unknown): Promise<unknown> {
  return fetch(path, { method: 'POST', body: JSON.stringify(body) });
}

try {
  for (const file of env.files!.split(',')) await import(`../${file}.test.js`);
  for (const test of registered) {
    await report('/began', test.name);
    await report('/result', await run(test));
  }
} catch (error) {
  await report('/result', { name: 'the page', failure: String(error) } satisfies Result);
}
await report('/end', {});
