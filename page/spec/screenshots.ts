/** `npm run page:screenshots`: page/light.png and page/dark.png, for the README. */
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { findChromium } from '../../spec/browser/chromium.js';
import { serveSite } from '../site/serve.js';

const site = await serveSite({ port: 0, isolation: true });
const browser = await chromium.launch({
  executablePath: findChromium()!,
  args: process.getuid?.() === 0 ? ['--no-sandbox'] : [],
});
for (const colorScheme of ['light', 'dark'] as const) {
  const page = await browser.newPage({ colorScheme, viewport: { width: 1280, height: 800 } });
  await page.goto(site.url);
  await page.locator('#curve .dot').nth(20).waitFor({ timeout: 120_000 });
  await page.locator('.byte').nth(59).hover();
  const path = fileURLToPath(new URL(`../../../page/${colorScheme}.png`, import.meta.url));
  await page.screenshot({ path });
  console.log(path);
}
await browser.close();
await site.close();
