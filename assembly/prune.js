/** Removes what was compiled from sources that are no longer there: it would be packed, and its tests would run. */
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../', import.meta.url));

for (const [compiled, source] of [
  ['dist', 'src'],
  ['build/spec', 'spec'],
  ['build/bench', 'bench'],
  ['build/page', 'page'],
]) {
  const folder = join(root, compiled);
  if (!existsSync(folder)) continue;
  for (const path of readdirSync(folder, { recursive: true })) {
    const name = /^(.*?)(\.d\.ts|\.js)$/.exec(path)?.[1];
    if (name && !['.ts', '.d.ts'].some(ending => existsSync(join(root, source, name + ending)))) {
      rmSync(join(folder, path));
    }
  }
}
