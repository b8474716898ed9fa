export { combine_f32, down_combine_f32, down_f32, up_f32, up_gated_f32 } from './experts';
export { linear_f32 } from './linear';
export { route_f32 } from './router';
export { tileRows } from './product';
export { panelWidth } from './tile';
