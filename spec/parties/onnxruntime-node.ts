/** xmoe check --backend build/spec/parties/onnxruntime-node.js */
import { onnxruntimeGraph } from './onnxruntime.js';

export default onnxruntimeGraph('onnxruntime-node');
