export { activate_f32, multiply_f32, sigmoid_f32 } from './elementary';
export { attend_f32, store_heads_f32 } from './attention';
export { combine_f32 } from './combine';
export { add_norm_f32 } from './norm';
export {
  product_bf16_16, product_bf16_8, product_f16_16, product_f16_8, product_f32_16, product_f32_8,
  product_int8_16, product_int8_8, product_int8_dot_16, product_int8_dot_8,
} from './product';
export { quantize_i7 } from './quantize';
export { route_f32 } from './router';
export { place_f32, select_f32 } from './select';
export { softmax_f32 } from './softmax';
