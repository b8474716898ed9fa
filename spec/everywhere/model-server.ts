/** Serves the suite's model, to pages of other origins too. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { modelFile } from '../everywhere-model.js';

export async function serveModel(): Promise<{ address: string; close(): void }> {
  const server = createServer((_, response) => {
    response.writeHead(200, { 'Access-Control-Allow-Origin': '*', 'Content-Type': 'application/octet-stream' });
    response.end(modelFile());
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    address: `http://127.0.0.1:${port}/model.safetensors`,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}
