/** The README's page runs in Chromium, and writes what its snippet for Node writes. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { openRuntime } from 'xmoe/runtime';
import { visit } from './visit.js';

const root = new URL('../../../', import.meta.url);
const [, html] = /```html\n([\s\S]*?)```/.exec(readFileSync(new URL('README.md', root), 'utf8'))!;

/** The page; and what it asks for, of the package and of the models. */
function fileOf(url: string): { type: string; body: string | Buffer } | undefined {
  if (url === '/') return { type: 'text/html', body: `<!doctype html>${html}` };
  const path = url.replace('/node_modules/xmoe/', '/');
  if (!/^\/(dist|models)\/[\w/.-]+$/.test(path) || path.includes('..')) return undefined;
  return {
    type: path.endsWith('.js') ? 'text/javascript' : 'application/octet-stream',
    body: readFileSync(new URL(`.${path}`, root)),
  };
}

test('the page in the README writes', async t => {
  const server = createServer(({ url = '/' }, response) => {
    const file = fileOf(url);
    if (!file) response.writeHead(404);
    else response.setHeader('content-type', file.type).write(file.body);
    response.end();
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());

  const runtime = await openRuntime(new URL('models/xmoe-gpt.safetensors', root));
  let expected = '';
  for await (const { text } of runtime.generate('In the beginning', { maxTokens: 40, temperature: 0 }))
    expected += text;
  runtime.dispose();

  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const page = await visit(t, { url, expected: /favicon/ });
  await page.locator('output').getByText(expected.trim(), { exact: false }).waitFor();
  assert.equal(await page.locator('output').textContent(), expected);
  assert.equal(await page.locator('progress').evaluate(bar => (bar as HTMLProgressElement).value), 1);
});
