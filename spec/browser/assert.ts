/** The little of node:assert/strict that the tests of the backend use, for a page. */

class AssertionError extends Error {
  override readonly name = 'AssertionError';
}

type Wanted = RegExp | { readonly name?: string; readonly message?: RegExp };

function ok(value: unknown, message?: string): void {
  if (!value) fail(message ?? `expected a true value, got ${show(value)}`);
}

function equal(actual: unknown, expected: unknown, message = 'values'): void {
  if (!Object.is(actual, expected)) fail(`${message}: expected ${show(expected)}, got ${show(actual)}`);
}

function notEqual(actual: unknown, other: unknown, message = 'values'): void {
  if (Object.is(actual, other)) fail(`${message}: expected another value than ${show(actual)}`);
}

function deepEqual(actual: unknown, expected: unknown, message = 'values'): void {
  if (!isSame(actual, expected)) fail(`${message}: expected ${show(expected)}, got ${show(actual)}`);
}

function match(text: string, pattern: RegExp): void {
  if (!pattern.test(text)) fail(`expected ${pattern}, got ${show(text)}`);
}

function throws(run: () => unknown, wanted: Wanted): void {
  try {
    run();
  } catch (error) {
    matchError(error, wanted);
    return;
  }
  fail(`expected an error like ${show(wanted)}, got none`);
}

async function rejects(given: Promise<unknown> | (() => Promise<unknown>), wanted: Wanted): Promise<void> {
  try {
    await (typeof given === 'function' ? given() : given);
  } catch (error) {
    matchError(error, wanted);
    return;
  }
  fail(`expected a rejection like ${show(wanted)}, got none`);
}

function matchError(error: unknown, wanted: Wanted): void {
  if (wanted instanceof RegExp) {
    match(String(error), wanted);
    return;
  }
  if (wanted.name !== undefined) equal((error as Error).name, wanted.name);
  if (wanted.message) match((error as Error).message, wanted.message);
}

function fail(message: string): never {
  throw new AssertionError(message);
}

/** Of the same kind, with the same parts, all the way down. */
function isSame(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return false;
  const [ours, theirs] = [Object.entries(a), Object.entries(b)];
  return ours.length === theirs.length && ours.every(([key, value]) => key in b && isSame(value, (b as never)[key]));
}

function show(value: unknown): string {
  if (value instanceof RegExp) return String(value);
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}

export default { ok, equal, notEqual, deepEqual, match, throws, rejects, fail };
