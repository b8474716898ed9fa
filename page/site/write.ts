/** The page as a folder of static files, which works from any path of any server. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { siteFiles } from './site.js';

/** Files of other names that are there already stay. */
export function writeSite(folder: string): number {
  const files = siteFiles();
  for (const [place, content] of files) {
    const path = join(folder, place);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
  }
  return files.size;
}
