/** A safetensors file that is still arriving: header first, then tensor by tensor. */
import { Arriving } from './arriving.js';
import type { Tensor } from './dtype.js';
import { wrongLength } from './layout.js';
import { type FileHeader, readHeader } from './read-header.js';

export interface ArrivingFile extends Omit<FileHeader, 'dataStart'> {
  /**
   * Each tensor when its bytes are there: all that is held of the file is the tensor given out last.
   *
   * @throws SafetensorsError where the file ends too early or goes on
   */
  tensors(): AsyncGenerator<[name: string, tensor: Tensor], void>;
}

/**
 * Wait for the header, and judge it as `readSafetensors` does. Memory grows with what has arrived, whatever a header says.
 *
 * @param chunks the bytes of the file, in pieces of any size
 * @param fileLength where it is known: a header that does not fit it is refused at once
 * @throws SafetensorsError
 */
export async function readArriving(chunks: AsyncIterator<Uint8Array>, fileLength?: number): Promise<ArrivingFile> {
  const bytes = new Arriving(chunks);
  const { metadata, entries, dataStart, numBytes } = await readHeader(length => bytes.take(length), fileLength);

  async function* tensors(): AsyncGenerator<[string, Tensor], void> {
    for (const { name, dtype, shape, begin, end } of entries.values()) {
      const data = await bytes.take(end - begin);
      if (data.length < end - begin) throw wrongLength(numBytes - dataStart, begin + data.length);
      yield [name, { dtype, shape, bytes: data }];
    }
    if ((await bytes.take(1)).length > 0) throw wrongLength(numBytes - dataStart, 'more');
  }
  return { metadata, entries, numBytes, tensors };
}
