/** Processes: prints the outcomes as a line of JSON. The threads are left idle: they must keep no process alive. */
import { openBackends } from './backends.js';
import { runSuite } from './suite.js';

console.log(JSON.stringify(await runSuite(await openBackends())));
