/** Node's own modules, where this runs on Node. */

interface Process {
  readonly versions?: { readonly node?: string };
  readonly arch: string;
  readonly platform: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** The process, on Node; undefined elsewhere. Asked anew each time. */
export function nodeProcess(): Process | undefined {
  const { process } = globalThis as { process?: Process };
  return process?.versions?.node === undefined ? undefined : process;
}

/** A module of Node. Not by a literal name: bundlers for browsers would look for it. */
export async function importNode<T>(name: string): Promise<T> {
  return (await import(/* webpackIgnore: true */ /* @vite-ignore */ name)) as T;
}

/** Sets a flag of V8, for the whole process. */
export async function setV8Flag(flag: string): Promise<void> {
  const { setFlagsFromString } = await importNode<{ setFlagsFromString(flags: string): void }>('node:v8');
  setFlagsFromString(flag);
}
