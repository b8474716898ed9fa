/** The checks that every door is made of: an error says which argument, what was expected, and what came. */

/** An integer from `min` to `max`, or of at least `min`. */
export function integer(name: string, value: unknown, min: number, max = Number.MAX_SAFE_INTEGER): number {
  const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
  const expected = `an integer ${range}`;
  if (typeof value !== 'number') throw unexpected(TypeError, name, expected, show(value));
  if (!Number.isInteger(value) || value < min || value > max) throw unexpected(RangeError, name, expected, show(value));
  return value;
}

export function checkBytes(name: string, value: unknown): void {
  if (!(value instanceof Uint8Array)) throw unexpected(TypeError, name, 'a Uint8Array', show(value));
}

export interface Bounds {
  readonly above?: number;
  readonly min?: number;
  readonly max?: number;
}

/** A finite number within the bounds given. */
export function finite(name: string, value: unknown, bounds: Bounds = {}): number {
  const { above = Number.NEGATIVE_INFINITY, min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY } = bounds;
  const range = Object.entries(bounds).map(([bound, limit]) => `${BOUND_WORDS[bound as keyof Bounds]} ${limit}`);
  const expected = ['a finite number', range.join(' and ')].filter(Boolean).join(' ');
  if (typeof value !== 'number') throw unexpected(TypeError, name, expected, show(value));
  if (!(Number.isFinite(value) && value > above && value >= min && value <= max)) {
    throw unexpected(RangeError, name, expected, show(value));
  }
  return value;
}

const BOUND_WORDS = { above: 'above', min: 'of at least', max: 'of at most' };

/** One of the listed values. */
export function oneOf<T extends string | boolean>(name: string, value: unknown, allowed: readonly T[]): T {
  const found = allowed.find(candidate => candidate === value);
  if (found !== undefined) return found;
  const kind = allowed.some(candidate => typeof candidate === typeof value) ? RangeError : TypeError;
  throw unexpected(kind, name, allowed.join(' | '), show(value));
}

/** An object to take parts from; null and lists are none. */
export function checkObject(name: string, value: unknown): void {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return;
  throw unexpected(TypeError, name, 'an object', show(value));
}

/** The object that a JSON text of a stranger holds. */
export function parseJsonObject(name: string, text: string | undefined): Record<string, unknown> {
  const expected = 'a JSON object';
  if (text === undefined) throw unexpected(TypeError, name, expected, 'none');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw unexpected(TypeError, name, expected, `what is no JSON: ${(error as Error).message}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw unexpected(TypeError, name, expected, show(value));
  }
  return value as Record<string, unknown>;
}

export function unexpected(kind: ErrorConstructor, name: string, expected: string, got: string): Error {
  return new kind(`"${name}" expected ${expected}, got ${got}`);
}

/** A value in one short line, whatever it is; it may come from a hostile file. */
export function show(value: unknown): string {
  if (value === undefined) return 'none';
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  if (Array.isArray(value)) return `a list of ${value.length}`;
  return typeof value === 'object' && value !== null ? 'an object' : String(value);
}
