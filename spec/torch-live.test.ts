/** PyTorch as a process, where there is one: the recorder's layer conforms on random calls, forward and backward, in three formats. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type ArithmeticName, arithmeticNamed } from 'xmoe/oracle';
import { processImplementation } from 'xmoe/process';
import { conformsOnRandomCalls, type Party } from './parties/random-calls.js';

const script = fileURLToPath(new URL('../../spec/parties/pytorch.py', import.meta.url));
const python = ['python3', '/usr/bin/python3'].find(path => spawnSync(path, ['-c', 'import torch']).status === 0);

for (const format of ['f32', 'bf16', 'f16'] satisfies ArithmeticName[]) {
  const open: Party = async () => {
    if (python === undefined) return 'python3 has no torch: apt-get install python3-torch';
    return processImplementation([python, script, format], { arithmetic: arithmeticNamed(format) });
  };
  conformsOnRandomCalls(`PyTorch on a CPU, ${format} experts`, open, {
    gradients: true,
    share: 0.25,
    judges: ['logits', 'probs', 'selection', 'dispatch', 'experts', 'combine', 'loss', 'grad.experts.up_proj'],
  });
}
