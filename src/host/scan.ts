import type { IndexInfo, TableInfo } from "./catalog";
import { documentBytes, documentKey, documentText, readKeys } from "./entries";
import { scannedUpTo, type Interval, type ReadSet } from "./intervals";
import type { JsonObject } from "./json";
import { afterKey } from "./keys";
import type { Overlay, Write } from "./overlay";
import type { Snapshot, Store } from "./store";

/** What a scan can see: a snapshot below, the transaction's own writes on top. */
export interface View {
  readonly store: Store;
  /** Throws when the snapshot has been closed. */
  snapshot(): Snapshot;
  /** Null for a reader that is blind to the transaction's writes. */
  readonly overlay: Overlay | null;
  /** Null when reads are not to conflict with anything. */
  readonly reads: ReadSet | null;
}

export interface ScanRange {
  readonly table: TableInfo;
  readonly index: IndexInfo;
  readonly interval: Readonly<Interval>;
  readonly descending: boolean;
}

/** One document on the way to the caller. */
export interface Row {
  readonly key: string;
  readonly text: string;
  readonly bytes: number;
  /** Parses the text when it was not parsed before. */
  value(): JsonObject;
}

const FIRST_FETCH = 16;
const FETCH_MAX = 1_024;

/**
 * Walks an index range one document at a time. At each step it gives the next document of the view
 * as it is then, so writes made between steps count, and the read set has grown by what was walked.
 */
export class Scan {
  readonly #view: View;
  readonly #range: ScanRange;
  /** What is left to walk. */
  readonly #left: Interval;
  readonly #tracked: Interval;
  #fetched: string[] = [];
  #position = 0;
  #storeExhausted = false;
  #fetchSize: number;
  #own: readonly (readonly [string, Write])[] = [];
  #ownPosition = 0;
  #ownVersion = -1;
  #ownIds: ReadonlyMap<string, Write> = new Map();

  constructor(view: View, range: ScanRange, expectedRows: number = FIRST_FETCH) {
    this.#view = view;
    this.#range = range;
    this.#left = { ...range.interval };
    this.#fetchSize = Math.min(Math.max(expectedRows, 1), FETCH_MAX);
    const start = range.descending ? range.interval.upper : range.interval.lower;
    this.#tracked = { lower: start, upper: start };
    view.reads?.addRange(range.index.number, this.#tracked);
  }

  next(): Row | null {
    this.#refreshOwn();
    const stored = this.#peekStored();
    const own = this.#own[this.#ownPosition];
    if (own !== undefined && (stored === null || this.#before(own[0], stored))) {
      this.#ownPosition += 1;
      this.#advance(own[0]);
      return ownRow(own[0], own[1]);
    }
    if (stored === null) {
      this.#tracked.lower = this.#range.interval.lower;
      this.#tracked.upper = this.#range.interval.upper;
      return null;
    }
    this.#position += 1;
    this.#advance(stored);
    return this.#storedRow(stored);
  }

  #before(a: string, b: string): boolean {
    return this.#range.descending ? a > b : a < b;
  }

  #advance(key: string): void {
    if (this.#range.descending) this.#left.upper = key;
    else this.#left.lower = afterKey(key);
    scannedUpTo(this.#tracked, this.#range.interval, key, this.#range.descending);
  }

  /** The next key in the store whose document the transaction has not written itself. */
  #peekStored(): string | null {
    for (;;) {
      const key = this.#fetched[this.#position];
      if (key === undefined) {
        if (!this.#fetch()) return null;
      } else if (this.#ownIds.size > 0 && this.#ownIds.has(this.#idOf(key))) {
        this.#position += 1;
      } else {
        return key;
      }
    }
  }

  #fetch(): boolean {
    if (this.#storeExhausted) return false;
    const last = this.#fetched.at(-1);
    const interval = { ...this.#range.interval };
    if (last !== undefined) {
      if (this.#range.descending) interval.upper = last;
      else interval.lower = afterKey(last);
    }
    const limit = this.#fetchSize;
    this.#fetchSize = Math.min(limit * 4, FETCH_MAX);
    this.#fetched = readKeys(
      this.#view.store,
      this.#view.snapshot(),
      { ...this.#range, interval },
      limit,
    );
    this.#position = 0;
    this.#storeExhausted = this.#fetched.length < limit;
    return this.#fetched.length > 0;
  }

  /** Puts the transaction's writes that lie ahead in order, when there are new ones. */
  #refreshOwn(): void {
    const { overlay } = this.#view;
    if (overlay === null || overlay.version === this.#ownVersion) return;
    this.#ownVersion = overlay.version;
    this.#ownIds = overlay.ofTable(this.#range.table.number);
    this.#ownPosition = 0;
    if (this.#ownIds.size === 0) return;
    const { table, index } = this.#range;
    const place = table.indexes.indexOf(index);
    const ahead: (readonly [string, Write])[] = [];
    for (const write of this.#ownIds.values()) {
      const key = write.next?.keys[place];
      if (key === undefined || key < this.#left.lower || key >= this.#left.upper) continue;
      ahead.push([key, write]);
    }
    this.#own = ahead.sort(([a], [b]) => (this.#before(a, b) ? -1 : 1));
  }

  #idOf(key: string): string {
    return key.slice(-this.#range.table.idLength);
  }

  #storedRow(key: string): Row {
    const id = this.#idOf(key);
    const { store } = this.#view;
    const packed = store.get(this.#view.snapshot(), documentKey(this.#range.table, id));
    if (packed === undefined) throw new Error(`The entry of ${id} has no document.`);
    return storedRow(key, packed);
  }
}

export function storedRow(key: string, packed: string): Row {
  const text = documentText(packed);
  return {
    key,
    text,
    bytes: documentBytes(packed),
    value: () => JSON.parse(text) as JsonObject,
  };
}

function ownRow(key: string, write: Write): Row {
  if (write.next === null) throw new Error(`The document ${write.id} is deleted.`);
  const { text, bytes, value } = write.next;
  return { key, text, bytes, value: () => value };
}
