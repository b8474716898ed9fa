/** The page: what a visitor does, and what follows from it. */
import { Controls } from './controls.js';
import { Desk } from './desk.js';
import { onDrop } from './drop.js';
import { type Engine, ModelLostError } from './engine.js';
import { FactsView } from './facts-view.js';
import { Loader, type ModelFile } from './loader.js';
import { Notice } from './notice.js';
import { TextView } from './text-view.js';
import { shippedText } from './texts.js';
import { Turns } from './turns.js';
import { pause } from './visible.js';

const shipped: ModelFile = {
  name: 'xmoe-gpt.safetensors',
  source: new URL('../model/xmoe-gpt.safetensors', import.meta.url).href,
};

/** The slider moves on before a text is read again at each position. */
const SLIDER_MS = 60;

const controls = new Controls();
const notice = new Notice();
const facts = new FactsView();
const loader = new Loader();
const text = new TextView();
const loads = new Turns(error => {
  const refused = wanted;
  wanted = loaded ?? wanted;
  notice.status(`${refused.name} was not loaded.`);
  notice.error(refusal(refused, error), error, () => load(refused));
});
const work = new Turns(error => {
  if (!(error instanceof ModelLostError)) notice.error('That did not work.', error); // a lost one is told below
});

/** The last one that was asked for, and the one that is there. */
let wanted = shipped;
let loaded: ModelFile | undefined;
let engine: Engine | undefined;
let desk: Desk | undefined;
let written: Uint8Array | undefined;
let stopWriting = new AbortController();

/** A later load ends this one. The model that was there stays until this one is. */
function load(file: ModelFile): void {
  wanted = file;
  notice.clearError();
  loads.run(async signal => {
    notice.status(`Loading ${file.name}…`);
    const opened = await loader.load(file, controls.loading, signal);
    await work.stop();
    engine?.close();
    use(opened, file);
  });
}

function refusal({ name }: ModelFile, error: unknown): string {
  const kind = error instanceof Error ? error.name : '';
  if (kind === 'SafetensorsError') return `${name} is no model file, or not all of one.`;
  if (kind === 'SourceError' || kind === 'ModelLostError') return `${name} could not be loaded.`;
  return `${name} is no model that this page can run.`;
}

function use(opened: Engine, file: ModelFile): void {
  engine = opened;
  loaded = file;
  engine.onLost = error => {
    engine = desk = undefined;
    controls.hasModel = false;
    notice.error('The model is gone.', error, () => load(file));
  };
  facts.show(file.name, opened.opened);
  desk = new Desk(opened, text, controls, notice, facts);
  controls.hasModel = true;
  notice.status(`${file.name} is loaded.`);
  readChosen();
}

/** Reads the text that is chosen: one that comes with the page, or what was written. */
function readChosen(): void {
  work.run(async signal => {
    const { text: choice, numBytes } = controls;
    const bytes =
      choice === 'written' ? (written ?? controls.promptBytes) : await shippedText(choice, numBytes, signal);
    await desk?.read(bytes, signal);
  });
}

function write(): void {
  controls.text = 'written';
  work.run(async signal => {
    stopWriting = new AbortController();
    controls.isWriting = true;
    let done: string | undefined;
    try {
      done = await desk?.write(controls.promptBytes, stopWriting.signal, signal);
    } finally {
      controls.isWriting = false;
      written = text.raw;
    }
    await desk?.measure(signal, done);
  });
}

controls.onWrite = write;
controls.onStop = () => stopWriting.abort();
controls.onText = readChosen;
controls.onColour = () => desk?.colour();
controls.onThreshold = () =>
  work.run(async signal => {
    await pause(SLIDER_MS, signal);
    await desk?.measure(signal);
  });
controls.onFile = file => load({ name: file.name, source: file });
controls.onShipped = () => load(shipped);
controls.onOptions = () => load(wanted);
controls.onCancel = async () => {
  wanted = loaded ?? wanted;
  await loads.stop();
  notice.status('Loading was stopped.');
};
onDrop(controls.onFile);
load(shipped);
