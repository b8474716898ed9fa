/** A page in headless Chromium. It posts its report to where it came from; nothing drives the browser. */
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join, normalize } from 'node:path';
import { findChromium, openChromium } from '../browser/chromium.js';
import { PATIENCE } from './processes.js';

export const chromium = findChromium();

const TYPES: Record<string, string> = { '.html': 'text/html', '.js': 'text/javascript' };

/** With these a page may share memory with its workers. */
const ISOLATION = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp' };

/**
 * What `page` of `folder` posts.
 *
 * @throws Error where it asks for a file that is not there, and where it posts nothing in time
 */
export async function reportOfPage(folder: string, page: string, isIsolated: boolean): Promise<string> {
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
        // The one file that the suite asks for in vain: what is a path elsewhere is an address here.
        if (path !== '/favicon.ico' && !path.endsWith('/model.safetensors'))
          reject(new Error(`${page} asked for ${path}, which is not there`));
        answer(404, {});
      }
    });
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  const browser = openChromium(chromium!, `http://127.0.0.1:${port}/${page}`);
  const clock = setTimeout(() => browser.close(), PATIENCE);
  try {
    const first = await Promise.race([report, browser.ended.then(written => new Error(written))]);
    if (typeof first === 'string') return first;
    throw new Error(`${page}: no report within ${PATIENCE} ms\n${first.message}`);
  } finally {
    clearTimeout(clock);
    await browser.close();
    server.close();
  }
}

async function textOf(stream: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}
