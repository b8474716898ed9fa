/** The kernels' module, made to import a shared memory: the same code, and the same bits. */
import { joined } from '../joined.js';

const ENV_MEMORY = [3, ...letters('env'), 6, ...letters('memory'), 2]; // the names, and the kind: a memory
const MAX_PAGES = [0x80, 0x80, 0x04]; // 65536, in LEB128

/** The import section as it is compiled: id, size, one import, without a maximum, of 0 pages; and the one put in its place. */
const OWN = section([1, ...ENV_MEMORY, 0, 0]);
const SHARED = section([1, ...ENV_MEMORY, 3, 0, ...MAX_PAGES]);

/**
 * A module is for one kind of memory alone. Whether a memory is shared stands in its import and nowhere in the code of
 * kernels that have no atomic instructions, so one compilation serves for both.
 *
 * @throws Error where the module does not have the import section that assembly/ gives it
 */
export function importingSharedMemory(bytes: Uint8Array): Uint8Array {
  const start = bytes.findIndex((_, i) => OWN.every((byte, j) => bytes[i + j] === byte));
  if (start < 0) throw new Error('"bytes" expected a module that imports "env" "memory" alone, got another');
  return joined([bytes.subarray(0, start), SHARED, bytes.subarray(start + OWN.length)]);
}

function section(content: readonly number[]): number[] {
  return [2, content.length, ...content];
}

function letters(name: string): number[] {
  return Array.from(name, letter => letter.charCodeAt(0));
}
