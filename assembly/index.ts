export { activate_f32, sigmoid_f32 } from './elementary';
export { combine_f32 } from './combine';
export { product_f32_8, product_f32_16 } from './product';
export { route_f32 } from './router';
export { softmax_f32 } from './softmax';
