/** Serves the page. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname } from 'node:path';
import { siteFiles } from './site.js';

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.txt': 'text/plain; charset=utf-8',
};

/** With these a page is cross-origin isolated, and may have threads. */
const ISOLATION = {
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
};

export interface ServeOptions {
  /** 0: any that is free. */
  readonly port: number;
  readonly isolation: boolean;
}

export interface Served {
  readonly url: string;
  close(): Promise<void>;
}

/** To this machine alone. @throws where the port is in use */
export async function serveSite({ port, isolation }: ServeOptions): Promise<Served> {
  const files = siteFiles();
  const server = createServer(({ method, url = '/' }, response) => {
    const place = url.replace(/^\/|[?#].*$/g, '') || 'index.html';
    const body = files.get(place);
    if (body === undefined || (method !== 'GET' && method !== 'HEAD')) {
      response.writeHead(body === undefined ? 404 : 405).end();
      return;
    }
    response.writeHead(200, {
      'content-type': TYPES[extname(place)] ?? 'application/octet-stream',
      'content-length': Buffer.byteLength(body),
      'cache-control': 'no-cache',
      ...(isolation && ISOLATION),
    });
    response.end(method === 'HEAD' ? undefined : body);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    close: () =>
      new Promise(resolve => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
