/** Writing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Page } from 'playwright-core';
import { encode, generate, loadModel } from 'xmoe/model';
import { modelBytes, textOf, visitLoaded } from './visit.js';

async function settings(page: Page, values: Readonly<Record<string, string>>): Promise<void> {
  await page.locator('#writing details').evaluate((details: HTMLDetailsElement) => {
    details.open = true;
  });
  for (const [name, value] of Object.entries(values)) await page.fill(`#writing [name="${name}"]`, value);
}

const shownText = (page: Page) =>
  page
    .locator('.byte')
    .allTextContents()
    .then(texts => texts.join('').replaceAll('↵', ''));

test('the model writes on what the reference writes, and the prompt is coloured too', async t => {
  const page = await visitLoaded(t);
  const prompt = 'In the beginning';
  await page.fill('#prompt', prompt);
  await settings(page, { length: '40', temperature: '0' });
  await page.click('#write');
  await page.locator('#figures-of', { hasText: String(prompt.length + 39) }).waitFor();
  const written = generate(loadModel(modelBytes), encode(prompt), { maxTokens: 40, temperature: 0 });
  assert.equal(await shownText(page), prompt + String.fromCharCode(...Array.from(written, ({ byte }) => byte)));
  assert.equal(await page.locator('.byte[data-count]').count(), prompt.length + 39);
  assert.match(await textOf(page, '#facts'), /writing [\d,]+ bytes per second/);
});

test('writing is stopped within a byte, what was written stays, and the next one works', async t => {
  const page = await visitLoaded(t);
  await settings(page, { length: '4096' });
  await page.click('#write');
  await page.locator('.byte').nth(60).waitFor();
  await page.click('#stop');
  await page.locator('#stop:disabled').waitFor();
  const numBytes = await page.locator('.byte').count();
  assert.ok(numBytes < 4096);
  await page.locator('#status', { hasText: 'predicted' }).waitFor();
  assert.equal(await page.locator('.byte').count(), numBytes);
  await settings(page, { length: '5' });
  await page.click('#write');
  await page.locator('#figures-of', { hasText: /of 29 / }).waitFor();
});

test('a text that is longer than its box is followed to its end while it is written', async t => {
  const page = await visitLoaded(t);
  await settings(page, { length: '4096' });
  await page.click('#write');
  await page.locator('.byte').nth(900).waitFor({ timeout: 60_000 });
  await page.click('#stop');
  await page.locator('#stop:disabled').waitFor();
  const left = await page.locator('#bytes').evaluate(box => box.scrollHeight - box.scrollTop - box.clientHeight);
  assert.ok(left < 2, String(left));
});

test('the slider ends the writing, and what was written is read by the new threshold', async t => {
  const page = await visitLoaded(t);
  await settings(page, { length: '4096' });
  await page.click('#write');
  await page.locator('.byte').nth(60).waitFor();
  await page.locator('#threshold').fill('0');
  await page.locator('#status', { hasText: 'τ = 0.05' }).waitFor();
  assert.equal(await textOf(page, '#experts'), '1.0 + 1.0');
});

test('what was written is there again after another text was read', async t => {
  const page = await visitLoaded(t);
  await settings(page, { length: '20' });
  await page.click('#write');
  await page.locator('#figures-of', { hasText: /of 44 / }).waitFor();
  const written = await shownText(page);
  await page.check('[value="kjv"]');
  await page.locator('#figures-of', { hasText: '1,023' }).waitFor();
  await page.check('[value="written"]');
  await page.locator('#figures-of', { hasText: /of 44 / }).waitFor();
  assert.equal(await shownText(page), written);
});

test('the same seed writes the same text, and another one another', async t => {
  const page = await visitLoaded(t);
  const texts: string[] = [];
  for (const seed of ['1', '1', '2']) {
    await page.check('[value="kjv"]');
    await page.locator('#figures-of', { hasText: '1,023' }).waitFor();
    await settings(page, { length: '30', seed });
    await page.click('#write');
    await page.locator('#status', { hasText: 'Wrote 30 bytes. 54 bytes predicted' }).waitFor();
    assert.equal(await page.locator('#stop').isDisabled(), true); // while the curve is still measured
    texts.push(await shownText(page));
  }
  assert.equal(texts[0], texts[1]);
  assert.notEqual(texts[0], texts[2]);
});
