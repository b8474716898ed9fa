/** The server, and the page as static files. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { serveSite } from '../site/serve.js';
import { siteUrl, visitLoaded } from './visit.js';

const main = fileURLToPath(new URL('../site/main.js', import.meta.url));
const run = (...args: string[]) => spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' });

test('a port that is in use, or is none, is a clear error', async t => {
  const served = await serveSite({ port: 0, isolation: true });
  t.after(() => served.close());
  const { port } = new URL(served.url);
  assert.match(
    run('--port', port).stderr,
    new RegExp(`^"--port" expected a port that is free, got ${port}, which is in use\n$`),
  );
  assert.match(run('--port', 'x').stderr, /^"--port" expected an integer from 0 to 65535, got x\n$/);
  assert.equal(run('--port', 'x').status, 2);
});

test('what is not there is status 404, and nothing outside the page can be had', async () => {
  const url = await siteUrl();
  for (const path of ['nothing.js', '../package.json', '%2e%2e/package.json', 'app/../../package.json']) {
    assert.equal((await fetch(url + path)).status, 404, path);
  }
  assert.equal((await fetch(url, { method: 'POST' })).status, 405);
  assert.equal((await fetch(`${url}%`)).status, 404);
});

test('the page works as static files in a folder of any server', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'xmoe-page-'));
  t.after(() => rmSync(folder, { recursive: true }));
  assert.match(run('--build', join(folder, 'some/where')).stdout, /^\d+ files written to /);
  const server = createServer(({ url }, response) => {
    const type = { '.js': 'text/javascript', '.html': 'text/html', '.css': 'text/css', '.svg': 'image/svg+xml' }[
      extname(url!)
    ];
    response.setHeader('content-type', type ?? 'application/octet-stream');
    try {
      response.end(readFileSync(join(folder, url!)));
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  await visitLoaded(t, { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/some/where/index.html` });
});
