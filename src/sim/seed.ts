import { createHash } from "node:crypto";

/**
 * Values derived from a request: the same request gives the same bytes, on every machine and in
 * every run, so a failing test can be replayed from its prompt alone.
 */
export interface Seed {
  /** `length` lower-case hex characters (at most 64) for one label. */
  hex(label: string, length: number): string;
  /** `length` characters of the base-62 alphabet (at most 32), as providers use in ids. */
  id(label: string, length: number): string;
  /** An integer in [0, below). */
  int(label: string, below: number): number;
  /** One of the items, which must not be empty. */
  pick<T>(label: string, items: readonly T[]): T;
}

const BASE_62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/** The seed of some request parts. Parts are length-prefixed, so ("a", "bc") differs from ("ab", "c"). */
export function seedOf(...parts: readonly string[]): Seed {
  const root = digest(parts.map((part) => `${part.length}:${part}`).join(""));
  const bytesOf = (label: string): Buffer => digest(`${root.toString("hex")}/${label}`);
  const int = (label: string, below: number): number => bytesOf(label).readUIntBE(0, 6) % below;
  return {
    hex: (label, length) => bytesOf(label).toString("hex").slice(0, length),
    id: (label, length) =>
      Array.from(bytesOf(label).subarray(0, length), (byte) => BASE_62[byte % 62]).join(""),
    int,
    pick: (label, items) => {
      const item = items[int(label, items.length)];
      if (item === undefined) throw new Error(`nothing to pick from for ${label}`);
      return item;
    },
  };
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
