/** Products of a batch of rows, cut for threads: by rows and by panels. */
import type { Storage } from '../wasm/formats.js';
import type { Open } from '../wasm/held.js';
import type { PackedLinear } from '../wasm/packed-weights.js';
import { product, scratchBytes, TASK_ROWS } from '../wasm/products.js';
import { cut, FEW, type Loop, type Task } from '../wasm/tasks.js';
import { each, type ListedRows, part } from '../wasm/workspace.js';

/** Multiply-adds of a task: a fraction of what makes it worth while to wake a thread. */
const TASK_MULTIPLY_ADDS = FEW / 4;

/** to = from · wᵀ + bias, for `count` rows of `numInputs` (encoded) numbers. */
export function productLoop(
  { memory, packed }: Open<Storage>,
  linear: PackedLinear,
  numInputs: number,
  count: number,
  from: ListedRows,
  to: ListedRows,
  numThreads: number,
): Loop {
  const ofPanel = packed.set.panelWidth * numInputs;
  const numBytes = scratchBytes(packed, numInputs);
  if (numThreads === 1 || count * linear.numPanels * ofPanel < FEW) {
    return [[product(packed, linear, count, from.list, to.list, memory.allocate(numBytes))]];
  }
  const pieces = cut(count, TASK_ROWS);
  const ranges = cut(linear.numPanels, panelsOfTask(pieces[0][1] * ofPanel));
  const scratch = each(memory, numBytes, pieces.length * ranges.length);
  return pieces.flatMap(([first, numRows], i) =>
    ranges.map(([firstPanel, numPanels], j): Task => {
      const range: [number, number] = [firstPanel, firstPanel + numPanels];
      const scratchPtr = scratch(i * ranges.length + j);
      const lists = [part(from, first).list, part(to, first).list] as const;
      return [product(packed, linear, numRows, ...lists, scratchPtr, range)];
    }),
  );
}

/** Fours of panels, as few rows take them. */
function panelsOfTask(multiplyAddsOfPanel: number): number {
  return 4 * Math.ceil(TASK_MULTIPLY_ADDS / multiplyAddsOfPanel / 4);
}
