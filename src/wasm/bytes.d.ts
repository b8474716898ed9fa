/** The compiled kernels, inlined, so that no bundler has to find a file. assembly/inline.js writes the module when it builds. */
export function bytes(target: 'simd' | 'relaxed'): Uint8Array;
