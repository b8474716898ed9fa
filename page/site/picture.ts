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
.line { fill: none; stroke: #3f2b7b; stroke-width: 1.5 } .dot { fill: #3f2b7b } .name { fill: #1c1b22; font-weight: 600 }
@media (prefers-color-scheme: dark) {
  text { fill: #a9a6b5 } .grid { stroke: #38363f } .dense { stroke: #a9a6b5 }
  .line { stroke: #c9bdf5 } .dot { fill: #c9bdf5 } .name { fill: #eceaf0 }
}`;

const TEXTS = { sotu: 'State of the Union', moby: 'Moby Dick', kjv: 'King James Bible' };

const models = new URL('../../../models/', import.meta.url);
const picture = new URL('../../../page/quality.svg', import.meta.url);

/** The same figures on every machine. */
const runtime = await openRuntime(fileURLToPath(new URL('xmoe-gpt.safetensors', models)), {
  deterministic: true,
  threads: Math.min(8, availableParallelism()),
});

async function seriesOf([text, name]: readonly [text: string, name: string]): Promise<Series> {
  const bytes = readFileSync(new URL(`text/${text}.txt`, models));
  const points: CurvePoint[] = [];
  for (const threshold of thresholds)
    points.push({ threshold, evaluation: await runtime.evaluate(bytes, { threshold }) });
  return { name, points };
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
const title = '<title>Bits per byte against FLOPs over the threshold τ, of three texts</title>';
const shapes = plot(series).map(written);
const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img">`;
writeFileSync(picture, `${[svg, title, `<style>${STYLE}</style>`, ...shapes, '</svg>'].join('\n')}\n`);
console.log(`${fileURLToPath(picture)}: ${series.length} texts, ${thresholds.length} thresholds each`);
