/** The layer on a GPU, in float32 and by WGSL's elementary functions: every router and activation conforms. */
import type { StageName } from 'xmoe/oracle';
import { conformsOnRandomCalls } from './parties/random-calls.js';
import { openGpu } from './parties/webgpu/device.js';
import { webgpuLayer } from './parties/webgpu/implementation.js';

const judges: StageName[] = ['logits', 'probs', 'selection', 'dispatch', 'experts', 'combine', 'loss'];

async function open() {
  const gpu = await openGpu();
  return typeof gpu === 'string' ? gpu : webgpuLayer(gpu);
}

conformsOnRandomCalls('WebGPU', open, { judges });
