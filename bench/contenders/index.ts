/** Everyone who takes part. */
import type { Contender } from './contender.js';
import { runtimes } from './onnxruntime.js';
import { onnxruntimeGraph } from './onnxruntime-graph.js';
import { onnxruntimeMoe } from './onnxruntime-moe.js';
import { onnxruntimeSessions } from './onnxruntime-sessions.js';
import { plain } from './plain.js';
import { referenceExperts, referenceLayer } from './reference.js';
import { tfjs } from './tfjs.js';
import { wasm } from './wasm.js';

export const contenders: readonly Contender[] = [
  ...wasm,
  ...runtimes.flatMap(runtime => [
    onnxruntimeMoe(runtime, 'experts'),
    onnxruntimeGraph(runtime),
    onnxruntimeSessions(runtime),
    onnxruntimeMoe(runtime, 'layer'),
  ]),
  tfjs,
  plain,
  referenceExperts,
  referenceLayer,
];
