/** What a user of a browser's types writes. It is only compiled: the platform's own objects fit where they are asked for. */
import { type Model, openModel } from 'xmoe/model';

export function open(source: string | URL | Blob | ReadableStream<Uint8Array>, signal: AbortSignal): Promise<Model> {
  return openModel(source, { signal, onProgress: (numBytes, total) => console.log(numBytes / total) });
}

export async function download(address: string): Promise<Model> {
  const { body } = await fetch(address);
  // @ts-expect-error: a stream of text
  openModel(new ReadableStream<string>());
  return openModel(body!);
}
