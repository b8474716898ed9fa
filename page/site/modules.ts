/** The modules that a page needs, as a browser finds them. */
import { readFileSync } from 'node:fs';
import { relative } from 'node:path/posix';

/** A statement as tsc writes it: `import { x } from './x.js';`, `export * from './x.js';`. */
const IMPORT = /^((?:import|export)\b[^'"`;]* from ')([^']+)(';)$/gm;

/**
 * All modules that are reached from the entries, by their addresses on the page. Import maps do not reach workers, so an import of
 * the package is made one of a relative address.
 *
 * @param placeOf of a module's file: its address on the page, such as `app/main.js`
 */
export function modulesFrom(entries: readonly URL[], placeOf: (file: URL) => string): Map<string, string> {
  const modules = new Map<string, string>();
  const add = (file: URL) => {
    const place = placeOf(file);
    if (modules.has(place)) return;
    modules.set(place, ''); // known from now on: imports may go round in a circle
    const code = readFileSync(file, 'utf8').replaceAll(IMPORT, (_, before, name, after) => {
      const imported = name.startsWith('.') ? new URL(name, file) : new URL(import.meta.resolve(name));
      add(imported);
      const address = relative(`${place}/..`, placeOf(imported));
      return before + (address.startsWith('.') ? address : `./${address}`) + after;
    });
    modules.set(place, code.replace(/\n\/\/# sourceMappingURL=.*\n?$/, '\n'));
  };
  for (const entry of entries) add(entry);
  return modules;
}
