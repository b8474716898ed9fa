/** A passage coloured by how many experts each of its tokens used. */
import { decoder, type TokenFacts } from '../model/index.js';

/** Mean experts per XMoE layer, up to and including `most`, and the colour (of the 256 of a terminal) for it. */
const LEVELS = [
  { most: 1, colour: 244 },
  { most: 1.5, colour: 33 },
  { most: 2, colour: 43 },
  { most: 3, colour: 76 },
  { most: 4, colour: 220 },
  { most: 6, colour: 208 },
  { most: Number.POSITIVE_INFINITY, colour: 197 },
];

const WIDTH = 76;

export function paint(tokens: readonly TokenFacts[]): string {
  const glyphs = glyphsOf(tokens);
  return usesColours() ? `${legend()}\n\n${coloured(glyphs)}` : `${plainLegend()}\n\n${numbered(glyphs)}`;
}

/** A character, and the most experts (mean over the XMoE layers) that one of its bytes used. */
interface Glyph {
  readonly text: string;
  readonly experts: number;
}

function glyphsOf(tokens: readonly TokenFacts[]): Glyph[] {
  const utf8 = decoder();
  const glyphs: Glyph[] = [];
  let most = 0;
  for (const { byte, experts } of tokens) {
    most = Math.max(most, mean(experts.map(list => list.length)));
    const text = utf8.push(byte);
    if (text === '') continue; // within a character of several bytes
    glyphs.push({ text: printable(text), experts: most });
    most = 0;
  }
  return glyphs;
}

/** Control characters of a stranger's text do not reach the terminal. */
function printable(text: string): string {
  return text === '\n' ? text : text.replace(/\p{Cc}/gu, ' ');
}

function usesColours(): boolean {
  if (process.env.FORCE_COLOR !== undefined) return process.env.FORCE_COLOR !== '0';
  return process.stdout.isTTY === true && process.stdout.hasColors(256);
}

function levelOf(experts: number): number {
  return LEVELS.findIndex(({ most }) => experts <= most);
}

function colour(text: string, level: number): string {
  return `\x1b[38;5;${LEVELS[level].colour}m${text}\x1b[0m`;
}

function legend(): string {
  const names = LEVELS.map(({ most }, level) => colour(nameOf(most, level), level));
  return `experts used by a token, mean over the XMoE layers:  ${names.join('  ')}`;
}

function plainLegend(): string {
  return 'under each character: experts used, mean over the XMoE layers, rounded (9: 9 and more)';
}

function nameOf(most: number, level: number): string {
  if (level === 0) return '1';
  return most === Number.POSITIVE_INFINITY ? 'more' : `to ${most}`;
}

function coloured(glyphs: readonly Glyph[]): string {
  const paintLine = (line: readonly Glyph[]) =>
    line.map(({ text, experts }) => colour(text, levelOf(experts))).join('');
  return linesOf(glyphs).map(paintLine).join('\n');
}

/** Each line of text with its line of figures. */
function numbered(glyphs: readonly Glyph[]): string {
  const figure = ({ text, experts }: Glyph) => (text === ' ' ? ' ' : Math.min(9, Math.round(experts)));
  return linesOf(glyphs)
    .map(line => `${line.map(({ text }) => text).join('')}\n${line.map(figure).join('')}`)
    .join('\n');
}

/** Lines of at most WIDTH characters, broken after a space where there is one. */
function linesOf(glyphs: readonly Glyph[]): Glyph[][] {
  const lines: Glyph[][] = [];
  let line: Glyph[] = [];
  for (const glyph of glyphs) {
    if (glyph.text !== '\n') line.push(glyph);
    if (glyph.text !== '\n' && line.length < WIDTH) continue;
    const afterSpace = glyph.text === '\n' ? line.length : line.findLastIndex(({ text }) => text === ' ') + 1;
    const rest = line.splice(afterSpace || line.length);
    lines.push(line);
    line = rest;
  }
  return [...lines, line].filter(({ length }) => length > 0);
}

function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;
}
