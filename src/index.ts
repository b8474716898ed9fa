export { linear } from './linear.js';
export * from './types.js';
