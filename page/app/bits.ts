/** How surprising a byte was. */
import type { Matrix } from 'xmoe';

/** −log2 softmax(logits[row])[byte] = log2 Σ exp(z − z[byte]); the largest z is taken out, so that nothing overflows. */
export function bitsOf(logits: Matrix, row: number, byte: number): number {
  const z = logits.data.subarray(row * logits.cols, (row + 1) * logits.cols);
  const max = Math.max(...z);
  let sum = 0;
  for (let i = 0; i < z.length; i++) sum += Math.exp(z[i] - max);
  return (Math.log(sum) + (max - z[byte])) / Math.LN2;
}
