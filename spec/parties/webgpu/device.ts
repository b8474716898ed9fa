/** WebGPU in Node, through Dawn: a device, kernels of one thread for each element, and buffers that live for a call. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';

export interface Gpu {
  /** Vendor, architecture, driver. */
  readonly about: string;
  /** A kernel of source `wgsl`, whose entry point is `main`; compiled once. */
  kernel(wgsl: string): Kernel;
  /** Numbers on the GPU; at least one, since WebGPU has no empty buffers. */
  upload(numbers: Float32Array | Uint32Array): Buffer;
  /** Room for `length` floats. */
  room(length: number): Buffer;
  /** Run a kernel on `numThreads` threads or more: binding 0 is the uniform `numbers`, 1, 2, … are the buffers. */
  run(kernel: Kernel, numbers: readonly number[], buffers: readonly Buffer[], numThreads: number): void;
  /** The floats of buffers, when all that was asked to run has run. */
  read(...buffers: readonly Buffer[]): Promise<Float32Array[]>;
  /** Free every buffer. */
  free(): void;
  close(): void;
}

export const WORKGROUP = 64;
const MOST_WORKGROUPS = 65535;

const peers = createRequire(new URL('../../../../spec/peers/package.json', import.meta.url));

/** The software driver of Debian's chromium, for a machine without a GPU. */
const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json';

/** A device, or why there is none: by the driver that Vulkan's loader finds, or VK_ICD_FILENAMES names, or in software. */
export async function openGpu(): Promise<Gpu | string> {
  const webgpu = await load();
  if (!webgpu) return 'the package webgpu is not there: npm ci --prefix spec/peers --ignore-scripts';
  const found = (await adapterOf(webgpu)) ?? (await softwareAdapterOf(webgpu));
  if (!found) {
    return 'WebGPU has no adapter. Without a GPU: apt-get install libvulkan1 chromium, whose vk_swiftshader_icd.json is a driver; elsewhere VK_ICD_FILENAMES may name one';
  }
  const { vendor, architecture, description } = found.adapter.info;
  return gpuOf(await found.adapter.requestDevice(), [vendor, architecture, description].join(' '), found.instance);
}

async function adapterOf({ create }: WebGpuPackage) {
  const instance = create([]);
  const adapter = await instance.requestAdapter();
  return adapter ? { instance, adapter } : undefined;
}

async function softwareAdapterOf(webgpu: WebGpuPackage) {
  if (process.env.VK_ICD_FILENAMES !== undefined || !existsSync(SWIFTSHADER)) return undefined;
  process.env.VK_ICD_FILENAMES = SWIFTSHADER;
  return adapterOf(webgpu);
}

async function load(): Promise<WebGpuPackage | undefined> {
  try {
    return (await import(peers.resolve('webgpu'))) as WebGpuPackage;
  } catch {
    return undefined;
  }
}

/** `instance` is held, since the device dies with it. */
function gpuOf(device: Device, about: string, instance: unknown): Gpu & { instance: unknown } {
  let buffers: Buffer[] = [];
  let kernels = new Map<string, Kernel>();
  const make = (size: number, usage: number) => {
    const buffer = device.createBuffer({ size: Math.max(size, 4), usage });
    buffers.push(buffer);
    return buffer;
  };
  const filled = (numbers: Float32Array | Uint32Array, usage: number) => {
    const buffer = make(numbers.byteLength, usage | USAGE.copyTo);
    device.queue.writeBuffer(buffer, 0, numbers);
    return buffer;
  };
  return {
    instance,
    about,
    kernel(wgsl) {
      const known = kernels.get(wgsl);
      if (known) return known;
      const module = device.createShaderModule({ code: wgsl });
      const kernel = device.createComputePipeline({ layout: 'auto', compute: { module, entryPoint: 'main' } });
      kernels.set(wgsl, kernel);
      return kernel;
    },
    upload: numbers => filled(numbers, USAGE.storage),
    room: length => make(4 * length, USAGE.storage | USAGE.copyFrom),
    run(kernel, numbers, given, numThreads) {
      if (numThreads === 0) return;
      const all = [filled(Uint32Array.from(numbers), USAGE.uniform), ...given];
      const entries = all.map((buffer, binding) => ({ binding, resource: { buffer } }));
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(kernel);
      pass.setBindGroup(0, device.createBindGroup({ layout: kernel.getBindGroupLayout(0), entries }));
      pass.dispatchWorkgroups(Math.min(Math.ceil(numThreads / WORKGROUP), MOST_WORKGROUPS));
      pass.end();
      device.queue.submit([encoder.finish()]);
    },
    async read(...wanted) {
      const encoder = device.createCommandEncoder();
      const copies = wanted.map(buffer => {
        const copy = make(buffer.size, USAGE.mapRead | USAGE.copyTo);
        encoder.copyBufferToBuffer(buffer, 0, copy, 0, buffer.size);
        return copy;
      });
      device.queue.submit([encoder.finish()]);
      await Promise.all(copies.map(copy => copy.mapAsync(1)));
      return copies.map(copy => new Float32Array(copy.getMappedRange().slice(0)));
    },
    free() {
      for (const buffer of buffers) buffer.destroy();
      buffers = [];
    },
    close() {
      this.free();
      kernels = new Map();
      device.destroy();
    },
  };
}

/** GPUBufferUsage. */
const USAGE = { mapRead: 0x1, copyFrom: 0x4, copyTo: 0x8, uniform: 0x40, storage: 0x80 } as const;

/** The little of the package and of WebGPU's interface that is used here. */
interface WebGpuPackage {
  create(options: readonly string[]): { requestAdapter(): Promise<Adapter | null> };
}

interface Adapter {
  readonly info: { readonly vendor: string; readonly architecture: string; readonly description: string };
  requestDevice(): Promise<Device>;
}

interface Device {
  readonly queue: {
    writeBuffer(buffer: Buffer, offset: number, numbers: Float32Array | Uint32Array): void;
    submit(commands: readonly unknown[]): void;
  };
  createBuffer(descriptor: { size: number; usage: number }): Buffer;
  createShaderModule(descriptor: { code: string }): unknown;
  createComputePipeline(descriptor: object): Kernel;
  createBindGroup(descriptor: object): unknown;
  createCommandEncoder(): {
    beginComputePass(): {
      setPipeline(kernel: Kernel): void;
      setBindGroup(index: number, group: unknown): void;
      dispatchWorkgroups(count: number): void;
      end(): void;
    };
    copyBufferToBuffer(from: Buffer, fromOffset: number, to: Buffer, toOffset: number, size: number): void;
    finish(): unknown;
  };
  destroy(): void;
}

export interface Kernel {
  getBindGroupLayout(index: number): unknown;
}

export interface Buffer {
  readonly size: number;
  mapAsync(mode: number): Promise<void>;
  getMappedRange(): ArrayBuffer;
  destroy(): void;
}
