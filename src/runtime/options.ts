/** What a user may ask of a runtime, and of its calls. */
import { checkObject, integer, oneOf, show, unexpected } from '../check.js';
import { checkOpenOptions } from '../model/open.js';
import { expertFormats } from '../wasm/formats.js';
import { checkEngineOptions, checkNames } from '../wasm/options.js';
import type { EvaluateOptions, GenerateOptions, ReadOptions, RuntimeOptions } from './types.js';

/** @throws TypeError | RangeError for what is no option, or no value of it */
export function checkRuntimeOptions(options: RuntimeOptions): void {
  checkNames('options', options, [
    'deterministic',
    'features',
    'lazyExperts',
    'onProgress',
    'signal',
    'threads',
    'weights',
  ]);
  checkEngineOptions(options);
  checkOpenOptions(options);
  if (options.lazyExperts !== undefined) {
    checkNames('options.lazyExperts', options.lazyExperts, ['budget']);
    const { budget } = options.lazyExperts;
    if (budget !== undefined) integer('options.lazyExperts.budget', budget, 1);
  }
  if (options.weights !== undefined) oneOf('options.weights', options.weights, expertFormats);
}

/** Its threshold is checked where it is used. */
export function checkReadOptions(options: ReadOptions): void {
  checkNames('options', options, ['logits', 'signal', 'threshold']);
  if (options.logits !== undefined) oneOf('options.logits', options.logits, ['all', 'last']);
  checkSignal(options);
}

/** What `generate` of the model does not know. */
export function checkGenerateOptions(options: GenerateOptions): void {
  checkNames('options', options, [
    'maxTokens',
    'seed',
    'signal',
    'temperature',
    'threshold',
    'topK',
    'topP',
    'whenFull',
  ]);
  if (options.whenFull !== undefined) oneOf('options.whenFull', options.whenFull, ['shift', 'stop']);
  checkSignal(options);
}

export function checkEvaluateOptions(options: EvaluateOptions): void {
  checkNames('options', options, ['maxTokens', 'onWindow', 'signal', 'threshold']);
  const { onWindow } = options;
  if (onWindow !== undefined && typeof onWindow !== 'function') {
    throw unexpected(TypeError, 'options.onWindow', 'a function', show(onWindow));
  }
  checkSignal(options);
}

function checkSignal({ signal }: { readonly signal?: unknown }): void {
  if (signal !== undefined) checkObject('options.signal', signal);
}
