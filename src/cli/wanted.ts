/** Which random calls are wanted: `--router`, `--activation`, `--without`. */
import { activations } from '../activations.js';
import { features, type WantedRecipes } from '../cases/index.js';
import { routers } from '../selection/routers.js';
import type { ActivationName, RouterName } from '../types.js';
import type { Arguments } from './arguments.js';

export const wantedOptions = {
  router: { type: 'string' },
  activation: { type: 'string' },
  without: { type: 'string' },
} as const;

const routerNames = Object.keys(routers) as RouterName[];
const activationNames = Object.keys(activations) as ActivationName[];

export const wantedHelp = `\
  --router R,…     only these: ${routerNames.join(', ')}
  --activation A,… only these: ${activationNames.join(', ')}
  --without F,…    no call that has these: ${features.join(', ')}`;

/** @throws RangeError for an unknown name */
export function wantedOf(args: Arguments): WantedRecipes {
  const chosenRouters = listOf(args, 'router', routerNames);
  const chosenActivations = listOf(args, 'activation', activationNames);
  const without = listOf(args, 'without', features);
  return {
    ...(chosenRouters && { routers: chosenRouters }),
    ...(chosenActivations && { activations: chosenActivations }),
    ...(without && { without }),
  };
}

function listOf<T extends string>(args: Arguments, option: string, known: readonly T[]): T[] | undefined {
  return args
    .text(option)
    ?.split(',')
    .map(given => {
      const name = known.find(candidate => candidate === given);
      if (name !== undefined) return name;
      throw new RangeError(`"--${option}" expected some of ${known.join(', ')}, got "${given}"`);
    });
}
