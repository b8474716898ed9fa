/** What a page says of a test. Types only. */
export interface Result {
  readonly name: string;
  readonly notes?: readonly string[] | undefined;
  readonly skipped?: string | undefined;
  readonly failure?: string | undefined;
}
