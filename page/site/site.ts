/** Everything that the page is made of: static files, by their addresses. */
import { readdirSync, readFileSync } from 'node:fs';
import { modulesFrom } from './modules.js';

const root = new URL('../../../', import.meta.url);

const folders: readonly (readonly [from: string, to: string])[] = [
  ['page/static/', ''],
  ['models/text/', 'text/'],
];

/** @throws where a file is missing: the package must have been built */
export function siteFiles(): Map<string, string | Uint8Array> {
  const app = new URL('build/page/app/', root);
  const dist = new URL('dist/', root);
  const placeOf = ({ href }: URL) =>
    href.startsWith(dist.href) ? `xmoe/${href.slice(dist.href.length)}` : `app/${href.slice(app.href.length)}`;
  const files = new Map<string, string | Uint8Array>(
    modulesFrom([new URL('main.js', app), new URL('worker.js', app)], placeOf),
  );
  for (const [from, to] of folders) {
    for (const name of readdirSync(new URL(from, root))) files.set(to + name, readFileSync(new URL(from + name, root)));
  }
  files.set('model/xmoe-gpt.safetensors', readFileSync(new URL('models/xmoe-gpt.safetensors', root)));
  return files;
}
