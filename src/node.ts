/** Node's own modules, where this runs on Node, or on what passes for it: Deno, Bun, workerd. */

interface Process {
  readonly versions?: { readonly node?: string; readonly bun?: string; readonly deno?: string };
  readonly arch: string;
  readonly platform: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  getBuiltinModule?(name: string): object | undefined;
}

/** The process, on Node and what passes for it; undefined elsewhere. Asked anew each time. */
export function nodeProcess(): Process | undefined {
  const { process } = globalThis as { process?: Process };
  return process?.versions?.node === undefined ? undefined : process;
}

/** Whether it is Node itself. */
export function isNode(): boolean {
  const { node, bun, deno } = nodeProcess()?.versions ?? {};
  return node !== undefined && bun === undefined && deno === undefined;
}

/**
 * A module of Node; nothing of it where the runtime lacks it. Not by a literal name: bundlers for browsers would look for it.
 * At once where that can be (from Node 20.16 on): see `compile` in kernels.ts.
 */
export async function importNode<T>(name: string): Promise<Partial<T>> {
  const process = nodeProcess();
  if (process?.getBuiltinModule) return process.getBuiltinModule(name) ?? {};
  return await import(/* webpackIgnore: true */ /* @vite-ignore */ name);
}

/** Sets a flag of V8, for the whole process, if there is one to be set. */
export async function setV8Flag(flag: string): Promise<void> {
  const { setFlagsFromString } = await importNode<{ setFlagsFromString(flags: string): void }>('node:v8');
  setFlagsFromString?.(flag);
}
