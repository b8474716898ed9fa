/** A network that breaks. */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export interface Cut {
  readonly url: string;
  /** Whether connections are let through whole. */
  isWhole: boolean;
  close(): Promise<void>;
}

/** Stands before a server, and breaks each connection after so many bytes of answers, until it is whole. */
export async function cutAfter(url: string, numBytes: number): Promise<Cut> {
  const sockets = new Set<Socket>();
  const server = createServer(client => {
    const upstream = connect(Number(new URL(url).port), '127.0.0.1');
    const end = () => {
      client.destroy();
      upstream.destroy();
    };
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', end).on('close', end);
    }
    let left = numBytes;
    client.pipe(upstream);
    upstream.on('data', chunk => {
      client.write(cut.isWhole ? chunk : chunk.subarray(0, left));
      left -= chunk.length;
      if (!cut.isWhole && left <= 0) client.destroySoon();
    });
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const cut: Cut = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    isWhole: false,
    close: () =>
      new Promise(resolve => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
  return cut;
}
