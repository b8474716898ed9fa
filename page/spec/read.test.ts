/** Loading, reading and the threshold. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { evaluate, loadModel } from 'xmoe/model';
import { chooseFile, dropFile, modelBytes, textOf, untilRead, visitLoaded } from './visit.js';

const sotu = readFileSync(new URL('../../../models/text/sotu.txt', import.meta.url)).subarray(0, 256);

/** What the reference says of the first 256 bytes. */
function figuresAt(threshold: number | 'dense') {
  const { bitsPerByte, flopsShare, expertsPerToken } = evaluate(loadModel(modelBytes), sotu, { threshold });
  return { bits: bitsPerByte, flops: 100 * flopsShare, experts: expertsPerToken };
}

test('the page loads the shipped model, reads a text and shows the figures of the reference', async t => {
  const page = await visitLoaded(t);
  await page.selectOption('[name="num-bytes"]', '256');
  await page.locator('#figures-of', { hasText: '255' }).waitFor();
  const { bits, flops, experts } = figuresAt(0.9);
  assert.ok(Math.abs(Number(await textOf(page, '#bits')) - bits) < 0.002);
  assert.ok(Math.abs(Number.parseFloat(await textOf(page, '#flops')) - flops) <= 0.5);
  assert.equal(await textOf(page, '#experts'), experts.map(mean => mean.toFixed(1)).join(' + '));
  assert.equal(await page.locator('.byte').count(), 256);
  assert.equal(await page.locator('.byte[data-count]').count(), 255); // the first is not predicted
});

test('the slider reads the text again, and the curve has a point for each of its positions', async t => {
  const page = await visitLoaded(t);
  await page.selectOption('[name="num-bytes"]', '256');
  await page.locator('#curve .dot').nth(20).waitFor({ timeout: 60_000 });
  assert.equal(await page.locator('#curve-table tbody tr').count(), 21);
  await page.locator('#threshold').fill('20');
  await page.locator('#status', { hasText: 'all experts' }).waitFor();
  const { bits, flops } = figuresAt('dense');
  assert.ok(Math.abs(Number(await textOf(page, '#bits')) - bits) < 0.002);
  assert.ok(Math.abs(Number.parseFloat(await textOf(page, '#flops')) - flops) <= 0.5);
  assert.equal(await textOf(page, '#experts'), '16.0 + 16.0');
  assert.equal(await textOf(page, '#curve-table [aria-current] th'), 'all experts');
  await page.locator('#threshold').fill('0');
  await page.locator('#status', { hasText: 'τ = 0.05' }).waitFor();
  assert.equal(await textOf(page, '#experts'), '1.0 + 1.0');
});

test('a slider that is dragged far ends where it is let go', async t => {
  const page = await visitLoaded(t);
  for (let i = 0; i <= 20; i++) await page.locator('#threshold').fill(String(i));
  await page.locator('#threshold').fill('4');
  await page.locator('#status', { hasText: 'τ = 0.25' }).waitFor();
  await page.locator('#curve .current').waitFor();
  assert.equal(await textOf(page, '#curve-table [aria-current] th'), 'τ = 0.25');
});

test('a byte that is pointed at shows its experts, their probabilities and the margin', async t => {
  const page = await visitLoaded(t);
  await page.locator('.byte').nth(40).hover();
  assert.match(
    await textOf(page, '#details'),
    /^.*byte [0-9a-f]{2}: .* bits.*Layer 1: .* margin .*Layer 3: .* margin /s,
  );
  const numExperts = await page.locator('#details .experts li').count();
  assert.equal(numExperts, Number(await page.locator('.byte').nth(40).getAttribute('data-count')));
  assert.equal(await page.locator('.bars .marked').count(), numExperts);
  await page.locator('#threshold').fill('20'); // the pointer stays where it is
  await page.locator('#details h3', { hasText: 'Layer 3: 16 experts' }).waitFor();
  await page.locator('h1').hover();
  assert.match(await textOf(page, '#details'), /^Point at a byte/);
});

test('colours are those of one layer, where that is chosen, and numbers are shown on request', async t => {
  const page = await visitLoaded(t);
  const count = () => page.locator('.byte').nth(40).getAttribute('data-count').then(Number);
  const all = await count();
  let sum = 0;
  for (const layer of ['0', '1']) {
    await page.selectOption('#colour-by', layer);
    sum += await count();
  }
  assert.equal(sum, all);
  assert.equal(await textOf(page, '#legend li:first-child'), '1');
  await page.check('#counts');
  const shown = await page
    .locator('.byte')
    .nth(40)
    .evaluate(byte => getComputedStyle(byte, '::after').content);
  assert.notEqual(shown, 'none');
});

test('bytes that are no text are shown: line breaks, parts of characters, and what is no UTF-8', async t => {
  const page = await visitLoaded(t);
  await page.check('[value="moby"]');
  await page.locator('.byte.break').first().waitFor();
  await page.locator('.byte.part').first().waitFor();
  assert.match((await page.locator('.byte.part').first().getAttribute('aria-label'))!, /^byte e2 within a character/);
});

test('a model file is chosen in the dialog, and another one dropped', async t => {
  const page = await visitLoaded(t);
  await chooseFile(page, 'chosen.safetensors', modelBytes);
  await page.locator('#facts', { hasText: 'chosen.safetensors' }).waitFor();
  await dropFile(page, 'dropped.safetensors', modelBytes);
  await page.locator('#facts', { hasText: 'dropped.safetensors' }).waitFor();
  await untilRead(page);
  assert.equal(await page.locator('body.dropping').count(), 0);
});

test('weights are held in another format on request', async t => {
  const page = await visitLoaded(t);
  await page.selectOption('[name="weights"]', 'int8');
  await page.locator('#facts .target', { hasText: 'weights int8' }).waitFor();
  await untilRead(page);
  await page.locator('#figures-of', { hasText: '1,023' }).waitFor();
});

for (const isolation of [true, false]) {
  test(`the page is ${isolation ? '' : 'not '}cross-origin isolated, and says what that means for threads`, async t => {
    const page = await visitLoaded(t, { isolation });
    assert.equal(await page.evaluate(() => crossOriginIsolated), isolation);
    const threads = await textOf(page, '#facts .threads dd');
    assert.match(threads, isolation ? /^2$/ : /^1 \(.*SharedArrayBuffer is missing/);
  });
}
