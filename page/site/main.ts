/** `npm run page`: serves the page, or writes it into a folder. */
import { parseArgs } from 'node:util';
import { serveSite } from './serve.js';
import { writeSite } from './write.js';

const USAGE = `npm run page -- [--port N] [--no-isolation]   serve the page on this machine; one thread without isolation
npm run page:build -- [--build DIR]            write it as static files`;

const DEFAULT_PORT = 8017;

try {
  const { values } = parseArgs({
    options: {
      port: { type: 'string' },
      'no-isolation': { type: 'boolean', default: false },
      build: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) console.log(USAGE);
  else if (values.build !== undefined) console.log(`${writeSite(values.build)} files written to ${values.build}`);
  else await serve(portOf(values.port), !values['no-isolation']);
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 2;
}

async function serve(port: number, isolation: boolean): Promise<void> {
  const { url } = await serveSite({ port, isolation }).catch(error => {
    throw error.code === 'EADDRINUSE'
      ? new Error(`"--port" expected a port that is free, got ${port}, which is in use`)
      : error;
  });
  console.log(`The page is at ${url}${isolation ? '' : ' (not cross-origin isolated: one thread)'}. Ctrl-C ends it.`);
}

function portOf(text: string | undefined): number {
  const port = Number(text ?? DEFAULT_PORT);
  if (Number.isInteger(port) && port >= 0 && port < 65536) return port;
  throw new RangeError(`"--port" expected an integer from 0 to 65535, got ${text}`);
}
