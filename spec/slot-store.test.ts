/** Slots of which there are fewer than things: who is held, who makes room, and what is read. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SlotStore } from './model-internals.js';
import { asyncProperty } from './property.js';

interface Slot {
  value: string | undefined;
}

const slotsOf = (count: number): Slot[] => Array.from({ length: count }, () => ({ value: undefined }));
const put = (slot: Slot, value: string) => {
  slot.value = value;
};

/** Keys in order of their use, the newest last: brought one after another, those that are needed together spared. */
class Model {
  held: number[] = [];
  reads = 0;
  evictions = 0;
  readonly #numSlots: number;

  constructor(numSlots: number) {
    this.#numSlots = numSlots;
  }

  bring(keys: readonly number[]): void {
    this.reads += keys.filter(key => !this.held.includes(key)).length;
    const others = this.held.filter(key => !keys.includes(key));
    const room = Math.min(others.length, this.#numSlots - keys.length);
    this.evictions += this.held.length + keys.filter(key => !this.held.includes(key)).length - room - keys.length;
    this.held = [...others.slice(others.length - room), ...keys];
  }
}

/** Of as many as there are slots. */
function inGroups(need: readonly number[], numSlots: number): number[][] {
  const numGroups = Math.ceil(need.length / numSlots);
  return Array.from({ length: numGroups }, (_, i) => need.slice(i * numSlots, (i + 1) * numSlots));
}

const NUM_KEYS = 9;
const numSlots = fc.integer({ min: 1, max: NUM_KEYS });
const needs = fc.array(fc.subarray([...Array(NUM_KEYS).keys()]), { minLength: 1, maxLength: 12 });

asyncProperty(
  'the least recently used makes room, and what is held is not read again',
  fc.record({ numSlots, needs, delays: fc.array(fc.boolean(), { minLength: 1 }) }),
  async ({ numSlots, needs, delays }, reach) => {
    let numAsked = 0;
    const store = new SlotStore<Slot, string>(slotsOf(numSlots), async key => {
      if (delays[numAsked++ % delays.length]) await new Promise(setImmediate); // so that they come in another order
      return `value ${key}`;
    });
    const model = new Model(numSlots);
    for (const need of needs) {
      const groups = inGroups(need, numSlots);
      if (groups.length > 1) reach('a need that does not fit');
      for (const group of groups) {
        const before = model.reads;
        model.bring(group);
        const coming = store.bring(group, put);
        assert.equal(
          coming === undefined,
          model.reads === before,
          'it waits for what is missing, and for nothing else',
        );
        await coming;
        const used = new Set(group.map(key => store.slotOf(key)));
        assert.equal(used.size, group.length);
        for (const key of group) assert.equal(store.slotOf(key).value, `value ${key}`);
        const { held, reads, evictions } = model;
        assert.deepEqual(store.usage, { resident: held.length, reads, evictions });
        assert.equal(numAsked, reads);
        if (evictions > 0) reach('an eviction');
        if (!coming && group.length > 0) reach('all of it there');
      }
    }
  },
  ['a need that does not fit', 'an eviction', 'all of it there'],
);

asyncProperty(
  'after a failure, what is held is right, and the next need is met',
  fc.record({ numSlots, needs, failing: fc.array(fc.nat(20), { minLength: 1 }) }),
  async ({ numSlots, needs, failing }, reach) => {
    let numAsked = 0;
    const store = new SlotStore<Slot, string>(slotsOf(numSlots), async key => {
      const number = numAsked++;
      if (number % 2 === 1) await new Promise(setImmediate);
      if (failing.includes(number)) throw new Error(`no ${key}`);
      return `value ${key}`;
    });
    for (const group of needs.flatMap(need => inGroups(need, numSlots))) {
      let tries = 0;
      for (; ; tries++) {
        try {
          await store.bring(group, put);
          break;
        } catch (error) {
          assert.match((error as Error).message, /^no \d$/);
          reach('a failure');
          await new Promise(setImmediate); // what comes too late finds nothing to do
        }
      }
      assert.ok(tries <= failing.length);
      for (const key of group) assert.equal(store.slotOf(key).value, `value ${key}`);
      const { resident, reads, evictions } = store.usage;
      assert.equal(reads - evictions, resident);
      assert.ok(resident <= numSlots);
    }
  },
  ['a failure'],
);

test('what comes after an abort is let go', async () => {
  const reason = new Error('enough');
  const arrive = new Map<number, () => void>();
  const told: number[] = [];
  const store = new SlotStore<Slot, string>(slotsOf(2), (key, signal) => {
    signal.addEventListener('abort', () => told.push(key));
    return new Promise(resolve => arrive.set(key, () => resolve(`value ${key}`)));
  });
  const first = store.bring([0, 1], put);
  arrive.get(0)!();
  arrive.get(1)!();
  await first;

  const aborting = new AbortController();
  const aborted = store.bring([2, 3], put, aborting.signal);
  aborting.abort(reason);
  assert.deepEqual(told, [2, 3], 'whoever reads is told');
  arrive.get(2)!();
  arrive.get(3)!();
  await assert.rejects(aborted!, reason);
  assert.deepEqual(store.usage, { resident: 2, reads: 2, evictions: 0 });
  assert.equal(store.bring([1, 0], put), undefined);
  await assert.rejects(store.bring([4], put, aborting.signal)!, reason);
  assert.ok(!arrive.has(4), 'nothing is asked for');
});

test('a value that comes when its group has failed does not take a slot', async () => {
  const arrive = new Map<number, (failure?: Error) => void>();
  const store = new SlotStore<Slot, string>(slotsOf(2), key => {
    return new Promise((resolve, reject) => {
      arrive.set(key, failure => (failure ? reject(failure) : resolve(`value ${key}`)));
    });
  });
  const failing = store.bring([0, 1], put);
  arrive.get(0)!(new Error('no 0'));
  await assert.rejects(failing!, /no 0/);
  const next = store.bring([2, 3], put);
  arrive.get(2)!();
  arrive.get(3)!();
  await next;
  arrive.get(1)!(); // of the call that failed
  await new Promise(setImmediate);
  assert.deepEqual(
    [2, 3].map(key => store.slotOf(key).value),
    ['value 2', 'value 3'],
  );
  assert.deepEqual(store.usage, { resident: 2, reads: 2, evictions: 0 });
});

test('few are read at once, however many are missing', async () => {
  let [numNow, most] = [0, 0];
  const store = new SlotStore<Slot, string>(slotsOf(50), async key => {
    most = Math.max(most, ++numNow);
    await new Promise(setImmediate);
    numNow--;
    return `value ${key}`;
  });
  await store.bring([...Array(50).keys()], put);
  assert.deepEqual([most, store.usage.resident], [6, 50]);
});
