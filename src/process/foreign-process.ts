/** A program of somebody else's, asked one thing at a time over its stdin and stdout. Nothing that it does is trusted. */
import type { ChildProcess } from 'node:child_process';
import { unexpected } from '../check.js';
import { importNode, nodeProcess } from '../node.js';
import { ImplementationError } from '../oracle/search/implementation-error.js';
import type { Finding } from '../oracle/types.js';
import { quote } from '../safetensors/json.js';
import { millisecondsOf } from './milliseconds.js';

export interface ProcessLimits {
  /** Seconds from a question to the end of its answer; the start of the program is part of the first. Infinity: no limit. */
  readonly seconds: number;
  /** Bytes of memory (resident, of the program itself) above which it is ended; looked at on Linux alone. */
  readonly memoryBytes: number;
}

/** Its exit may be seen after its pipes close, or before the last of what it wrote. */
const GRACE_MS = 300;
const MEMORY_POLL_MS = 50;
const STDERR_KEPT = 2000;

interface Question {
  readonly resolve: (answer: Uint8Array) => void;
  readonly reject: (error: ImplementationError) => void;
  readonly maxBytes: number;
  readonly timers: NodeJS.Timeout[];
}

type Modules = Pick<typeof import('node:child_process'), 'spawn'> & Pick<typeof import('node:fs'), 'readFileSync'>;

/** Any failure ends the program: what it would write later belongs to no question. */
export class ForeignProcess {
  readonly #child: ChildProcess;
  readonly #limits: ProcessLimits;
  readonly #readFile: Modules['readFileSync'];
  readonly #endWithUs = () => this.#kill();
  #question: Question | undefined;
  /** What has come of the frame being read; its first 8 bytes are its length. */
  #chunks: Uint8Array[] = [];
  #received = 0;
  #stderr = '';
  #failure: ImplementationError | undefined;
  #exit: string | undefined;

