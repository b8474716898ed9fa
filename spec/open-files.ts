/** Which files this process has open. */
import { readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';

/** How often it has this file open; undefined where nobody can say. */
export function numOpen(path: string): number | undefined {
  const descriptors = '/proc/self/fd';
  try {
    return readdirSync(descriptors).filter(name => {
      try {
        return readlinkSync(join(descriptors, name)) === path;
      } catch {
        return false; // the descriptor of this listing
      }
    }).length;
  } catch {
    return undefined;
  }
}
