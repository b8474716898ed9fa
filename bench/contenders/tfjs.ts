/** TensorFlow.js on its WASM backend, expert by expert; gather and scatter in JS, the routing is given. One thread. */
import type { Matrix } from 'xmoe';
import { loadPeer, peerFolder } from '../peers.js';
import type { Contender } from './contender.js';
import { gatherExpert, scatterExpert } from './rows.js';

/** The little of @tensorflow/tfjs-core that is used here. */
interface TensorFlow {
  setBackend(name: 'wasm'): Promise<boolean>;
  tensor2d(data: Float32Array, shape: [number, number]): Tensor2D;
  transpose(a: Tensor2D): Tensor2D;
  matMul(a: Tensor2D, b: Tensor2D, transposeA?: boolean, transposeB?: boolean): Tensor2D;
  relu(a: Tensor2D): Tensor2D;
  /** Runs `compute` and frees what it made, but for the tensor that it returns. */
  tidy(compute: () => Tensor2D): Tensor2D;
}

interface Tensor2D {
  dataSync(): Float32Array;
  dispose(): void;
}

interface WasmBackend {
  setThreadsCount(threads: number): void;
  setWasmPaths(folder: string): void;
}

const backend = '@tensorflow/tfjs-backend-wasm';

/**
 * `transposed`: weights are laid out [in, out] beforehand. Else they stay [out, in], as the layer has them, and matMul is told
 * so (`transposeB`), which makes it some times slower.
 */
function tfjsWith(name: string, transposed: boolean): Contender {
  return {
    name,
    router: 'threshold',
    threads: [1],
    async open({ steps, weights }, threads) {
      const tf = loadPeer<TensorFlow>('@tensorflow/tfjs-core');
      const { setThreadsCount, setWasmPaths } = loadPeer<WasmBackend>(backend);
      setThreadsCount(threads);
      setWasmPaths(peerFolder(backend));
      await tf.setBackend('wasm');

      const matrix = ({ rows, cols, data }: Matrix) => tf.tensor2d(new Float32Array(data), [rows, cols]);
      const laidOut = (a: Matrix) => (transposed ? tf.tidy(() => tf.transpose(matrix(a))) : matrix(a));
      const [up, down] = [weights.up.map(laidOut), weights.down.map(laidOut)];
      const product = (x: Tensor2D, w: Tensor2D) => tf.matMul(x, w, false, !transposed);
      return {
        run(step) {
          const { x, plan } = steps[step];
          const y = new Float32Array(x.data.length);
          for (let e = 0; e < up.length; e++) {
            const given = gatherExpert(x, plan, e);
            if (given.rows === 0) continue;
            // The tensor, not its data: tidy would look for tensors in each element of an array.
            const out = tf.tidy(() => product(tf.relu(product(matrix(given), up[e])), down[e]));
            scatterExpert(y, out.dataSync(), plan, e);
            out.dispose();
          }
          return y;
        },
        close() {
          for (const tensor of [...up, ...down]) tensor.dispose();
        },
      };
    },
  };
}

export const tfjs: readonly Contender[] = [tfjsWith('tfjs-wasm', true), tfjsWith('tfjs-wasm transposeB', false)];
