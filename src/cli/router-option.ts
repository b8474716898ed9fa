import { routers } from '../selection/routers.js';
import type { RouterName } from '../types.js';

export const routerNames = Object.keys(routers) as RouterName[];

/** The routers of `--router`; undefined where it is not given. @throws RangeError for an unknown one */
export function routersOf(text: string | undefined): RouterName[] | undefined {
  if (text === undefined) return undefined;
  const names = text.split(',');
  const unknown = names.find(name => !Object.hasOwn(routers, name));
  if (unknown === undefined) return names as RouterName[];
  throw new RangeError(`"--router" expected some of ${routerNames.join(', ')}, got "${unknown}"`);
}
