/** Pages: posts the outcomes, or why there are none, to where the page came from. */
import { openBackends } from './backends.js';
import { runSuite } from './suite.js';

const report = await openBackends()
  .then(runSuite)
  .catch(error => String(error));
await fetch('/report', { method: 'POST', body: JSON.stringify(report) });
