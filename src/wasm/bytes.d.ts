/** The compiled kernels, inlined, so that no bundler has to find a file. assembly/build.js writes the module when it builds. */
export function bytes(target: 'simd' | 'relaxed'): Uint8Array;
