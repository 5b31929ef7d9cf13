import { createCipheriv } from "node:crypto";

const POOL_BYTES = 1024;
const SEED_BYTES = 32;

/**
 * Randomness of one run of a query or mutation: a key stream, so that the same seed gives the same
 * run, and a token made from it is as good as the seed.
 */
export class SeededRandom {
  readonly #stream: ReturnType<typeof createCipheriv>;
  #pool = Buffer.alloc(0);
  #used = 0;

  /** `uniform` gives the seed; it is called a fixed number of times. */
  constructor(uniform: () => number) {
    const seed = Buffer.alloc(SEED_BYTES);
    for (let at = 0; at < SEED_BYTES; at++) seed[at] = Math.floor(uniform() * 256);
    this.#stream = createCipheriv("chacha20", seed, Buffer.alloc(16));
  }

  /** Uniform in [0, 1), with 53 bits. */
  next(): number {
    const bytes = this.bytes(8);
    const high = bytes.readUInt32LE(0) >>> 6;
    const low = bytes.readUInt32LE(4) >>> 5;
    return (high * 2 ** 27 + low) / 2 ** 53;
  }

  bytes(count: number): Buffer {
    if (this.#pool.length - this.#used < count) {
      this.#pool = this.#stream.update(Buffer.alloc(Math.max(POOL_BYTES, count)));
      this.#used = 0;
    }
    this.#used += count;
    return this.#pool.subarray(this.#used - count, this.#used);
  }

  uuid(): string {
    const bytes = Buffer.from(this.bytes(16));
    bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
    bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
    return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  }
}
