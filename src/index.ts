export { type Activation, activations, sigmoid } from './activations.js';
export { erf, erfc } from './erf.js';
export { linear } from './linear.js';
export { balancedAssignment } from './selection/assignment.js';
export * from './types.js';
