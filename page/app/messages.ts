/** What the page and its worker say to each other. Types only. */
import type { Evaluation, ModelConfig } from 'xmoe/model';
import type { RoutedToken, RuntimeUsage } from 'xmoe/runtime';
import type { ExpertFormat, WasmInfo } from 'xmoe/wasm';
import type { Threshold } from './thresholds.js';

/** A byte of a text, and what it took to predict it: reading the byte before it. */
export interface Predicted {
  readonly byte: number;
  /** −log2 of its probability. */
  readonly bits: number;
  /** One for each XMoE layer. */
  readonly layers: readonly RoutedToken[];
}

export interface Opened {
  readonly config: ModelConfig;
  readonly info: WasmInfo;
}

export interface OpenAsk {
  /** An address, absolute; or a file. */
  readonly source: string | Blob;
  readonly weights: ExpertFormat;
  readonly threads: number;
}

export interface WriteAsk {
  readonly prompt: Uint8Array;
  readonly threshold: Threshold;
  readonly maxTokens: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly seed: number;
}

export interface TextAsk {
  readonly text: Uint8Array;
  readonly threshold: Threshold;
}

/** What the worker does: what it is asked, what it tells on the way, and its answer. */
export interface Jobs {
  /** Loads the model of this worker. Once, and before all others. */
  open: { ask: OpenAsk; part: { readonly numBytes: number; readonly total: number }; answer: Opened };
  /** Writes on after a prompt. */
  write: { ask: WriteAsk; part: Predicted; answer: null };
  /** Predicts every byte of a text but the first, as `evaluate` does, and tells what each took, window by window. */
  read: { ask: TextAsk; part: readonly Predicted[]; answer: null };
  /** The same in figures alone. */
  evaluate: { ask: TextAsk; part: never; answer: Evaluation };
}

export type JobName = keyof Jobs;

export type ToWorker =
  | { readonly id: number; readonly job: JobName; readonly ask: unknown }
  | { readonly id: number; readonly abort: true };

export type ToPage =
  /** It runs, and holds the lock of its name. */
  | { readonly ready: true }
  | { readonly id: number; readonly part: unknown }
  | { readonly id: number; readonly answer: unknown; readonly usage: RuntimeUsage }
  | { readonly id: number; readonly failed: { readonly name: string; readonly message: string } };
