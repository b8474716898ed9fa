/** A page that is not cross-origin isolated has one thread, and the reason. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { wasmBackend } from 'xmoe/wasm';

test('a page that is not cross-origin isolated has one thread, and the reason', async () => {
  const { info } = await wasmBackend({ threads: 4 });
  assert.deepEqual([info.target, info.threads], ['relaxed', 1]);
  assert.match(
    info.notUsed.threads!,
    /^SharedArrayBuffer is missing \(a page needs the headers of cross-origin isolation/,
  );
});
