/** Engines that have no memory left. */

interface WasmMemory {
  grow(numPages: number): number;
}

declare const WebAssembly: { Memory: new (descriptor: { initial: number }) => WasmMemory };

/** WebAssembly.Memory that refuses what `isRefused` says, while `act` runs. */
export async function refusing(
  isRefused: (what: 'new' | 'grow', pages: number) => boolean,
  act: () => Promise<void>,
): Promise<void> {
  const { Memory } = WebAssembly;
  const { grow } = Memory.prototype;
  const refusal = () => new RangeError('no memory');
  WebAssembly.Memory = class extends Memory {
    constructor(descriptor: { initial: number }) {
      if (isRefused('new', descriptor.initial)) throw refusal();
      super(descriptor);
    }
  };
  Memory.prototype.grow = function (this: WasmMemory, pages: number) {
    if (isRefused('grow', pages)) throw refusal();
    return grow.call(this, pages);
  };
  try {
    await act();
  } finally {
    WebAssembly.Memory = Memory;
    Memory.prototype.grow = grow;
  }
}
