/** What is done with a model: a text is read or written, byte by byte, and measured. */
import { Batches } from './batches.js';
import type { Controls } from './controls.js';
import { Curve } from './curve.js';
import { CurveView } from './curve-view.js';
import { DetailsView } from './details-view.js';
import type { Engine } from './engine.js';
import type { FactsView } from './facts-view.js';
import { FiguresView } from './figures-view.js';
import { showLegend } from './legend-view.js';
import type { Predicted } from './messages.js';
import type { Notice } from './notice.js';
import { stepsOf } from './scale.js';
import { numColumns, Tally } from './tally.js';
import type { TextView } from './text-view.js';
import { type Threshold, thresholdText } from './thresholds.js';
import { UsageView } from './usage-view.js';
import { counted } from './words.js';

export class Desk {
  readonly #engine: Engine;
  readonly #controls: Controls;
  readonly #notice: Notice;
  readonly #facts: FactsView;
  readonly #text: TextView;
  readonly #details = new DetailsView();
  readonly #figures = new FiguresView();
  readonly #curveView = new CurveView();
  readonly #usage: UsageView;
  /** By which the shown bytes were routed. */
  #threshold: Threshold;
  #tally: Tally;
  /** Of the shown text, once that is whole. */
  #curve: Curve | undefined;

  constructor(engine: Engine, text: TextView, controls: Controls, notice: Notice, facts: FactsView) {
    const { config } = engine.opened;
    this.#engine = engine;
    this.#controls = controls;
    this.#notice = notice;
    this.#facts = facts;
    this.#text = text;
    this.#threshold = controls.threshold;
    this.#tally = new Tally(config);
    this.#usage = new UsageView(config);
    text.onPoint = index => this.#point(index);
    controls.offerLayers(config.moeLayers);
    this.colour();
    this.#show(new Uint8Array());
  }

  /** Colours the bytes by the experts of the layers that are chosen. */
  colour(): void {
    const { moeLayers, layer: config } = this.#engine.opened.config;
    const { layer } = this.#controls;
    const numLayers = layer === undefined ? Math.max(1, moeLayers.length) : 1;
    const steps = stepsOf(numLayers, numLayers * numColumns(config));
    const countOf = ({ layers }: Predicted) =>
      (layer === undefined ? layers : [layers[layer]]).reduce((sum, { experts }) => sum + experts.length, 0);
    this.#text.colourBy(steps, countOf);
    showLegend(steps);
  }

  /** Shows a text and measures it. */
  async read(bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    this.#show(bytes);
    await this.measure(signal);
  }

  /**
   * Writes on after a prompt.
   * @param stop ends the writing as if it were done; `signal` throws
   * @returns what is to be said of it
   */
  async write(prompt: Uint8Array, stop: AbortSignal, signal: AbortSignal): Promise<string> {
    this.#show(prompt);
    await this.#predict(signal);
    this.#notice.status('Writing…');
    const ask = { prompt, threshold: this.#threshold, ...this.#controls.writing };
    const start = performance.now();
    let numWritten = 0;
    const batches = new Batches<Predicted>(batch => {
      this.#text.write(batch);
      this.#count(batch);
      numWritten += batch.length;
      this.#facts.showSpeed('writing', numWritten, performance.now() - start);
    });
    const onPart = (predicted: Predicted) => batches.push(predicted);
    try {
      await this.#engine.ask('write', ask, { signal: AbortSignal.any([stop, signal]), onPart });
    } catch (error) {
      if (!stop.aborted || signal.aborted) throw error;
    } finally {
      batches.flush();
    }
    return `Wrote ${counted(numWritten, 'byte')}${stop.aborted ? ', then was stopped' : ''}. `;
  }

  /**
   * Predicts every byte that is shown, by the threshold that is chosen; and then by the others, for the curve.
   * @param done what is said before the figures
   */
  async measure(signal: AbortSignal, done = ''): Promise<void> {
    const start = performance.now();
    await this.#predict(signal);
    const { numPredicted, bitsPerByte } = this.#tally;
    if (numPredicted === 0) {
      this.#notice.status(`${done}Nothing is predicted: a text needs two bytes.`);
      return;
    }
    this.#facts.showSpeed('reading', numPredicted, performance.now() - start);
    const figures = `${counted(numPredicted, 'byte')} predicted with ${bitsPerByte.toFixed(3)} bits per byte`;
    const threshold = thresholdText(this.#threshold).replaceAll(' ', '\u00a0'); // one word, where lines break
    this.#notice.status(`${done}${figures}, ${threshold}.`);
    this.#curve ??= new Curve(this.#engine, this.#text.raw);
    this.#showCurve();
    await this.#curve.fill(this.#threshold, signal, () => this.#showCurve());
  }

  async #predict(signal: AbortSignal): Promise<void> {
    this.#threshold = this.#controls.threshold;
    this.#tally = new Tally(this.#engine.opened.config);
    this.#showCurve();
    let next = 1; // the first byte has nothing to be predicted from
    const onPart = (window: readonly Predicted[]) => {
      for (const predicted of window) this.#text.set(next++, predicted);
      this.#count(window);
    };
    await this.#engine.ask('read', { text: this.#text.raw, threshold: this.#threshold }, { signal, onPart });
  }

  #show(bytes: Uint8Array): void {
    this.#text.clear();
    this.#text.append(bytes);
    this.#curve = undefined;
    this.#tally = new Tally(this.#engine.opened.config);
    this.#showCurve();
    this.#count([]);
  }

  #count(window: readonly Predicted[]): void {
    for (const predicted of window) this.#tally.add(predicted);
    this.#figures.show(this.#tally);
    this.#usage.show(this.#tally);
    this.#facts.showUsage(this.#engine.usage);
  }

  #showCurve(): void {
    this.#curveView.show(this.#curve?.points ?? [], this.#controls.threshold);
  }

  #point(index: number | undefined): void {
    const { bytes } = this.#text;
    this.#details.show(bytes, index, this.#engine.opened.config, this.#threshold);
    this.#usage.mark(bytes[index ?? -1]?.predicted?.layers ?? []);
  }
}
