/** xmoe check --backend build/spec/parties/webgpu.js */
import { openGpu } from './webgpu/device.js';
import { webgpuLayer } from './webgpu/implementation.js';

const gpu = await openGpu();
if (typeof gpu === 'string') throw new Error(gpu);

export default webgpuLayer(gpu);
