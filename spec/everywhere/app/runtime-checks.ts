/** The language model on WebAssembly, end to end. */
import { encode, generate, loadModel, type ModelSource, SourceError } from 'xmoe/model';
import { openRuntime, type Runtime, type RuntimeOptions } from 'xmoe/runtime';
import { modelFile } from '../../everywhere-model.js';
import { Absent, bitsOf, type Check, expect, rejectionOf } from './check.js';
import { modelAddress, modelPath } from './surroundings.js';

const PROMPT = 'In the beginning';
const OPTIONS = { maxTokens: 20, temperature: 0 };

/** What the reference writes. */
function expectedText(): string {
  return [...generate(loadModel(modelFile()), encode(PROMPT), OPTIONS)].map(({ byte }) => byte).join();
}

async function textOf(runtime: Runtime, signal?: AbortSignal): Promise<string> {
  const bytes: number[] = [];
  for await (const { byte } of runtime.generate(PROMPT, { ...OPTIONS, ...(signal && { signal }) })) bytes.push(byte);
  return bytes.join();
}

/** Opened, read from, and let go. @throws Absent where the place cannot have this source */
async function expectText(source: ModelSource, options: RuntimeOptions = {}): Promise<void> {
  const runtime = await openRuntime(source, options).catch((error: Error) => {
    throw error instanceof SourceError
      ? new Absent(
          error.message.replace(/\S+model\.safetensors"?/g, 'a model').replace(/127\.0\.0\.1:\d+/, 'an address'),
        )
      : error;
  });
  const [text, expected] = [await textOf(runtime), expectedText()];
  runtime.dispose();
  expect(text === expected, `what the reference writes, ${expected}, got ${text}`);
}

export const runtimeChecks: readonly Check[] = [
  {
    feature: 'xmoe/runtime',
    name: 'a model of a Blob or a stream writes what the reference writes',
    async run() {
      await expectText(new Blob([modelFile()]));
      await expectText(new Response(modelFile()).body!);
    },
  },
  {
    feature: 'xmoe/runtime',
    name: 'logits have the same bits everywhere, a byte at a time or all at once',
    async run() {
      const runtime = await openRuntime(new Blob([modelFile()]), { deterministic: true });
      const text = encode(PROMPT);
      const whole = await runtime.stream().read(text);
      const stream = runtime.stream();
      const { cols } = whole.logits;
      for (const [t, byte] of text.entries()) {
        const { logits } = await stream.read(Uint8Array.of(byte));
        const [one, all] = [logits.data, whole.logits.data.slice(t * cols, (t + 1) * cols)].map(values =>
          bitsOf(values as Float32Array),
        );
        expect(one === all, `the bits of byte ${t} read with the others, ${all}, got ${one}`);
      }
      runtime.dispose();
      return bitsOf(whole.logits.data as Float32Array);
    },
  },
  {
    feature: 'xmoe/runtime',
    name: 'an abort ends the writing with its reason, and the next call works',
    async run() {
      const runtime = await openRuntime(new Blob([modelFile()]));
      const abort = new AbortController();
      abort.abort(new Error('enough'));
      const error = await rejectionOf(textOf(runtime, abort.signal));
      expect(error.message === 'enough', `the reason of the abort, got ${error}`);
      expect((await textOf(runtime)) === expectedText(), 'the text of the reference after it');
      runtime.dispose();
    },
  },
  {
    feature: 'xmoe/runtime',
    name: 'what was disposed of says so; a wrong option is refused by name',
    async run() {
      const runtime = await openRuntime(new Blob([modelFile()]));
      runtime.dispose();
      runtime.dispose();
      const late = await rejectionOf(textOf(runtime));
      expect(/dispose/.test(late.message), `an error that says so, got ${late}`);
      const error = await rejectionOf(openRuntime(new Blob([modelFile()]), { threads: 0 }));
      expect(String(error).includes('"options.threads" expected'), `an error that names it, got ${error}`);
    },
  },
  {
    feature: 'threads',
    name: 'a model on two threads writes the same',
    async run() {
      const runtime = await openRuntime(new Blob([modelFile()]), { threads: 2 });
      const [text, reason] = [await textOf(runtime), runtime.info.notUsed.threads];
      runtime.dispose();
      expect(text === expectedText(), `what the reference writes, got ${text}`);
      if (reason !== undefined) throw new Absent(reason);
    },
  },
  {
    feature: 'files',
    name: 'a model is opened by its path',
    run: () => expectText(modelPath),
  },
  {
    feature: 'addresses',
    name: 'a model is opened by its address, as text or as a URL',
    async run() {
      await expectText(modelAddress);
      await expectText(new URL(modelAddress));
    },
  },
];
