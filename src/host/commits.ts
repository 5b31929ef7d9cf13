import { WriteConflict } from "./database";
import { indexKeys, nextDocument, packDocument, parseDocument, storedKey } from "./entries";
import type { ReadSet } from "./intervals";
import { mayHoldPlaceholder, resolvePlaceholders, type JsonObject } from "./json";
import type { Overlay, Write } from "./overlay";
import type { StoreWrite } from "./store";

/** One key that a commit put or took away, as far as others may have read it. */
interface Touched {
  readonly ts: number;
  readonly table: string;
  readonly index: number;
  readonly key: string;
}

/** A commit ready for the store. */
export interface PlannedCommit {
  readonly ts: number;
  readonly writes: readonly StoreWrite[];
  readonly idsByTable: ReadonlyMap<string, readonly string[]>;
  readonly touched: readonly Touched[];
}

const NANOSECONDS_PER_MICROSECOND = 1_000n;

/**
 * What was committed since the oldest open mutation began, on disk or not yet, by index: a
 * transaction compares only what it read with what happened there.
 */
export class CommitLog {
  readonly #byIndex = new Map<number, Touched[]>();

  add(touched: readonly Touched[]): void {
    for (const one of touched) {
      const ofIndex = this.#byIndex.get(one.index);
      if (ofIndex === undefined) this.#byIndex.set(one.index, [one]);
      else ofIndex.push(one);
    }
  }

  /** Throws when a commit after `snapshotTs` touched what was read. */
  checkConflicts(reads: ReadSet, snapshotTs: number): void {
    for (const index of reads.indexNumbers()) {
      const touched = this.#byIndex.get(index) ?? [];
      for (let i = firstAfter(touched, snapshotTs); i < touched.length; i++) {
        const one = touched[i];
        if (one !== undefined && reads.covers(index, one.key)) throw new WriteConflict(one.table);
      }
    }
  }

  /** Forgets what every open transaction began after. */
  prune(oldestSnapshotTs: number): void {
    for (const [index, touched] of this.#byIndex) {
      const start = firstAfter(touched, oldestSnapshotTs);
      if (start === touched.length) this.#byIndex.delete(index);
      else if (start > 0) this.#byIndex.set(index, touched.slice(start));
    }
  }
}

function firstAfter(touched: readonly Touched[], ts: number): number {
  let low = 0;
  let high = touched.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((touched[middle]?.ts ?? 0) <= ts) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Works out the stored changes of a transaction at its commit timestamp. */
export function planCommit(overlay: Overlay, ts: number): PlannedCommit {
  const writes: StoreWrite[] = [];
  const touched: Touched[] = [];
  const idsByTable = new Map<string, string[]>();
  for (const pending of overlay.all()) {
    const { table, id, base } = pending;
    const next = resolvedNext(pending, ts);
    if (base === null && next === null) continue;
    const ids = idsByTable.get(table.name);
    if (ids === undefined) idsByTable.set(table.name, [id]);
    else ids.push(id);
    const oldKeys = base === null ? [] : indexKeys(table, parseDocument(base), id);
    for (const [place, index] of table.indexes.entries()) {
      const before = oldKeys[place];
      const after = next?.keys[place];
      if (before !== undefined)
        touched.push({ ts, table: table.name, index: index.number, key: before });
      if (after !== undefined && after !== before) {
        touched.push({ ts, table: table.name, index: index.number, key: after });
      }
      if (before !== undefined && before !== after) {
        writes.push([storedKey(table, index, before), null]);
      }
      if (after === undefined || next === null) continue;
      if (place === 0) {
        writes.push([storedKey(table, index, after), packDocument(next.text, next.bytes)]);
      } else if (after !== before) {
        writes.push([storedKey(table, index, after), ""]);
      }
    }
  }
  return { ts, writes, idsByTable, touched };
}

/** The document to store: where it refers to the commit's timestamp, that is now known. */
function resolvedNext({ table, id, next }: Write, ts: number): Write["next"] {
  if (next === null || !mayHoldPlaceholder(next.text)) return next;
  const timestampNs = BigInt(ts) * NANOSECONDS_PER_MICROSECOND;
  const value = resolvePlaceholders(next.value, timestampNs) as JsonObject;
  return nextDocument(table, id, value, next.bytes);
}
