/** The layer's floating-point stages in WGSL: float32, one thread for each element of the result. */
import type { ActivationName } from 'xmoe';
import { WORKGROUP } from './device.js';

/** `body` for each `i` up to `count`, which may be more than there are threads; `size` is the kernel's uniform. */
function eachOf(count: string, bindings: readonly string[], functions: string, body: string): string {
  const declared = bindings.map((binding, i) => {
    const access = binding.startsWith('out') ? 'read_write' : 'read';
    const type = binding.endsWith('Index') || binding.endsWith('Offsets') ? 'u32' : 'f32';
    return `@group(0) @binding(${i + 1}) var<storage, ${access}> ${binding}: array<${type}>;`;
  });
  return `
@group(0) @binding(0) var<uniform> size: vec4<u32>;
${declared.join('\n')}
${functions}
@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  for (var i = id.x; i < ${count}; i += groups.x * ${WORKGROUP}u) {
    ${body}
  }
}`;
}

/**
 * out[i, o] = a[rowIndex[i], :] · w[matrixIndex[i], o, :] + bias[matrixIndex[i], o]
 *
 * Shapes  size = (rows, n, k, 1 where there is a bias); a [_, k], w [_, n, k], bias [_, n] -> out [rows, n]
 */
export const linear = eachOf(
  'size.x * size.y',
  ['a', 'w', 'bias', 'rowIndex', 'matrixIndex', 'out'],
  '',
  `let n = size.y; let k = size.z;
    let o = i % n;
    let row = rowIndex[i / n] * k;
    let matrix = matrixIndex[i / n];
    var sum = 0.0;
    for (var j = 0u; j < k; j++) { sum += a[row + j] * w[(matrix * n + o) * k + j]; }
    if (size.w == 1u) { sum += bias[matrix * n + o]; }
    out[i] = sum;`,
);

/** out[t, :] = e^(z[t, :] − max) / Σ, a thread for each token; size = (T, E). */
export const softmax = eachOf(
  'size.x',
  ['z', 'out'],
  '',
  `let first = i * size.y; let last = first + size.y;
    var largest = z[first];
    for (var j = first; j < last; j++) { largest = max(largest, z[j]); }
    var sum = 0.0;
    for (var j = first; j < last; j++) { out[j] = exp(z[j] - largest); sum += out[j]; }
    for (var j = first; j < last; j++) { out[j] /= sum; }`,
);

/** out[i] = σ(h[i]), or σ(gate[i]) · h[i]; size = (count). */
export function activate(activation: ActivationName): string {
  const gated = activation === 'swiglu' || activation === 'geglu';
  const plain = activation === 'swiglu' ? 'silu' : activation === 'geglu' ? 'gelu' : activation;
  return gated
    ? eachOf('size.x', ['h', 'gate', 'out'], SIGMA[plain], 'out[i] = sigma(gate[i]) * h[i];')
    : eachOf('size.x', ['h', 'out'], SIGMA[plain], 'out[i] = sigma(h[i]);');
}

/**
 * σ(h) = relu(h) − a s(−a), a = |h|: a tail in which nothing cancels, from exponentials of what is not positive. Beyond
 * the bounds on a the tail is 0 in float32. gelu: the tail is a e^(−a²/2) R(a), with the rational R of assembly/elementary.ts.
 */
const SIGMA: Readonly<Record<'relu' | 'gelu' | 'gelu_tanh' | 'silu', string>> = {
  relu: 'fn sigma(h: f32) -> f32 { return max(h, 0.0); }',
  silu: `fn sigma(h: f32) -> f32 {
  let a = min(abs(h), 110.0);
  let e = exp(-a);
  return max(h, 0.0) - a * e / (1.0 + e);
}`,
  gelu_tanh: `fn sigma(h: f32) -> f32 {
  let a = min(abs(h), 12.0);
  let e = exp(-2.0 * 0.7978845608028654 * (a + 0.044715 * a * a * a));
  return max(h, 0.0) - a * e / (1.0 + e);
}`,
  gelu: `fn sigma(h: f32) -> f32 {
  let a = min(abs(h), 14.5);
  let n = (((-0.00237332927113 * a + 0.00099275934799) * a + 0.0654944813654) * a + 0.304031861833) * a + 0.500000013537;
  let d = (((0.0234850853251 * a + 0.175580637077) * a + 0.646061513748) * a + 1.20383466563) * a + 1.0;
  return max(h, 0.0) - a * exp(-0.5 * a * a) * (0.5 * d + n) / ((a + 2.0) * d);
}`,
};

/**
 * y[t, c] = Σ weight[r] · rows[r, c], over the rows r of the token: pairIndex from pairOffsets[t] up to pairOffsets[t + 1].
 *
 * Shapes  size = (T, d); rows [A, d], weight [A], pairOffsets [T + 1], pairIndex [A] -> out [T, d]
 */
export const combine = eachOf(
  'size.x * size.y',
  ['rows', 'weight', 'pairOffsets', 'pairIndex', 'out'],
  '',
  `let d = size.y; let t = i / d;
    var sum = 0.0;
    for (var p = pairOffsets[t]; p < pairOffsets[t + 1u]; p++) {
      let r = pairIndex[p];
      sum += weight[r] * rows[r * d + i % d];
    }
    out[i] = sum;`,
);
