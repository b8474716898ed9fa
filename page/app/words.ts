/** Figures in words. */

export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count.toLocaleString('en')} ${count === 1 ? one : many}`;
}

export function percent(share: number): string {
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
}

const UNITS = ['bytes', 'kB', 'MB', 'GB'];

export function bytesText(numBytes: number): string {
  const power = numBytes < 1000 ? 0 : Math.min(3, Math.floor(Math.log10(numBytes) / 3));
  return `${(numBytes / 1000 ** power).toFixed(power === 0 ? 0 : 1)} ${UNITS[power]}`;
}
