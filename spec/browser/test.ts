/** The little of node:test that the tests of the backend use, for a page: tests are run one after another by page.ts. */

interface Context {
  diagnostic(text: string): void;
  skip(reason: string): void;
}

interface Options {
  readonly skip?: string | boolean | undefined;
}

type Run = (t: Context) => unknown;

export interface RegisteredTest {
  readonly name: string;
  readonly options: Options;
  readonly run: Run;
}

export const registered: RegisteredTest[] = [];

export function test(name: string, ...given: [Run] | [Options, Run]): void {
  const [options, run] = given.length === 1 ? [{}, given[0]] : given;
  registered.push({ name, options, run });
}

/** Registered like a test: what is to be done after all tests of a file. */
export function after(run: () => unknown): void {
  test('what was opened is disposed of', run);
}
