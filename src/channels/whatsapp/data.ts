import { KIB, utf8Bytes } from "../../core/bytes";

/** JSON kept of what a message holds: an order of about 70 items, a long form of answers. */
export const DATA_BYTES_MAX = 8 * KIB;

export interface BoundedData {
  /** JSON text; null where nothing whole would fit. */
  readonly json: string | null;
  readonly truncated: boolean;
}

/**
 * A text of less than this part of the bound is kept whole or not at all, since it may be an
 * identifier; of a longer one the beginning is kept.
 */
const CUT_PART_OF_BOUND = 8;

/** What is kept of a value, with the bytes of its JSON text. */
interface Kept {
  readonly value: unknown;
  readonly bytes: number;
}

interface Room {
  readonly bytes: number;
  /** Texts of fewer bytes are not cut. */
  readonly cutFromBytes: number;
}

/**
 * An object as JSON text of at most `bytesMax` bytes. Beyond that it keeps, at every level, the
 * small fields before the large ones; of a list the items that fit, from the first on; of one that
 * is too large by itself a part, in the same way; and of a long text the beginning. Nothing is kept
 * empty that was not, which would say that there was nothing. What remains is JSON that a program
 * can read, in the order it came, and well-formed Unicode: JSON spells half a surrogate pair as an
 * escape.
 */
export function boundData(
  value: Readonly<Record<string, unknown>>,
  bytesMax = DATA_BYTES_MAX,
): BoundedData {
  const whole = JSON.stringify(value);
  if (utf8Bytes(whole) <= bytesMax) return { json: whole, truncated: false };
  const kept = partOf(value, { bytes: bytesMax, cutFromBytes: bytesMax / CUT_PART_OF_BOUND });
  return { json: kept === null ? null : JSON.stringify(kept.value), truncated: true };
}

const jsonBytes = (value: unknown): number => utf8Bytes(JSON.stringify(value));

/** The part of a value that fits, where the whole does not. Goes as deep as bodies, which is bounded. */
function partOf(value: unknown, room: Room): Kept | null {
  if (typeof value === "string") return beginningOf(value, room);
  if (Array.isArray(value)) return itemsWithin(value, room);
  if (typeof value === "object" && value !== null) return fieldsWithin(value, room);
  return null;
}

function fieldsWithin(fields: object, room: Room): Kept | null {
  const sized = Object.entries(fields).map(([key, value]: [string, unknown]) => ({
    ...{ key, value, bytes: jsonBytes(value) },
    nameBytes: jsonBytes(key) + ":".length,
  }));
  const kept = new Map<string, unknown>();
  let used = "{}".length;
  for (const { key, value, bytes, nameBytes } of sized.toSorted((a, b) => a.bytes - b.bytes)) {
    const before = used + nameBytes + (kept.size === 0 ? 0 : ",".length);
    const left = room.bytes - before;
    const part = bytes <= left ? { value, bytes } : partOf(value, { ...room, bytes: left });
    if (part === null) continue;
    kept.set(key, part.value);
    used = before + part.bytes;
  }
  if (kept.size === 0) return null;
  const inOrder = sized.filter(({ key }) => kept.has(key));
  return { value: Object.fromEntries(inOrder.map(({ key }) => [key, kept.get(key)])), bytes: used };
}

function itemsWithin(items: readonly unknown[], room: Room): Kept | null {
  const kept = new Map<number, unknown>();
  const tooLarge: number[] = [];
  let used = "[]".length;
  const keep = (index: number, find: (left: number) => Kept | null): void => {
    const before = used + (kept.size === 0 ? 0 : ",".length);
    const part = find(room.bytes - before);
    if (part === null) return;
    kept.set(index, part.value);
    used = before + part.bytes;
  };
  for (const [index, value] of items.entries()) {
    if (used >= room.bytes) break;
    const bytes = jsonBytes(value);
    if (bytes + "[]".length > room.bytes) tooLarge.push(index);
    else keep(index, (left) => (bytes <= left ? { value, bytes } : null));
  }
  for (const index of tooLarge)
    keep(index, (left) => partOf(items[index], { ...room, bytes: left }));
  if (kept.size === 0) return null;
  const indexes = [...kept.keys()].toSorted((a, b) => a - b);
  return { value: indexes.map((index) => kept.get(index)), bytes: used };
}

/** The characters of a long text that fit, as JSON spells them. */
function beginningOf(text: string, room: Room): Kept | null {
  if (jsonBytes(text) < room.cutFromBytes) return null;
  let length = 0;
  let used = '""'.length;
  for (const character of text) {
    const bytes = jsonBytes(character) - '""'.length;
    if (used + bytes > room.bytes) break;
    used += bytes;
    length += character.length;
  }
  return length === 0 ? null : { value: text.slice(0, length), bytes: used };
}
