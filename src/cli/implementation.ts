/** The implementation that a command line names: a built-in backend, an ES module, or a command after `--`. */
import { existsSync } from 'node:fs';
import {
  type Arithmetic,
  type ArithmeticName,
  arithmeticNamed,
  type Implementation,
  implementationOf,
  libraries,
} from '../oracle/index.js';
import { processImplementation } from '../process/index.js';
import { expertFormats } from '../wasm/index.js';
import type { Arguments } from './arguments.js';
import { backendNames, backendOptions, openBackend, wasmHelp } from './backends.js';
import { moduleImplementation } from './module-implementation.js';

const arithmeticNames: readonly ArithmeticName[] = ['f64', 'f32', 'tf32', 'f16', 'bf16', 'int8'];
const libraryNames = Object.keys(libraries) as (keyof typeof libraries)[];

export const implementationOptions = {
  ...backendOptions,
  arithmetic: { type: 'string' },
  library: { type: 'string' },
  'time-limit': { type: 'string' },
  'memory-limit': { type: 'string' },
} as const;

export const implementationHelp = `\
  --backend X      ${backendNames.join(' | ')}; or the path of an ES module, whose default export
                   is a Backend, an Implementation or a function (call) => outputs
${wasmHelp}
  -- COMMAND …     a program that speaks the protocol of spec/PROTOCOL.md on stdin and stdout
  --arithmetic A   ${arithmeticNames.join(' | ')}: what the experts compute in (default: what X says, else f32);
                   logits, probabilities and selection are held to f32 or better
  --library L      c | wgsl: what exp, tanh and erf may be off by (default c)
  --time-limit S   seconds that a command (its start included) or a module has for an answer (default 60)
  --memory-limit M MiB of memory that a command may hold; looked at on Linux (default 8192)`;

/** What `--arithmetic` and `--library` say; undefined where neither is given. @throws RangeError for an unknown name */
export function arithmeticOf(args: Arguments): Arithmetic | undefined {
  const name = chosen('--arithmetic', args.text('arithmetic'), arithmeticNames);
  const library = chosen('--library', args.text('library'), libraryNames);
  if (name === undefined && library === undefined) return undefined;
  return arithmeticNamed(name ?? 'f32', library && { library });
}

function chosen<T extends string>(option: string, given: string | undefined, names: readonly T[]): T | undefined {
  const known = names.find(name => name === given);
  if (known === given) return known;
  throw new RangeError(`"${option}" expected ${names.join(' | ')}, got "${given}"`);
}

/** The arguments before `--`, and the command after it. */
export function splitCommand(argv: readonly string[]): { own: readonly string[]; command: readonly string[] } {
  const at = argv.indexOf('--');
  return at < 0 ? { own: argv, command: [] } : { own: argv.slice(0, at), command: argv.slice(at + 1) };
}

/** @throws TypeError | RangeError for none, both, or one that cannot be loaded */
export async function implementationFor(args: Arguments, command: readonly string[]): Promise<Implementation> {
  const backend = args.text('backend');
  const arithmetic = arithmeticOf(args);
  const seconds = args.number('time-limit', { min: 0.01 });
  const memory = args.number('memory-limit', { min: 1 });
  if (command.length > 0) {
    if (backend !== undefined) throw new TypeError(`"--backend" expected nothing beside a command, got "${backend}"`);
    return processImplementation(command, {
      ...(arithmetic && { arithmetic }),
      ...(seconds !== undefined && { seconds }),
      ...(memory !== undefined && { memoryBytes: memory * 2 ** 20 }),
    });
  }
  if (backend === undefined) throw new TypeError('"--backend" expected a backend, or a command after --, got nothing');
  if (isPath(backend)) {
    return moduleImplementation(backend, {
      ...(arithmetic && { arithmetic }),
      ...(seconds !== undefined && { seconds }),
    });
  }
  const { backend: own, close } = await openBackend(args);
  const stored = chosen('--experts', args.text('experts'), expertFormats); // then that is what it says
  return { ...implementationOf(own, arithmetic ?? (stored && arithmeticNamed(stored))), close };
}

function isPath(name: string): boolean {
  return !backendNames.includes(name) && (/[/\\]|\.[cm]?[jt]s$/.test(name) || existsSync(name));
}
