/** What goes wrong is named on the page, and the next try works. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Page } from 'playwright-core';
import { cutAfter } from './cut.js';
import { chooseFile, modelBytes, siteUrl, textOf, untilRead, visit, visitLoaded } from './visit.js';

async function untilError(page: Page, message: RegExp): Promise<void> {
  await page.locator('#error').waitFor();
  assert.match(await textOf(page, '#error-message'), message);
}

/** The model that was there is there. */
async function stillWrites(page: Page): Promise<void> {
  await page.click('#write');
  await page.locator('#figures-of', { hasText: /of 22\d / }).waitFor();
}

const badFiles: Readonly<Record<string, readonly [Buffer, RegExp]>> = {
  'a file that is no model': [Buffer.from('not a model at all, but a text of some length'), /^SafetensorsError: /],
  'an empty file': [Buffer.alloc(0), /^SafetensorsError: /],
  'a truncated file': [modelBytes.subarray(0, 5_000_000), /^SafetensorsError: /],
  'a model whose weight is not finite': [withNaN(), /^RangeError: "model\..*NaN/],
};

/** The last weight of the file. */
function withNaN(): Buffer {
  const bytes = Buffer.from(modelBytes);
  bytes.writeFloatLE(Number.NaN, bytes.length - 4);
  return bytes;
}

for (const [what, [bytes, message]] of Object.entries(badFiles)) {
  test(`${what} is a named error, and the model that was there stays`, async t => {
    const page = await visitLoaded(t);
    await chooseFile(page, 'bad.safetensors', bytes);
    await untilError(page, message);
    assert.match(await textOf(page, '#facts'), /xmoe-gpt\.safetensors/);
    assert.match(await textOf(page, '#error-meaning'), /^bad\.safetensors is no model/);
    assert.equal(await textOf(page, '#status'), 'bad.safetensors was not loaded.');
    await page.click('#error-close');
    await stillWrites(page);
    await chooseFile(page, 'good.safetensors', modelBytes);
    await page.locator('#facts', { hasText: 'good.safetensors' }).waitFor();
  });
}

test('of two loads at once the second wins', async t => {
  const page = await visit(t);
  await chooseFile(page, 'first.safetensors', modelBytes);
  await chooseFile(page, 'second.safetensors', modelBytes);
  await page.locator('#facts', { hasText: 'second.safetensors' }).waitFor();
  await untilRead(page);
  const others = page.workers().filter(isModel).slice(0, -1);
  await Promise.all(others.map(worker => worker.waitForEvent('close'))); // they are given back
  assert.equal(await page.locator('#loading').isHidden(), true);
});

test('loading is stopped, and begins again', async t => {
  const page = await visit(t);
  await page.route('**/xmoe-gpt.safetensors', () => {}); // never answered
  await page.reload();
  await page.click('#cancel');
  await page.locator('#status', { hasText: 'stopped' }).waitFor();
  await page.unroute('**/xmoe-gpt.safetensors');
  await page.click('#shipped');
  await untilRead(page);
});

test('after a load that was stopped, weights are held in another format of the model that is there', async t => {
  const page = await visitLoaded(t);
  await chooseFile(page, 'chosen.safetensors', modelBytes);
  await page.locator('#facts', { hasText: 'chosen.safetensors' }).waitFor();
  await page.route('**/xmoe-gpt.safetensors', () => {}); // never answered
  await page.click('#shipped');
  await page.click('#cancel');
  await page.selectOption('[name="weights"]', 'int8');
  await page.locator('#facts .target', { hasText: 'weights int8' }).waitFor();
  assert.match(await textOf(page, '#facts'), /chosen\.safetensors/);
});

test('a network that breaks in the middle of a load is a named error, and the next try works', async t => {
  const cut = await cutAfter(await siteUrl(), 3_000_000);
  t.after(() => cut.close());
  const page = await visit(t, { url: cut.url, expected: /net::ERR_/ });
  await untilError(page, /^SourceError: /);
  cut.isWhole = true;
  await page.click('#error-retry');
  await untilRead(page);
  assert.equal(await page.locator('#error').isHidden(), true);
});

test('a text that cannot be fetched is a named error, and is read when it is there', async t => {
  const page = await visitLoaded(t, { expected: /net::ERR_/ });
  await page.context().setOffline(true);
  await page.check('[value="moby"]');
  await untilError(page, /^NetworkError: /);
  await page.context().setOffline(false);
  await page.check('[value="kjv"]');
  await page.locator('.byte', { hasText: 'G' }).first().waitFor();
});

const isModel = (worker: { url(): string }) => worker.url().endsWith('/app/worker.js');

for (const [when, click] of [
  ['at rest', undefined],
  ['while it writes', '#write'],
] as const) {
  test(`a worker that is ended ${when} is a named error, and the model is loaded again`, async t => {
    const page = await visitLoaded(t);
    if (click) {
      await page.click(click);
      await page.locator('#status', { hasText: 'Writing' }).waitFor();
    }
    const worker = page.workers().find(isModel)!;
    await worker.evaluate(() => self.close()).catch(() => {}); // it does not live to answer
    await untilError(page, /^ModelLostError: The worker that computes was ended/);
    const numBytes = await page.locator('.byte').count();
    assert.equal(await page.locator('#write').isDisabled(), true);
    await page.click('#error-retry');
    await page.locator('#write:enabled').waitFor();
    await page.locator('#status', { hasText: 'predicted' }).waitFor();
    if (click) assert.equal(await page.locator('.byte').count(), numBytes); // what was written is kept
    await stillWrites(page);
  });
}

test('a hidden page measures no curve, and goes on when it is looked at', async t => {
  const page = await visitLoaded(t);
  const setHidden = (hidden: boolean) =>
    page.evaluate(value => {
      Object.defineProperty(document, 'hidden', { configurable: true, get: () => value });
      document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);
  await setHidden(true);
  await page.check('[value="kjv"]');
  await page.selectOption('[name="num-bytes"]', '256');
  await page.locator('#figures-of', { hasText: '255' }).waitFor(); // what was asked for is done
  await page.waitForTimeout(500);
  assert.equal(await page.locator('#curve .dot').count(), 0);
  await setHidden(false);
  await page.locator('#curve .dot').nth(20).waitFor({ timeout: 60_000 });
});

test('a prompt that is empty is asked for', async t => {
  const page = await visitLoaded(t);
  await page.fill('#prompt', '');
  await page.click('#write');
  assert.equal(await page.locator('#prompt:invalid').count(), 1);
  assert.match(await textOf(page, '#status'), /predicted/); // nothing has begun
});

test('a setting that is wrong is shown, where it was folded away too', async t => {
  const page = await visitLoaded(t);
  const summary = page.locator('#writing summary');
  await summary.click();
  await page.fill('[name="temperature"]', '-1');
  await summary.click();
  await page.click('#write');
  await page.locator('[name="temperature"]:focus').waitFor();
});

test('a text of one byte, or of none, has nothing that is predicted', async t => {
  const page = await visitLoaded(t);
  for (const prompt of ['a', '']) {
    await page.check('[value="kjv"]');
    await page.locator('#figures-of', { hasText: '1,023' }).waitFor();
    await page.fill('#prompt', prompt);
    await page.check('[value="written"]');
    await page.locator('#status', { hasText: 'Nothing is predicted' }).waitFor();
    assert.equal(await page.locator('.byte').count(), prompt.length);
    assert.equal(await textOf(page, '#bits'), '–');
  }
});
