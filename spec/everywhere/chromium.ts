/** Headless Chromium on a page of a folder. The page posts its report to where it came from; nothing drives the browser. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { extname, join, normalize } from 'node:path';
import { PATIENCE, program } from './processes.js';

export const chromium = program(process.env.CHROMIUM, 'chromium', 'chromium-browser', 'google-chrome');

const TYPES: Record<string, string> = { '.html': 'text/html', '.js': 'text/javascript', '.json': 'application/json' };

/** With these a page may share memory with its workers. */
const ISOLATION = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp' };

const FLAGS = [
  ...['--headless', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'],
  ...['--disable-component-update', '--disable-sync'],
  ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []), // Chromium refuses to be root in a sandbox
];

/** What `page` of `folder` posts to /report. @throws Error where it posts nothing in time, with what the browser said */
export async function reportOfPage(folder: string, page: string, isIsolated: boolean): Promise<string> {
  const profile = mkdtempSync(join(tmpdir(), 'xmoe-chromium-'));
  let resolve!: (report: string) => void;
  const posted = new Promise<string>(r => {
    resolve = r;
  });
  const server = createServer((request, response) => {
    if (request.method === 'POST') textOf(request).then(resolve);
    serve(folder, request, response, isIsolated ? ISOLATION : {});
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  const browser = spawn(chromium!, [...FLAGS, `--user-data-dir=${profile}`, `http://127.0.0.1:${port}/${page}`]);
  const hasEnded = once(browser, 'close');
  const errors = textOf(browser.stderr);
  const clock = setTimeout(() => browser.kill(), PATIENCE);
  try {
    return await Promise.race([
      posted,
      hasEnded.then(async () => {
        throw new Error(`${page}: no report within ${PATIENCE} ms\n${await errors}`);
      }),
    ]);
  } finally {
    clearTimeout(clock);
    browser.kill();
    await hasEnded;
    server.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

function serve(folder: string, request: IncomingMessage, response: ServerResponse, headers: object): void {
  const path = normalize(new URL(request.url!, 'http://localhost').pathname);
  try {
    const file = readFileSync(join(folder, path));
    response.writeHead(200, { ...headers, 'Content-Type': TYPES[extname(path)] ?? 'application/octet-stream' });
    response.end(file);
  } catch {
    response.writeHead(request.method === 'POST' ? 204 : 404, { ...headers }).end();
  }
}

async function textOf(stream: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}
