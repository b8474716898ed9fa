export { linear_f32 } from './linear';
