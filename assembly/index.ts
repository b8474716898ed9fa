export { activate_f32, sigmoid_f32 } from './elementary';
export { combine_f32, down_combine_f32, down_f32, up_f32, up_gated_f32 } from './experts';
export { tileRows } from './product';
export { route_f32 } from './router';
export { softmax_f32 } from './softmax';
export { panelWidth } from './tile';
