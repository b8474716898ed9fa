/** Command-line arguments: parsed strictly, each fault one line that names the argument. */
import { accessSync, constants, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

export interface Arguments {
  readonly positionals: readonly string[];
  /** A text option as given, or undefined. */
  text(name: string): string | undefined;
  flag(name: string): boolean;
  isGiven(name: string): boolean;
  /** A number in the range, or undefined if not given. */
  number(name: string, range?: NumberRange): number | undefined;
}

export interface NumberRange {
  readonly min?: number;
  readonly max?: number;
  readonly integer?: boolean;
}

/**
 * @throws TypeError for an unknown option, a missing value, or a wrong number of positionals
 */
export function parseArguments(
  argv: readonly string[],
  positionalNames: readonly string[],
  options: Readonly<Record<string, { type: 'string' | 'boolean' }>>,
): Arguments {
  const { values, positionals } = parseArgs({ args: [...argv], options, allowPositionals: true });
  if (positionals.length !== positionalNames.length) {
    const got = positionals.length === 0 ? 'nothing' : positionals.join(' ');
    throw new TypeError(`"arguments" expected ${positionalNames.join(' ') || 'options alone'}, got ${got}`);
  }
  const text = (name: string) => values[name] as string | undefined;
  return {
    positionals,
    text,
    flag: name => values[name] === true,
    isGiven: name => values[name] !== undefined,
    number(name, range = {}) {
      const given = text(name);
      return given === undefined ? undefined : parseNumber(`--${name}`, given, range);
    },
  };
}

export function parseNumber(name: string, given: string, { min, max, integer }: NumberRange): number {
  const value = Number(given);
  const isNumber = given.trim() !== '' && Number.isFinite(value) && (!integer || Number.isSafeInteger(value));
  if (isNumber && value >= (min ?? -Infinity) && value <= (max ?? Infinity)) return value;
  const range = [min !== undefined && `at least ${min}`, max !== undefined && `at most ${max}`].filter(Boolean);
  const expected = `${integer ? 'an integer' : 'a number'}${range.length > 0 ? ` of ${range.join(' and ')}` : ''}`;
  throw new RangeError(`"${name}" expected ${expected}, got "${given}"`);
}

/** The bytes of a file that the user named. */
export function readInput(name: string, path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new TypeError(`"${name}" expected a readable file, got ${(error as Error).message}`);
  }
}

export function writeOutput(name: string, path: string, bytes: Uint8Array): void {
  try {
    writeFileSync(path, bytes);
  } catch (error) {
    throw new TypeError(`"${name}" expected a path that can be written, got ${(error as Error).message}`);
  }
}

/** The folder, made if it is not there, so that a failure to write is told before anything long is done. */
export function writableFolder(name: string, path: string): string {
  try {
    mkdirSync(path, { recursive: true });
    accessSync(path, constants.W_OK);
  } catch (error) {
    throw new TypeError(`"${name}" expected a folder that can be written, got ${(error as Error).message}`);
  }
  return path;
}
