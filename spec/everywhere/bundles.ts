/** The suite, bundled as each bundler does it when nobody has configured it: it is told what to bundle and where to put it. */
import { writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { App } from './lay-out.js';
import { here } from './processes.js';

const tools = createRequire(join(here, 'bundlers/package.json'));

/** A file of what is installed beside the suite, and not with xmoe. @throws Error that says how to install it */
export function toolFile(name: string): string {
  try {
    return tools.resolve(name);
  } catch (cause) {
    throw new Error(`"${name}" is not there; npm ci --prefix spec/everywhere/bundlers --ignore-scripts`, { cause });
  }
}

async function load<T>(name: string): Promise<T> {
  return (await import(pathToFileURL(toolFile(name)).href)) as T;
}

export interface Bundler {
  readonly name: 'esbuild' | 'vite' | 'webpack';
  /** Leaves a module `main.js` in `out`. */
  forNode(app: App, out: string): Promise<void>;
  /** Leaves a page `index.html` in `out`, and what it loads. */
  forPage(app: App, out: string): Promise<void>;
}

interface Esbuild {
  build(options: object): Promise<unknown>;
}

/** @param options of minifying */
export async function esbuild(entry: string, outfile: string, options: object = {}): Promise<void> {
  const { build } = await load<Esbuild>('esbuild');
  await build({ entryPoints: [entry], outfile, bundle: true, format: 'esm', logLevel: 'error', ...options });
}

interface Webpack {
  default(
    options: object,
    done: (error: Error | null, stats?: { toString(): string; hasErrors(): boolean }) => void,
  ): void;
}

async function webpack(entry: string, out: string): Promise<void> {
  const { default: run } = await load<Webpack>('webpack');
  await new Promise<void>((resolve, reject) => {
    run({ entry, output: { path: out }, mode: 'production' }, (error, stats) => {
      if (error || stats!.hasErrors()) reject(error ?? new Error(stats!.toString()));
      else resolve();
    });
  });
}

interface Vite {
  build(options: object): Promise<unknown>;
}

async function vite(app: App, out: string, options: { build?: object; ssr?: object }): Promise<void> {
  const { build } = await load<Vite>('vite');
  const where = { outDir: out, emptyOutDir: true };
  await build({ ...options, root: app.folder, logLevel: 'error', build: { ...options.build, ...where } });
}

const page = (src: string) => `<!doctype html><title>xmoe</title><script type="module" src="${src}"></script>\n`;

async function withPage(out: string, bundled: Promise<void>): Promise<void> {
  await bundled;
  writeFileSync(join(out, 'index.html'), page('main.js'));
}

export const bundlers: readonly Bundler[] = [
  {
    name: 'esbuild',
    forNode: (app, out) => esbuild(app.entry('print'), join(out, 'main.js')),
    forPage: (app, out) => withPage(out, esbuild(app.entry('post'), join(out, 'main.js'))),
  },
  {
    name: 'vite',
    // For Node vite leaves packages out of a bundle, unless it is told not to.
    forNode: (app, out) =>
      vite(app, out, {
        build: { ssr: app.entry('print'), rolldownOptions: { output: { entryFileNames: 'main.js' } } },
        ssr: { noExternal: true },
      }),
    async forPage(app, out) {
      writeFileSync(join(app.folder, 'index.html'), page('./spec/everywhere/app/post.js'));
      await vite(app, out, {});
    },
  },
  {
    name: 'webpack',
    forNode: (app, out) => webpack(app.entry('print'), out),
    forPage: (app, out) => withPage(out, webpack(app.entry('post'), out)),
  },
];
