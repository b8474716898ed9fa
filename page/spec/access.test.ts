/** For everybody: rules of accessibility, the keyboard, both schemes and sizes. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { AxeResults } from 'axe-core';
import type { Page } from 'playwright-core';
import { chooseFile, textOf, visitLoaded } from './visit.js';

const axe = readFileSync(fileURLToPath(import.meta.resolve('axe-core/axe.min.js')), 'utf8');

async function violations(page: Page): Promise<string[]> {
  await page.evaluate(axe);
  const results: AxeResults = await page.evaluate(
    'axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"] })',
  );
  assert.ok(results.passes.length > 20);
  return results.violations.flatMap(({ id, nodes }) =>
    nodes.map(node => `${id}: ${node.html.slice(0, 200)} ${node.failureSummary}`),
  );
}

const sizes = [
  { width: 1280, height: 800 },
  { width: 390, height: 844 },
];

for (const colorScheme of ['light', 'dark'] as const) {
  for (const viewport of sizes) {
    test(`axe finds nothing: ${colorScheme}, ${viewport.width} wide`, async t => {
      const page = await visitLoaded(t, { colorScheme, viewport });
      await page.selectOption('[name="num-bytes"]', '256');
      await page.locator('#threshold').fill('20'); // bytes of every colour come up with the three
      await page.locator('#status', { hasText: 'all experts' }).waitFor();
      await page.locator('.byte').nth(30).click();
      for (const summary of await page.locator('summary').all()) await summary.click();
      await page.check('#counts');
      assert.deepEqual(await violations(page), []);
      await page.locator('#threshold').fill('17');
      await page.locator('#status', { hasText: 'τ = 0.90' }).waitFor();
      await chooseFile(page, 'bad.safetensors', Buffer.from('bad'));
      await page.locator('#error').waitFor();
      assert.deepEqual(await violations(page), []);
    });

    test(`nothing is wider than the window: ${colorScheme}, ${viewport.width} wide`, async t => {
      const page = await visitLoaded(t, { colorScheme, viewport });
      for (const summary of await page.locator('summary').all()) await summary.click();
      const width = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.equal(width, viewport.width);
    });
  }
}

/** Relative luminance, as WCAG 2 defines it. */
function luminance([r, g, b]: readonly number[]): number {
  const [lr, lg, lb] = [r, g, b].map(c => (c <= 10.31475 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * lr + 0.7152 * lg + 0.0722 * lb;
}

for (const colorScheme of ['light', 'dark'] as const) {
  test(`each colour of the scale is lighter or darker than the one before, its text readable: ${colorScheme}`, async t => {
    const page = await visitLoaded(t, { colorScheme });
    const colours = await page.locator('#legend li').evaluateAll(items =>
      items.map(item => {
        const { backgroundColor, color } = getComputedStyle(item);
        return [backgroundColor, color].map(text => text.match(/\d+/g)!.map(Number));
      }),
    );
    assert.equal(colours.length, 8);
    const steps = colours.map(([background]) => luminance(background));
    const towards = colorScheme === 'light' ? -1 : 1;
    for (let i = 1; i < steps.length; i++) assert.ok(towards * (steps[i] - steps[i - 1]) > 0, `${steps}`);
    for (const [background, text] of colours) {
      const [low, high] = [luminance(background), luminance(text)].sort((a, b) => a - b);
      assert.ok((high + 0.05) / (low + 0.05) >= 4.5);
    }
  });
}

test('the whole page is used from the keyboard', async t => {
  const page = await visitLoaded(t);
  const focused = () =>
    page.evaluate(
      () =>
        document.activeElement?.id ||
        document.activeElement?.getAttribute('name') ||
        document.activeElement?.className ||
        '',
    );
  const press = (key: string) => page.keyboard.press(key);
  const tabTo = async (wanted: string) => {
    for (let i = 0; i < 30; i++) {
      await press('Tab');
      if ((await focused()) === wanted) return;
    }
    assert.fail(`Tab never came to ${wanted}`);
  };
  await press('Tab');
  assert.equal(await focused(), 'skip');
  await tabTo('prompt');
  await press('Control+A');
  await page.keyboard.type('And the king');
  await tabTo('write');
  await press('Enter');
  await page.locator('#figures-of', { hasText: 'of 211 ' }).waitFor();
  await tabTo('threshold');
  await press('ArrowLeft');
  await page.locator('#status', { hasText: 'τ = 0.85' }).waitFor();
  assert.equal(await page.locator('#threshold').getAttribute('aria-valuetext'), 'τ = 0.85');
  await press('End');
  await page.locator('#status', { hasText: 'all experts' }).waitFor();
  await tabTo('text');
  await press('ArrowRight');
  await page.locator('#figures-of', { hasText: '1,023' }).waitFor();
  await tabTo('byte space').catch(() => {});
});

test('arrow keys walk from byte to byte, and what each took is said', async t => {
  const page = await visitLoaded(t);
  const bytes = page.locator('.byte');
  const isFocused = (index: number) => bytes.nth(index).evaluate(byte => byte === document.activeElement);
  const press = (key: string) => page.keyboard.press(key);
  await bytes.first().focus();
  await press('ArrowRight');
  await press('ArrowRight');
  assert.ok(await isFocused(2));
  assert.match(await textOf(page, '#details'), /byte 61: .*Layer 1: /);
  assert.match((await bytes.nth(2).getAttribute('aria-label'))!, /^a, \d+ experts$/);
  await press('ArrowDown');
  const below = await bytes.evaluateAll(all => all.indexOf(document.activeElement as HTMLElement));
  const [first, second] = await Promise.all([bytes.nth(2), bytes.nth(below)].map(byte => byte.boundingBox()));
  assert.ok(second!.y > first!.y && Math.abs(second!.x - first!.x) < 2);
  await press('ArrowUp');
  assert.ok(await isFocused(2));
  await press('End');
  assert.ok(await isFocused(1023));
  await press('ArrowRight');
  assert.ok(await isFocused(1023));
  await press('Home');
  assert.ok(await isFocused(0));
  assert.equal(await page.locator('.byte[tabindex="0"]').count(), 1);
  await press('Tab'); // one stop for the whole text
  assert.equal(await page.locator('.byte:focus').count(), 0);
});

test('with forced colours each byte has its number', async t => {
  const page = await visitLoaded(t);
  await page.emulateMedia({ forcedColors: 'active' });
  const content = await page
    .locator('.byte')
    .nth(40)
    .evaluate(byte => getComputedStyle(byte, '::after').content);
  assert.notEqual(content, 'none');
});

test('nothing moves where motion is to be reduced', async t => {
  const page = await visitLoaded(t);
  await page.emulateMedia({ reducedMotion: 'reduce' });
  const moving = await page.evaluate(
    () =>
      [...document.querySelectorAll('*')].filter(element => getComputedStyle(element).transitionDuration !== '0s')
        .length,
  );
  assert.equal(moving, 0);
});
