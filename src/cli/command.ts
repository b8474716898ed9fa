/** A command prints on stdout and returns the exit status: 0 done or agree, 1 disagree. Bad usage or input is thrown: 2. */
export interface Command {
  readonly summary: string;
  readonly help: string;
  run(argv: readonly string[]): number | Promise<number>;
}
