/**
 * Runs the suite on the packed package in every place that this machine has, and prints what works where, with sizes, as
 * Markdown. Exit code 1 for a failure, a feature that is missing or there against expectation, bits that differ between
 * places, types that do not resolve, or a size over its budget. What is skipped is told.
 *
 *   node build/spec/everywhere/main.js [--quick]
 */
import { rmSync } from 'node:fs';
import { type App, layOut } from './lay-out.js';
import { serveModel } from './model-server.js';
import { type Place, places } from './places.js';
import { sizesOf, sizeTable } from './size.js';
import { type Row, tableOf } from './table.js';
import { checkTypes } from './types.js';

const isQuick = process.argv.includes('--quick');
const failures: string[] = [];
const skipped: string[] = [];
const rows: Row[] = [];
let numPassed = 0;

/** What the first place said, by check: the others must have the same bits. */
const bitsByCheck = new Map<string, { place: string; bits: string }>();

async function visit(place: Place, app: App): Promise<void> {
  if (place.program === undefined) {
    skipped.push(`${place.name}: not installed on this machine`);
    rows.push({ place: place.name, version: 'skipped' });
    return;
  }
  const version = await place.version();
  const outcomes = await place.run(app).catch((error: Error) => {
    rows.push({ place: place.name, version, outcomes: [] });
    throw error;
  });
  rows.push({ place: place.name, version, outcomes });
  for (const { feature, name, verdict, detail, bits } of outcomes) {
    const isExpected = (place.lacks as readonly string[]).includes(feature)
      ? verdict === 'absent'
      : verdict === 'passed';
    const title = `${feature}: ${name}`;
    if (!isExpected) failures.push(`${place.name}: ${title}: ${verdict}: ${detail}`);
    else if (verdict === 'passed') numPassed++;
    if (bits === '') continue;
    const first = bitsByCheck.get(title) ?? { place: place.name, bits };
    bitsByCheck.set(title, first);
    if (first.bits !== bits) failures.push(`${place.name}: ${title}: ${bits}, but on ${first.place} ${first.bits}`);
  }
}

async function attempt(what: string, action: () => Promise<void>): Promise<void> {
  try {
    await action();
  } catch (error) {
    failures.push(`${what}: ${(error as Error).message}`);
  }
}

const server = await serveModel();
const app = await layOut(server.address);
try {
  for (const place of places(isQuick)) await attempt(place.name, () => visit(place, app));
  console.log(`${tableOf(rows)}\n`);
  await attempt('types', async () => console.log(`${(await checkTypes(app)).join('\n')}\n`));
  const sizes = await sizesOf(app);
  console.log(`${sizeTable(sizes)}\n`);
  for (const { what, bytes, budget } of sizes) {
    if (bytes > budget) failures.push(`${what}: expected at most ${budget} bytes, got ${bytes}`);
  }
} finally {
  rmSync(app.folder, { recursive: true });
  server.close();
}
for (const line of skipped) console.log(`skipped ${line}`);
for (const line of failures) console.error(`FAILED ${line}`);
console.log(
  `${numPassed} checks in ${rows.length - skipped.length} places passed, ${failures.length} failed, ${skipped.length} skipped`,
);
if (failures.length > 0) process.exitCode = 1;
