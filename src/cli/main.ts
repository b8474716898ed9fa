#!/usr/bin/env node
/** The command line, as a process. */
import { run } from './run.js';

// a reader that closes early (xmoe … | head) is no error
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(0);
});

process.exitCode = await run(process.argv.slice(2));
