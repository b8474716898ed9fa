/** xmoe check --backend build/spec/parties/onnxruntime-web-moe.js */
import { onnxruntimeMoe } from './onnxruntime.js';

export default onnxruntimeMoe('onnxruntime-web');
