/** The catalogue of planted faults: those that shipped, XMoE's own, and some more. */
import { activationFaults } from './activations.js';
import { behaviourFaults } from './behaviour.js';
import { combineFaults } from './combine.js';
import { dispatchFaults } from './dispatch.js';
import { expertFaults } from './experts.js';
import type { Fault } from './fault.js';
import { gradientFaults } from './gradients.js';
import { lossFaults } from './loss.js';
import { routerGradientFaults } from './router-gradients.js';
import { routingFaults } from './routing.js';
import { selectionFaults } from './selection.js';
import { thresholdFaults } from './threshold.js';
import { weightFaults } from './weights.js';

export type { Fault } from './fault.js';

export const faults: readonly Fault[] = [
  ...routingFaults,
  ...thresholdFaults,
  ...selectionFaults,
  ...dispatchFaults,
  ...weightFaults,
  ...activationFaults,
  ...expertFaults,
  ...combineFaults,
  ...lossFaults,
  ...routerGradientFaults,
  ...gradientFaults,
  ...behaviourFaults,
];
