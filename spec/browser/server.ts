/** Serves the compiled package and its tests to a page, which reports to it. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = new URL('../../../', import.meta.url);

const TYPES: Readonly<Record<string, string>> = { '.js': 'text/javascript', '.html': 'text/html' };

export interface Server {
  readonly url: string;
  close(): void;
}

/**
 * @param headers sent with every answer
 * @param onReport told of what the page posts: the path, and the parsed body
 */
export async function serve(
  headers: Readonly<Record<string, string>>,
  onReport: (path: string, body: unknown) => void,
): Promise<Server> {
  const server = createServer(async (request, response) => {
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    if (request.method === 'POST') {
      onReport(request.url!, JSON.parse(await textOf(request)));
      response.end();
    } else answer(new URL(request.url!, 'http://localhost').pathname, response);
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/`,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** The page, a file, or the names in a folder. A path cannot leave the root: it is that of a parsed address. */
function answer(path: string, response: ServerResponse): void {
  const url = new URL(`.${path}`, root);
  try {
    const body = path === '/' ? page() : statSync(url).isDirectory() ? names(url) : readFileSync(url);
    response.setHeader(
      'content-type',
      path === '/' ? 'text/html' : (TYPES[extname(path)] ?? 'application/octet-stream'),
    );
    response.end(body);
  } catch {
    response.statusCode = 404;
    response.end();
  }
}

function names(folder: URL): string {
  return JSON.stringify(readdirSync(folder));
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request) text += chunk;
  return text;
}

function page(): string {
  return `<!doctype html><meta charset="utf-8"><title>xmoe</title><link rel="icon" href="data:,">
<script type="importmap">${JSON.stringify({ imports: imports() })}</script>
<script type="module" src="/build/spec/browser/page.js"></script>`;
}

/** Each door of packages and its path, as Node finds it. */
export function doorsOf(packages: readonly string[]): Record<string, string> {
  const doors = packages.flatMap(name => {
    const manifest = JSON.parse(readFileSync(fileURLToPath(import.meta.resolve(`${name}/package.json`)), 'utf8'));
    return Object.keys(manifest.exports).map(door => name + door.slice(1));
  });
  return Object.fromEntries(doors.map(door => [door, pathOf(import.meta.resolve(door))]));
}

/** The packages that the tests import, and stand-ins for what only Node has. */
function imports(): Record<string, string> {
  return {
    ...doorsOf(['xmoe', 'fast-check', 'pure-rand']),
    'node:test': '/build/spec/browser/test.js',
    'node:assert/strict': '/build/spec/browser/assert.js',
  };
}

function pathOf(fileUrl: string): string {
  return `/${fileUrl.slice(root.href.length)}`;
}
