/** Layers by recipe: what a random case is like in a few words and a seed, and the case that follows from them. */
export { drawRecipe, type Feature, features, type WantedRecipes } from './draw.js';
export { type Layer, type LogitStyle, layerOf, layerOfSizes, type Recipe, type Sizes } from './recipes.js';
export { generic, integer, matrixOf, shuffled, uniform } from './values.js';
