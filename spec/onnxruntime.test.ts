/** ONNX Runtime, where it is installed beside the bench: graphs of standard operators, and the operator MoE, conform. */
import { runtimes } from '../bench/contenders/onnxruntime.js';
import { loadPeer } from '../bench/peers.js';
import { onnxruntimeGraph, onnxruntimeMoe } from './parties/onnxruntime.js';
import { conformsOnRandomCalls, type Party } from './parties/random-calls.js';

const judges = ['logits', 'probs', 'selection', 'dispatch', 'experts', 'combine', 'loss'];

for (const runtime of runtimes) {
  const ifInstalled =
    (make: typeof onnxruntimeGraph): Party =>
    async () => {
      try {
        loadPeer(runtime);
        return make(runtime);
      } catch (error) {
        return (error as Error).message;
      }
    };
  conformsOnRandomCalls(`${runtime}, standard operators`, ifInstalled(onnxruntimeGraph), { share: 0.25, judges });
  conformsOnRandomCalls(`${runtime}, operator MoE`, ifInstalled(onnxruntimeMoe), {
    routers: ['topk', 'switch', 'dense'],
    activations: ['relu', 'gelu_tanh', 'silu', 'swiglu'],
    judges: ['logits', 'combine'],
  });
}
