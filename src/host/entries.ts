import { indexKey, indexPrefix, type IndexInfo, type TableInfo } from "./catalog";
import type { Interval } from "./intervals";
import type { JsonObject } from "./json";
import { afterPrefix } from "./keys";
import type { NextDocument } from "./overlay";
import type { Snapshot, Store } from "./store";

/**
 * How keys and documents lie in the store. A document is its size in four base-36 digits and its
 * JSON text, so that a read can be counted and handed on without parsing. A key longer than the
 * store takes keeps its beginning and its id: entries that begin alike are put in order by reading
 * their documents.
 */

const SIZE_RADIX = 36;
const SIZE_DIGITS = 4;
const PREFIX_CHARS = 3;
// With the index number and the longest id this stays below the store's 1,978 bytes.
const VALUES_CHARS_MAX = 1_900;

export function packDocument(text: string, bytes: number): string {
  return bytes.toString(SIZE_RADIX).padStart(SIZE_DIGITS, "0") + text;
}

export function documentText(packed: string): string {
  return packed.slice(SIZE_DIGITS);
}

export function documentBytes(packed: string): number {
  return Number.parseInt(packed.slice(0, SIZE_DIGITS), SIZE_RADIX);
}

export function parseDocument(packed: string): JsonObject {
  return JSON.parse(documentText(packed)) as JsonObject;
}

/** The key under which an index entry is stored. */
export function storedKey(table: TableInfo, index: IndexInfo, key: string): string {
  const valuesChars = key.length - table.idLength;
  const shown =
    valuesChars > VALUES_CHARS_MAX ? key.slice(0, VALUES_CHARS_MAX) + key.slice(valuesChars) : key;
  return indexPrefix(index.number) + shown;
}

/** Where the document itself is stored. */
export function documentKey(table: TableInfo, id: string): string {
  return indexPrefix(table.indexes[0].number) + id;
}

/** Everything that is stored of a document: its text and its key in each index. */
export function nextDocument(
  table: TableInfo,
  id: string,
  value: JsonObject,
  bytes: number,
): NextDocument {
  return { value, text: JSON.stringify(value), bytes, keys: indexKeys(table, value, id) };
}

/** A document's key in each index of its table. */
export function indexKeys(table: TableInfo, value: JsonObject, id: string): readonly string[] {
  return table.indexes.map((index) => indexKey(index, value, id));
}

/** All stored keys of an index. */
export function wholeIndex(indexNumber: number): Interval {
  const prefix = indexPrefix(indexNumber);
  return { lower: prefix, upper: afterPrefix(prefix) };
}

export interface Stretch {
  readonly table: TableInfo;
  readonly index: IndexInfo;
  readonly interval: Readonly<Interval>;
  readonly descending: boolean;
}

/**
 * Full keys of the first entries of a stretch, in order: at least `limit` of them unless the
 * stretch ends before.
 */
export function readKeys(
  store: Store,
  snapshot: Snapshot,
  stretch: Stretch,
  limit: number,
): string[] {
  const { table, index, interval, descending } = stretch;
  const prefix = indexPrefix(index.number);
  const longChars = PREFIX_CHARS + VALUES_CHARS_MAX + table.idLength;
  let lower = prefix + clip(interval.lower);
  let upper = prefix + interval.upper;
  if (interval.upper.length > VALUES_CHARS_MAX) upper = prefix + afterPrefix(clip(interval.upper));
  const keys: string[] = [];
  for (;;) {
    const rest = { lower, upper, reverse: descending, limit: limit - keys.length };
    const stored = store.keys(snapshot, rest);
    const long = stored.find((key) => key.length >= longChars);
    for (const key of stored) {
      if (key === long) break;
      keys.push(key.slice(PREFIX_CHARS));
    }
    if (long === undefined) return keys;
    const group = long.slice(PREFIX_CHARS, PREFIX_CHARS + VALUES_CHARS_MAX);
    keys.push(...readLongKeys(store, snapshot, stretch, group));
    if (keys.length >= limit) return keys;
    // Go on behind the group: no full key outside it falls into it.
    if (descending) upper = prefix + group;
    else lower = prefix + afterPrefix(group);
  }
}

function clip(key: string): string {
  return key.slice(0, VALUES_CHARS_MAX);
}

/** The full keys of all entries whose stored keys begin with `group`, inside the stretch. */
function readLongKeys(
  store: Store,
  snapshot: Snapshot,
  { table, index, interval, descending }: Stretch,
  group: string,
): string[] {
  const prefix = indexPrefix(index.number);
  const stored = store.keys(snapshot, {
    lower: prefix + group,
    upper: prefix + afterPrefix(group),
  });
  const keys = stored
    .map((key) => {
      const id = key.slice(-table.idLength);
      const packed = store.get(snapshot, documentKey(table, id));
      if (packed === undefined) throw new Error(`The entry of ${id} has no document.`);
      return indexKey(index, parseDocument(packed), id);
    })
    .filter((key) => key >= interval.lower && key < interval.upper)
    .sort((a, b) => (a < b ? -1 : 1));
  return descending ? keys.reverse() : keys;
}
