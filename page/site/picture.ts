/** `npm run page:picture`: measures the shipped texts at every threshold of the page, and draws page/quality.svg. */
import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { openRuntime } from 'xmoe/runtime';
import type { CurvePoint } from '../app/curve.js';
import { HEIGHT, plot, type Series, type Shape, WIDTH } from '../app/plot.js';
import { thresholds } from '../app/thresholds.js';

const STYLE = `text { font: 12px system-ui, sans-serif; fill: #5c5a66 }
.grid { stroke: #dddbe0 } .dense { stroke: #5c5a66; stroke-dasharray: 3 3 }
.line { stroke-width: 1.5 } .name { font-weight: 600 }
.of-0 { stroke: #3f2b7b; fill: #3f2b7b } .of-1 { stroke: #0b7285; fill: #0b7285 } .of-2 { stroke: #a8480c; fill: #a8480c }
.line { fill: none } .name { stroke: none } .of-1.line { stroke-dasharray: 6 3 } .of-2.line { stroke-dasharray: 2 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #a9a6b5 } .grid { stroke: #38363f } .dense { stroke: #a9a6b5 }
  .of-0 { stroke: #c9bdf5; fill: #c9bdf5 } .of-1 { stroke: #66d9e8; fill: #66d9e8 } .of-2 { stroke: #ffa94d; fill: #ffa94d }
  .line { fill: none } .name { stroke: none }
}`;

const TEXTS = { sotu: 'State of the Union', moby: 'Moby Dick', kjv: 'King James Bible' };

const models = new URL('../../../models/', import.meta.url);
const picture = new URL('../../../page/quality.svg', import.meta.url);

/** The same figures on every machine. */
const runtime = await openRuntime(fileURLToPath(new URL('xmoe-gpt.safetensors', models)), {
  deterministic: true,
  threads: Math.min(8, availableParallelism()),
});

/** By how much a text is predicted worse than with every expert; those bits are written behind its name. */
async function seriesOf([text, name]: readonly [text: string, name: string]): Promise<Series> {
  const bytes = readFileSync(new URL(`text/${text}.txt`, models));
  const points: CurvePoint[] = [];
  for (const threshold of thresholds)
    points.push({ threshold, evaluation: await runtime.evaluate(bytes, { threshold }) });
  const all = points.at(-1)!.evaluation.bitsPerByte;
  const differences = points.map(({ threshold, evaluation }) => ({
    threshold,
    evaluation: { ...evaluation, bitsPerByte: evaluation.bitsPerByte - all },
  }));
  return { name: `${name} (${all.toFixed(3)})`, points: differences };
}

/** A shape as SVG writes it; no name and no text of ours has a letter that must be escaped. */
function written({ tag, attributes, text = '' }: Shape): string {
  const list = Object.entries(attributes).map(([name, value]) => ` ${name}="${value}"`);
  const content = tag === 'circle' ? `<title>${text}</title>` : text;
  return `<${tag}${list.join('')}>${content}</${tag}>`;
}

const series: Series[] = [];
for (const text of Object.entries(TEXTS)) series.push(await seriesOf(text));
runtime.dispose();
const title =
  '<title>Bits per byte, more than with every expert, against FLOPs over the threshold τ, of three texts</title>';
const shapes = plot(series, undefined, 'bits per byte, more than with every expert').map(written);
const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 0 ${WIDTH + 8} ${HEIGHT}" role="img">`;
writeFileSync(picture, `${[svg, title, `<style>${STYLE}</style>`, ...shapes, '</svg>'].join('\n')}\n`);
console.log(`${fileURLToPath(picture)}: ${series.length} texts, ${thresholds.length} thresholds each`);
