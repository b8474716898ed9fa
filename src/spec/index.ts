/** The specification as a suite: random layers, and every rule as a property of an implementation. Needs fast-check. */
export * from './generators.js';
export { type Property, propertiesOf } from './properties.js';
export { describeXmoe, type SuiteOptions, type Test } from './suite.js';
