/** The targets on several Nodes in one table: `node build/bench/summary.js build/bench/results-*.json`, as all.ts wrote them. */
import { readFileSync } from 'node:fs';
import { type Runs, targetTable } from './targets.js';

const runs = process.argv.slice(2).map((file): Runs => JSON.parse(readFileSync(file, 'utf8')));
console.log(targetTable(...runs).join('\n'));
