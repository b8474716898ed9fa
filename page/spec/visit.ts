/** A visit to the page in headless Chromium. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, type TestContext } from 'node:test';
import { type Browser, chromium, type Page, type ViewportSize } from 'playwright-core';
import { findChromium } from '../../spec/browser/chromium.js';
import { type Served, serveSite } from '../site/serve.js';

const executablePath = findChromium();
if (!executablePath) throw new Error('"CHROMIUM" expected the path of a Chromium, or one on the PATH, got none');

const modelUrl = new URL('../../../models/xmoe-gpt.safetensors', import.meta.url);

/** The shipped model's file. */
export const modelBytes = readFileSync(modelUrl);

export interface VisitOptions {
  readonly isolation?: boolean;
  readonly colorScheme?: 'light' | 'dark';
  readonly viewport?: ViewportSize;
  /** Of the page; the site's own when absent. */
  readonly url?: string;
  /** Errors of the console that are to be expected. */
  readonly expected?: RegExp;
}

let browser: Browser | undefined;
const sites = new Map<boolean, Served>();

after(async () => {
  await browser?.close();
  for (const site of sites.values()) await site.close();
});

export async function siteUrl(isolation = true): Promise<string> {
  const site = sites.get(isolation) ?? (await serveSite({ port: 0, isolation }));
  sites.set(isolation, site);
  return site.url;
}

/** Opens the page. When the test ends: nothing was asked of any other server, and no error is on the console. */
export async function visit(t: TestContext, options: VisitOptions = {}): Promise<Page> {
  const { isolation = true, colorScheme = 'light', viewport = { width: 1280, height: 800 }, expected } = options;
  const url = options.url ?? (await siteUrl(isolation));
  browser ??= await chromium.launch({
    executablePath: executablePath!,
    args: process.getuid?.() === 0 ? ['--no-sandbox'] : [], // which root must do without
  });
  const context = await browser.newContext({ colorScheme, viewport });
  const wrong: string[] = [];
  const { origin } = new URL(url);
  await context.route('**', async route => {
    const asked = route.request().url();
    if (new URL(asked).origin === origin) return await route.continue();
    wrong.push(`asked for ${asked}`);
    await route.abort();
  });
  const page = await context.newPage();
  page.on('pageerror', error => wrong.push(String(error)));
  page.on('console', message => {
    if (message.type() === 'error' && !expected?.test(message.text())) wrong.push(message.text());
  });
  t.after(async () => {
    await context.close();
    assert.deepEqual(wrong, []);
  });
  await page.goto(url);
  return page;
}

/** The page with its model loaded and the first text read. */
export async function visitLoaded(t: TestContext, options: VisitOptions = {}): Promise<Page> {
  const page = await visit(t, options);
  await untilRead(page);
  return page;
}

/** Until every byte but the first was predicted. */
export async function untilRead(page: Page): Promise<void> {
  await page.locator('#status', { hasText: 'predicted' }).waitFor();
}

/** The text of an element. */
export async function textOf(page: Page, selector: string): Promise<string> {
  return (await page.locator(selector).textContent()) ?? '';
}

/** Gives the page a file to load, as the dialog of files does. */
export async function chooseFile(page: Page, name: string, buffer: Buffer): Promise<void> {
  await page.locator('#file').setInputFiles({ name, mimeType: 'application/octet-stream', buffer });
}

export async function dropFile(page: Page, name: string, buffer: Buffer): Promise<void> {
  const dataTransfer = await page.evaluateHandle(
    ([base64, fileName]) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([Uint8Array.from(atob(base64), c => c.charCodeAt(0))], fileName));
      return transfer;
    },
    [buffer.toString('base64'), name] as const,
  );
  for (const type of ['dragenter', 'dragover', 'drop']) await page.dispatchEvent('main', type, { dataTransfer });
}