  /** @throws TypeError if there is no such program, or nothing to start it with */
  static async start(command: readonly string[], limits: ProcessLimits): Promise<ForeignProcess> {
    const { spawn, readFileSync } = await nodeModules();
    const [program, ...args] = command;
    try {
      // a group of its own, so that what it started ends with it
      const child = spawn(program, args, { stdio: 'pipe', detached: process.platform !== 'win32' });
      const foreign = new ForeignProcess(child, limits, readFileSync);
      await new Promise<void>((resolve, reject) => child.once('spawn', resolve).once('error', reject));
      process.once('exit', foreign.#endWithUs);
      return foreign;
    } catch (error) {
      throw unexpected(TypeError, 'command', 'a program that starts', (error as Error).message);
    }
  }

  private constructor(child: ChildProcess, limits: ProcessLimits, readFile: Modules['readFileSync']) {
    this.#child = child;
    this.#limits = limits;
    this.#readFile = readFile;
    child.on('error', () => {}); // `start` tells
    child.on('exit', (code, signal) => this.#gone(signal ? `was ended by ${signal}` : `exited with status ${code}`));
    child.stdin!.on('error', () => this.#failSoon('closed its stdin'));
    child.stdout!.on('data', (chunk: Uint8Array) => this.#read(chunk));
    child.stdout!.on('end', () => this.#failSoon('closed its stdout'));
    child.stdout!.on('error', () => this.#failSoon('closed its stdout'));
    child.stderr!.on('data', (chunk: Buffer) => {
      this.#stderr = (this.#stderr + chunk.toString()).slice(-STDERR_KEPT);
    });
    child.stderr!.on('error', () => {});
  }

  /**
   * The answer to one question, both without their lengths, within these seconds.
   * @throws ImplementationError crashed, hung, wrote rubbish or wrote too much; then the program is ended
   */
  ask(question: Uint8Array, maxBytes: number, seconds = this.#limits.seconds): Promise<Uint8Array> {
    if (this.#failure) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      const tooLate = () => this.#fail('hung', `gave no answer within ${seconds} s${this.#soFar()}`);
      const timers = [
        setTimeout(tooLate, millisecondsOf(seconds)),
        setInterval(() => this.#checkMemory(), MEMORY_POLL_MS),
      ];
      this.#question = { resolve, reject, maxBytes, timers };
      const length = new Uint8Array(8);
      new DataView(length.buffer).setBigUint64(0, BigInt(question.length), true);
      this.#child.stdin!.write(length);
      this.#child.stdin!.write(question);
    });
  }

  /** Ends its input, waits a moment, then ends the program and all that it started. */
  async close(): Promise<void> {
    if (this.#exit === undefined) {
      const exited = new Promise(resolve => this.#child.once('exit', resolve));
      this.#child.stdin!.end();
      let timer: NodeJS.Timeout | undefined;
      await Promise.race([exited, new Promise(resolve => (timer = setTimeout(resolve, 1000)))]);
      clearTimeout(timer);
    }
    this.#kill();
    process.removeListener('exit', this.#endWithUs);
  }

  #read(chunk: Uint8Array): void {
    if (this.#failure) return;
    if (!this.#question) {
      this.#fail('wrote rubbish', `wrote what nobody asked for, on stdout: ${preview(chunk)}`);
      return;
    }
    this.#chunks.push(chunk);
    this.#received += chunk.length;
    if (this.#received < 8) return;
    if (this.#chunks.length > 1 && this.#received - chunk.length < 8) this.#chunks = [joined(this.#chunks)];
    const { maxBytes } = this.#question;
    const first = this.#chunks[0];
    const length = Number(new DataView(first.buffer, first.byteOffset).getBigUint64(0, true));
    if (length > maxBytes) {
      // letters are a length of more than 10^18, most likely of a print
      const isText = first
        .subarray(0, 4)
        .every(byte => (byte >= 0x20 && byte < 0x7f) || byte === 0x0a || byte === 0x0d);
      const isSwapped = Number(new DataView(first.buffer, first.byteOffset).getBigUint64(0)) <= maxBytes;
      const hint = isSwapped ? '; the length is little-endian' : '';
      if (isText) this.#fail('wrote rubbish', `wrote text where the length of an answer belongs: ${preview(first)}`);
      else
        this.#fail(
          'wrote too much',
          `announced an answer of ${length} bytes; ${maxBytes} are allowed for this call${hint}`,
        );
    } else if (this.#received > 8 + length) {
      const isBare = Buffer.from(first.subarray(8, 10)).toString('latin1') === '{"'; // JSON, where its own length belongs
      const hint = isBare ? '; is it a safetensors file without the length of the answer before it?' : '';
      this.#fail('wrote too much', `wrote more than the ${length} bytes that its answer was to have${hint}`);
    } else if (this.#received === 8 + length) {
      this.#answer(joined(this.#chunks).subarray(8));
    }
  }

  #answer(bytes: Uint8Array): void {
    const { resolve, reject } = this.#question!;
    this.#endQuestion();
    // what is already on its way behind the answer is a failure of this question
    setImmediate(() => (this.#failure ? reject(this.#failure) : resolve(bytes)));
  }

  #endQuestion(): void {
    this.#question?.timers.forEach(timer => {
      clearTimeout(timer);
    });
    this.#question = undefined;
    this.#chunks = [];
    this.#received = 0;
  }

  #fail(kind: Finding['kind'], what: string): void {
    if (this.#failure) return;
    const said = this.#stderr.trim().split('\n').slice(-3).join('\n');
    this.#failure = new ImplementationError(
      kind,
      `the process ${what}${said && `; its stderr ends with ${quote(said)}`}`,
    );
    const question = this.#question;
    this.#endQuestion();
    this.#kill();
    question?.reject(this.#failure);
  }

  /** Fails what is being asked, unless its answer or a better reason comes first. */
  #failSoon(what: string): void {
    const question = this.#question;
    if (!question) return;
    setTimeout(() => {
      if (this.#question === question) this.#fail('crashed', `${this.#exit ?? what} without an answer${this.#soFar()}`);
    }, GRACE_MS);
  }

  #gone(how: string): void {
    this.#exit = how;
    process.removeListener('exit', this.#endWithUs);
    if (this.#question) this.#failSoon(how);
    else this.#fail('crashed', `${how} after its last answer: it is to go on until its stdin ends`); // told by the next question
  }

  #soFar(): string {
    if (this.#received === 0) return '';
    const head = joined(this.#chunks);
    if (head.length < 8) return `, after ${this.#received} bytes of one`;
    const length = Number(new DataView(head.buffer, head.byteOffset).getBigUint64(0, true));
    const got = this.#received - 8;
    const hint = length - got === 8 ? ': the length counts the bytes behind it, not itself' : '';
    return `, after ${got} of the ${length} bytes that it announced${hint}`;
  }

  #checkMemory(): void {
    const { memoryBytes } = this.#limits;
    const used = this.#residentBytes();
    if (used > memoryBytes)
      this.#fail('crashed', `was ended: it used ${mib(used)} of memory; its limit is ${mib(memoryBytes)}`);
  }

  /** 0 where it cannot be known. */
  #residentBytes(): number {
    try {
      const status = this.#readFile(`/proc/${this.#child.pid}/status`, 'utf8');
      return 1024 * Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0);
    } catch {
      return 0;
    }
  }

  #kill(): void {
    const { pid } = this.#child;
    if (pid === undefined) return;
    try {
      if (process.platform === 'win32') this.#child.kill('SIGKILL');
      else process.kill(-pid, 'SIGKILL');
    } catch {
      // it is gone already
    }
    // what left its group may hold the pipes open, and us with them
    for (const pipe of [this.#child.stdin, this.#child.stdout, this.#child.stderr]) pipe?.destroy();
  }
}

/** Asked for at the call: this module can be imported where there is no Node, and bundled for there. */
async function nodeModules(): Promise<Modules> {
  const { spawn } = nodeProcess() ? await importNode<Modules>('node:child_process') : {};
  const { readFileSync } = spawn ? await importNode<Modules>('node:fs') : {};
  if (spawn && readFileSync) return { spawn, readFileSync };
  throw unexpected(TypeError, 'command', 'a runtime that starts programs', 'one without node:child_process');
}

function mib(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MiB`;
}

function preview(bytes: Uint8Array): string {
  return quote(Buffer.from(bytes.subarray(0, 60)).toString('latin1'));
}

function joined(chunks: readonly Uint8Array[]): Uint8Array {
  return chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
}
