/** Everyone who takes part, in the order in which they are opened: ours first, since they set and take back V8's flags. */
import type { Contender } from './contender.js';
import { runtimes } from './onnxruntime.js';
import { onnxruntimeGraph } from './onnxruntime-graph.js';
import { onnxruntimeMoe } from './onnxruntime-moe.js';
import { onnxruntimeSessions } from './onnxruntime-sessions.js';
import { plain } from './plain.js';
import { reference } from './reference.js';
import { tfjs } from './tfjs.js';
import { wasm } from './wasm.js';

export const contenders: readonly Contender[] = [
  ...wasm,
  ...runtimes.flatMap(runtime => [onnxruntimeMoe(runtime), onnxruntimeGraph(runtime), onnxruntimeSessions(runtime)]),
  ...tfjs,
  plain,
  reference,
];
