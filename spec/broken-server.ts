/** A server of one file over connections that break, and one that says what is not so. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Served {
  readonly bytes: Uint8Array;
  readonly headers?: Readonly<Record<string, string>>;
  /** Default true. */
  readonly knowsRanges?: boolean;
  /** The socket is destroyed after so many bytes of the body of each answer in turn; past the list none is. 0: at once. */
  readonly cuts?: readonly number[];
  /** So many answers say how long they are. Default: all. */
  readonly numLengths?: number;
}

export interface Request {
  readonly range: string | undefined;
  readonly ifRange: string | undefined;
}

export type Answering = (request: IncomingMessage, response: ServerResponse, index: number) => void;

/** Runs a server for as long as `use` takes. `seen`: the requests so far. */
export async function serving<T>(
  answer: Answering,
  use: (address: string, seen: readonly Request[]) => Promise<T>,
): Promise<T> {
  const seen: Request[] = [];
  const server = createServer((request, response) => {
    const index = seen.length;
    seen.push({ range: request.headers.range, ifRange: request.headers['if-range'] as string | undefined });
    answer(request, response, index);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  try {
    return await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}/model.safetensors`, seen);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

export const ETAG = { etag: '"one"' };

/** What a good server answers over a bad line. */
export function answering({
  bytes,
  headers = ETAG,
  knowsRanges = true,
  cuts = [],
  numLengths = Number.POSITIVE_INFINITY,
}: Served): Answering {
  return (request, response, index) => {
    const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? [];
    const isWanted = knowsRanges && first !== undefined && isCurrent(request, headers);
    const [start, end] = isWanted ? [Number(first), last === '' ? bytes.length : Number(last) + 1] : [0, bytes.length];
    if (isWanted && start >= bytes.length) {
      response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end();
      return;
    }
    const body = bytes.subarray(start, Math.min(end, bytes.length));
    response.writeHead(isWanted ? 206 : 200, {
      ...headers,
      ...(index < numLengths && { 'content-length': body.length }),
      ...(isWanted && { 'content-range': `bytes ${start}-${start + body.length - 1}/${bytes.length}` }),
    });
    const cut = cuts[index] ?? Number.POSITIVE_INFINITY;
    if (cut >= body.length) response.end(body);
    else if (cut === 0) response.socket!.destroy();
    else response.write(body.subarray(0, cut), () => response.socket?.destroy());
  };
}

function isCurrent(request: IncomingMessage, headers: Readonly<Record<string, string>>): boolean {
  const wanted = request.headers['if-range'];
  return wanted === undefined || wanted === headers.etag || wanted === headers['last-modified'];
}
