export { activate_f32, sigmoid_f32 } from './elementary';
export { linear_f32 } from './linear';
export { softmax_f32 } from './softmax';
