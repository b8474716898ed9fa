/** Everyone who takes part, in the order in which they are opened: ours first, since they set and take back V8's flags. */
import { wasmLayers } from './model.js';
import { onnxruntime } from './onnxruntime.js';
import type { ReaderContender } from './reader.js';
import { runtime } from './runtime.js';

export const readers: readonly ReaderContender[] = [...runtime, ...onnxruntime, wasmLayers];
