/** Cloudflare Workers: answers a request with the outcomes. The backends are opened while the worker starts. */
import { openBackends } from './backends.js';
import { runSuite } from './suite.js';

const backends = await openBackends();

export default {
  fetch: async () => new Response(JSON.stringify(await runSuite(backends))),
};
