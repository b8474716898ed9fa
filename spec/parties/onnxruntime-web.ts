/** xmoe check --backend build/spec/parties/onnxruntime-web.js */
import { onnxruntimeGraph } from './onnxruntime.js';

export default onnxruntimeGraph('onnxruntime-web');
