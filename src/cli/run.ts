/** Finds the command, and turns errors into one line and an exit status. */
import { readFileSync } from 'node:fs';
import { checkCommand } from './check.js';
import type { Command } from './command.js';
import { evalCommand } from './eval.js';
import { generateCommand } from './generate.js';
import { layerCommand } from './layer.js';
import { showCommand } from './show.js';
import { vectorsCommand } from './vectors.js';

const commands = new Map<string, Command>([
  ['layer', layerCommand],
  ['check', checkCommand],
  ['vectors', vectorsCommand],
  ['eval', evalCommand],
  ['generate', generateCommand],
  ['show', showCommand],
]);

const help = `xmoe: the reference implementation of XMoE (arXiv 2403.18926)

Usage: xmoe COMMAND [ARGUMENTS]

${Array.from(commands, ([name, { summary }]) => `  ${name.padEnd(10)}${summary}`).join('\n')}

xmoe COMMAND --help says more of each; xmoe --version prints the version.
Exit status: 0 done or agree, 1 disagree, 2 bad usage or input.
`;

/**
 * Run a command line, without the name of the program.
 *
 * @returns the exit status
 */
export async function run([name, ...argv]: readonly string[]): Promise<number> {
  if (name === undefined)
    return complain(`"COMMAND" expected ${[...commands.keys()].join(' | ')}, got nothing; see xmoe --help`);
  if (['--help', '-h', 'help'].includes(name)) return print(help);
  if (name === '--version') return print(`${version()}\n`);
  const command = commands.get(name);
  if (!command) return complain(`"COMMAND" expected ${[...commands.keys()].join(' | ')}, got "${name}"`);
  const own = argv.includes('--') ? argv.slice(0, argv.indexOf('--')) : argv; // what follows is another program's
  if (own.includes('--help') || own.includes('-h')) return print(command.help);
  try {
    return await command.run(argv);
  } catch (error) {
    return complain(`${name}: ${error instanceof Error ? error.message : error}`);
  }
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}

/** One line, whatever the message held. */
function complain(message: string): number {
  process.stderr.write(`xmoe ${message.replace(/\s+/g, ' ')}\n`);
  return 2;
}

function version(): string {
  return JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')).version;
}
