/** A model file of which parts are read when they are wanted. */
import type { Tensor } from '../safetensors/index.js';
import { type PartedFile, type ReadRange, readParts } from '../safetensors/parts.js';
import { checkTensors } from './assemble.js';
import { type ModelConfig, parseConfig } from './config.js';
import { openRanges, type Ranges } from './ranges.js';
import type { Abort, ModelSource } from './source-types.js';

/** A file whose header is there and fits. */
export class ModelParts {
  readonly config: ModelConfig;
  readonly #ranges: Ranges;
  readonly #file: PartedFile;
  #bytesRead: number;

  private constructor(ranges: Ranges, file: PartedFile, config: ModelConfig) {
    this.#ranges = ranges;
    this.#file = file;
    this.#bytesRead = file.dataStart;
    this.config = config;
  }

  /**
   * Open a source whose parts can be read, and check the header as `openModel` does.
   *
   * @throws as `openModel`; TypeError for a stream
   */
  static async open(source: ModelSource, signal: Abort | undefined): Promise<ModelParts> {
    const ranges = await openRanges(source, signal);
    try {
      const file = await readParts((start, end) => ranges.read(start, end, signal), ranges.length);
      const config = parseConfig(file.metadata.get('config'));
      checkTensors(config, file.entries);
      return new ModelParts(ranges, file, config);
    } catch (error) {
      await ranges.close();
      throw error;
    }
  }

  /** Of the header, and of all tensors and elements that were read. */
  get bytesRead(): number {
    return this.#bytesRead;
  }

  /**
   * These tensors, in order of their data.
   *
   * @param onProgress told at once and at every piece: bytes read so far, and when these tensors are there
   * @throws SourceError; the reason of an abort
   */
  tensors(
    names: Iterable<string>,
    signal: Abort | undefined,
    onProgress: (numBytes: number, total: number) => void = () => {},
  ): AsyncGenerator<[name: string, tensor: Tensor], void> {
    const wanted = [...names];
    const total = this.#bytesRead + this.#file.numBytesOf(wanted);
    onProgress(this.#bytesRead, total);
    const read = this.#reading(signal);
    return this.#file.tensors(wanted, async (start, end) => {
      const bytes = await read(start, end);
      onProgress(this.#bytesRead, total);
      return bytes;
    });
  }

  /** Element `index` of a tensor's first dimension. @throws as `tensors` */
  element(name: string, index: number, signal: Abort): Promise<Tensor> {
    return this.#file.element(name, index, this.#reading(signal));
  }

  /** Lets the source go; what is under way is rejected. Twice is once. */
  close(): Promise<void> {
    return this.#ranges.close();
  }

  #reading(signal: Abort | undefined): ReadRange {
    return async (start, end) => {
      const bytes = await this.#ranges.read(start, end, signal);
      this.#bytesRead += bytes.length;
      return bytes;
    };
  }
}
