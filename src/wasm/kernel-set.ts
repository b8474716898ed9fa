/** Which of a module's kernels compute. The bits are the same: it is a matter of time alone. */
import type { KernelSet } from './kernels.js';

/** For registers of 128 bits. */
export function narrowSet(): KernelSet {
  return { panelWidth: 8, tileRows: isRecent() ? 6 : 4 };
}

/** For an engine that joins neighbouring vectors into 256 bits. */
export const wideSet: KernelSet = { panelWidth: 16, tileRows: 6 };

/**
 * Whether the engine's compiler keeps the sums of six rows in registers, as V8's does since Node 24 and Chromium 136. A
 * version says nothing of other engines, so their age is taken from what came to JavaScript at the same time.
 */
function isRecent(): boolean {
  return 'Float16Array' in globalThis;
}
