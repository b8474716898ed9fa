/** The other libraries, which are installed beside the bench and not with xmoe: see peers/package.json. */
import { createRequire } from 'node:module';

const peers = createRequire(new URL('../../bench/peers/package.json', import.meta.url));

/** @throws Error that says how to install it */
export function loadPeer<T>(name: string): T {
  try {
    return peers(name);
  } catch (cause) {
    throw new Error(`"${name}" is not there; npm ci --prefix bench/peers --ignore-scripts`, { cause });
  }
}

/** The folder of an installed file, with a slash at its end. */
export function peerFolder(file: string): string {
  return peers.resolve(file).replace(/[^/\\]*$/, '');
}
