const CHUNK_MAX = 512;

/** Keys of one index in order; finding, adding and removing one is logarithmic at any size. */
export class SortedKeys {
  readonly #chunks: string[][] = [];

  add(key: string): void {
    const place = Math.min(this.#chunkOf(key), this.#chunks.length - 1);
    const chunk = this.#chunks[place];
    if (chunk === undefined) {
      this.#chunks.push([key]);
      return;
    }
    chunk.splice(firstAtOrAbove(chunk, key), 0, key);
    if (chunk.length > CHUNK_MAX) {
      this.#chunks.splice(place + 1, 0, chunk.splice(CHUNK_MAX / 2));
    }
  }

  remove(key: string): void {
    const place = this.#chunkOf(key);
    const chunk = this.#chunks[place];
    const at = chunk === undefined ? 0 : firstAtOrAbove(chunk, key);
    if (chunk?.[at] !== key) throw new Error("The key is not in the index.");
    chunk.splice(at, 1);
    if (chunk.length === 0) this.#chunks.splice(place, 1);
  }

  clear(): void {
    this.#chunks.length = 0;
  }

  /** The smallest key that is not below `bound`. */
  firstFrom(bound: string): string | undefined {
    const chunk = this.#chunks[this.#chunkOf(bound)];
    return chunk?.[firstAtOrAbove(chunk, bound)];
  }

  /** The largest key below `bound`. */
  lastBefore(bound: string): string | undefined {
    const place = this.#chunkOf(bound);
    const chunk = this.#chunks[place];
    const at = chunk === undefined ? 0 : firstAtOrAbove(chunk, bound);
    return at > 0 ? chunk?.[at - 1] : this.#chunks[place - 1]?.at(-1);
  }

  /** The first chunk that reaches up to `key`; one past the end where none does. */
  #chunkOf(key: string): number {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#chunks[middle]?.at(-1) ?? "") < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function firstAtOrAbove(keys: readonly string[], bound: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((keys[middle] ?? "") < bound) low = middle + 1;
    else high = middle;
  }
  return low;
}
