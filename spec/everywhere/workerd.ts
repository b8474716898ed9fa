/** workerd, the runtime of Cloudflare Workers: it is given one module, and asked once. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PATIENCE } from './processes.js';

export interface Behaviour {
  /** A day: workerd behaves as it did then. */
  readonly date: string;
  readonly flags: readonly string[];
}

/** What `module`, a file of `folder`, answers. @throws Error with what workerd printed where it does not serve */
export async function answerOf(
  workerd: string,
  folder: string,
  module: string,
  { date, flags }: Behaviour,
): Promise<string> {
  const port = await freePort();
  const config = join(folder, 'config.capnp');
  writeFileSync(
    config,
    `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [ (name = "main", worker = .suite), (name = "internet", network = (allow = ["public", "private"])) ],
  sockets = [ (name = "http", address = "127.0.0.1:${port}", http = (), service = "main") ],
);
const suite :Workerd.Worker = (
  modules = [ (name = "main.js", esModule = embed "${module}") ],
  compatibilityDate = "${date}",
  compatibilityFlags = ${JSON.stringify(flags)},
);
`,
  );
  const server = spawn(workerd, ['serve', config]);
  const hasEnded = once(server, 'close');
  let printed = '';
  server.stderr.on('data', chunk => {
    printed += chunk;
  });
  try {
    const until = Date.now() + PATIENCE;
    while (server.exitCode === null && Date.now() < until) {
      const answer = await fetch(`http://127.0.0.1:${port}/`).catch(() => undefined);
      if (answer?.ok) return await answer.text();
      if (answer) throw new Error(`workerd answered ${answer.status}\n${printed}`);
      await sleep(50); // it does not listen yet
    }
    throw new Error(`workerd does not serve\n${printed}`);
  } finally {
    server.kill();
    await hasEnded;
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as { port: number };
  await once(server.close(), 'close');
  return port;
}
