/** Implementations of other people: the specification as their tests, and programs in other languages. */
import { type Backend, reference } from 'xmoe';
import { layerOfSizes } from 'xmoe/cases';
import { conform, type Implementation, implementationOf } from 'xmoe/oracle';
import { processImplementation } from 'xmoe/process';
import { describeXmoe, propertiesOf, type Test } from 'xmoe/spec';
import { Absent, type Check, expect, rejectionOf } from './check.js';
import { answerCommand } from './surroundings.js';

/** The tests that fail, by name, and how many there are. */
async function suiteOn(backend: Backend): Promise<{ failed: string[]; numTests: number }> {
  const bodies: { name: string; body: () => Promise<void> }[] = [];
  const test: Test = (name, body) => bodies.push({ name, body });
  describeXmoe(implementationOf(backend), { test, gradients: true, runs: 2, seed: 1 });
  const failed: string[] = [];
  for (const { name, body } of bodies) await body().catch(() => failed.push(name));
  return { failed, numTests: bodies.length };
}

/** @throws Absent where no program can be started */
async function start(command: readonly string[]): Promise<Implementation> {
  return await processImplementation(command, { seconds: 30 }).catch((error: Error) => {
    const reason = /^"command" expected a (?:runtime that starts programs|program that starts), got (.*)$/s.exec(
      error.message,
    );
    throw error instanceof TypeError && reason
      ? new Absent(`no program can be started: ${reason[1].split('\n')[0]}`)
      : error;
  });
}

export const strangerChecks: readonly Check[] = [
  {
    feature: 'xmoe/spec',
    name: 'the suite passes the reference, every rule of it',
    async run() {
      const { failed, numTests } = await suiteOn(reference);
      expect(failed.length === 0, `no test to fail, got ${failed}`);
      expect(numTests === propertiesOf(true).length + 1, `a test for each property, got ${numTests}`);
    },
  },
  {
    feature: 'xmoe/spec',
    name: 'the suite names the rules of the stage that is wrong',
    async run() {
      const twice: Backend = {
        ...reference,
        combine(expertOut, plan) {
          const y = reference.combine(expertOut, plan);
          return { ...y, data: y.data.map(value => 2 * value) };
        },
      };
      const { failed } = await suiteOn(twice);
      const ruleIds = failed.map(name => name.split(' ')[0]);
      expect(ruleIds.includes('C1') && !ruleIds.includes('D2') && !ruleIds.includes('E1'), `C1 to fail, got ${failed}`);
    },
  },
  {
    feature: 'xmoe/process',
    name: 'a program is started, asked, and conforms',
    async run() {
      const { gradY: _, ...call } = layerOfSizes(5, 4, 3, 2, { storage: 'f32' });
      const implementation = await start(answerCommand);
      for (let i = 0; i < 2; i++) {
        const { verdict, blamed } = conform(await implementation.run(call), call, implementation.arithmetic);
        expect(verdict === 'conforms', `it to conform, got ${blamed} blamed`);
      }
      await implementation.close?.();
    },
  },
  {
    feature: 'xmoe/process',
    name: 'a program that answers nothing is a finding',
    async run() {
      const implementation = await start([answerCommand[0], '-e', '0']);
      const error = await rejectionOf(Promise.resolve(implementation.run(layerOfSizes(1, 1, 1, 1))));
      expect((error as { kind?: string }).kind === 'crashed', `that it crashed, got ${error}`);
      await implementation.close?.();
    },
  },
];
