import { KIB, utf8Bytes } from "../../core/bytes";

/** JSON kept of what a message holds: an order of about 70 items, a long form of answers. */
export const DATA_BYTES_MAX = 8 * KIB;

export interface BoundedData {
  /** JSON text; null where nothing whole would fit. */
  readonly json: string | null;
  readonly truncated: boolean;
}

/**
 * An object as JSON text of at most `bytesMax` bytes. Beyond that the largest list in it keeps the
 * items that fit, from the first on: each of them is whole, and what remains is JSON that a program
 * can read. Without such a list nothing is kept, because half a text is no answer. The text is
 * well-formed Unicode: JSON spells half a surrogate pair as an escape.
 */
export function boundData(
  value: Readonly<Record<string, unknown>>,
  bytesMax = DATA_BYTES_MAX,
): BoundedData {
  const whole = JSON.stringify(value);
  if (utf8Bytes(whole) <= bytesMax) return { json: whole, truncated: false };
  const list = largestList(value);
  if (list === null) return { json: null, truncated: true };
  const withItems = (count: number): string =>
    JSON.stringify(value, (_key, part: unknown) => (part === list ? list.slice(0, count) : part));
  const count = countWithin(list, bytesMax - utf8Bytes(withItems(0)));
  return { json: count === 0 ? null : withItems(count), truncated: true };
}

/** Of the lists that stand in no other list, the one with the longest text. */
function largestList(value: object): readonly unknown[] | null {
  let largest: readonly unknown[] | null = null;
  let lengthMax = 0;
  for (const list of outerLists(value)) {
    const { length } = JSON.stringify(list);
    if (length > lengthMax) [largest, lengthMax] = [list, length];
  }
  return largest;
}

/** Goes as deep as the body does, which the pipeline bounds. */
function outerLists(value: unknown): readonly (readonly unknown[])[] {
  if (typeof value !== "object" || value === null) return [];
  if (Array.isArray(value)) return [value];
  return Object.values(value).flatMap(outerLists);
}

/** How many items from the first on fit, each with the comma behind it. */
function countWithin(list: readonly unknown[], bytesMax: number): number {
  let bytes = 0;
  for (const [index, item] of list.entries()) {
    bytes += utf8Bytes(JSON.stringify(item)) + 1;
    if (bytes > bytesMax) return index;
  }
  return list.length;
}
