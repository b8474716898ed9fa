/** Headless Chromium on a page of a folder. The page posts its report to where it came from; nothing drives the browser. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { extname, join, normalize } from 'node:path';
import { PATIENCE, program } from './processes.js';

export const chromium = program(process.env.CHROMIUM, 'chromium', 'chromium-browser', 'google-chrome');

const TYPES: Record<string, string> = { '.html': 'text/html', '.js': 'text/javascript' };

/** With these a page may share memory with its workers. */
const ISOLATION = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp' };

const FLAGS = [
  ...['--headless', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'],
  ...['--disable-component-update', '--disable-sync'],
  ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []), // Chromium refuses to be root in a sandbox
];

/**
 * What `page` of `folder` posts to /report.
 *
 * @throws Error where it asks for a file that is not there, and where it posts nothing in time, with what the browser said
 */
export async function reportOfPage(folder: string, page: string, isIsolated: boolean): Promise<string> {
  const profile = mkdtempSync(join(tmpdir(), 'xmoe-chromium-'));
  const server = createServer();
  const report = new Promise<string>((resolve, reject) => {
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      const path = normalize(new URL(request.url!, 'http://localhost').pathname);
      const answer = (status: number, more: object, body?: Buffer) =>
        response.writeHead(status, { ...(isIsolated && ISOLATION), ...more }).end(body);
      if (request.method === 'POST') {
        textOf(request).then(resolve, reject);
        answer(204, {});
      } else if (existsSync(join(folder, path))) {
        answer(200, { 'Content-Type': TYPES[extname(path)] }, readFileSync(join(folder, path)));
      } else {
        if (path !== '/favicon.ico') reject(new Error(`${page} asked for ${path}, which is not there`));
        answer(404, {});
      }
    });
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  const browser = spawn(chromium!, [...FLAGS, `--user-data-dir=${profile}`, `http://127.0.0.1:${port}/${page}`]);
  const hasEnded = once(browser, 'close');
  const errors = textOf(browser.stderr);
  const clock = setTimeout(() => browser.kill(), PATIENCE);
  const silence = hasEnded.then(async () => {
    throw new Error(`${page}: no report within ${PATIENCE} ms\n${await errors}`);
  });
  try {
    return await Promise.race([report, silence]);
  } finally {
    silence.catch(() => {}); // it ends now, and nobody waits for its report
    clearTimeout(clock);
    browser.kill();
    await hasEnded;
    server.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

async function textOf(stream: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}
