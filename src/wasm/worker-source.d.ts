/** The compiled text of worker.ts, inlined, so that no bundler has to find a file. assembly/build.js writes the module when it builds. */
export const workerSource: string;
