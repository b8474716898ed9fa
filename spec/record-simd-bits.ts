/** Records simd-bits.json, where the kernels are meant to give other bits: npm run build && tsc -b spec && node build/spec/record-simd-bits.js */
import { writeFileSync } from 'node:fs';
import { digests } from './simd-bits.js';

const file = new URL('../../spec/simd-bits.json', import.meta.url);
writeFileSync(file, `${JSON.stringify(await digests(), null, 2)}\n`);
