/** xmoe check --backend build/spec/parties/onnxruntime-node-moe.js */
import { onnxruntimeMoe } from './onnxruntime.js';

export default onnxruntimeMoe('onnxruntime-node');
