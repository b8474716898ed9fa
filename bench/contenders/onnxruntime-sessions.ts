/**
 * A session for each expert, called with the rows that it was given; gather and scatter in JS, the routing is given. An
 * idle expert costs nothing.
 */
import type { Contender } from './contender.js';
import { floats, openSession, type Runtime } from './onnxruntime.js';
import { expertModel } from './onnxruntime-graph.js';
import { gatherExpert, scatterExpert } from './rows.js';

export function onnxruntimeSessions(runtime: Runtime): Contender {
  return {
    name: `${runtime} sessions`,
    router: 'threshold',
    threads: [1, 2],
    async open(layer, threads) {
      const sessions = await Promise.all(
        layer.weights.up.map((_, e) => openSession(runtime, expertModel(layer, e), { threads, spin: false })),
      );
      return {
        async run(step) {
          const { x, plan } = layer.steps[step];
          const y = new Float32Array(x.data.length);
          for (const [e, session] of sessions.entries()) {
            const given = gatherExpert(x, plan, e);
            if (given.rows === 0) continue;
            scatterExpert(y, await session.run({ x: floats(runtime, given) }), plan, e);
          }
          return y;
        },
        async close() {
          for (const session of sessions) await session.close();
        },
      };
    },
  };
}
