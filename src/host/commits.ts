import { WriteConflict } from "./database";
import { indexKeys, nextDocument, packDocument, parseDocument, storedKey } from "./entries";
import type { ReadSet } from "./intervals";
import { mayHoldPlaceholder, resolvePlaceholders, type JsonObject } from "./json";
import type { Overlay, Write } from "./overlay";
import type { StoreWrite } from "./store";

/** What one commit changed, as far as others may have read it. */
interface LoggedCommit {
  readonly ts: number;
  readonly touched: readonly {
    readonly table: string;
    readonly index: number;
    readonly key: string;
  }[];
}

/** A commit ready for the store. */
export interface PlannedCommit {
  readonly ts: number;
  readonly writes: readonly StoreWrite[];
  readonly idsByTable: ReadonlyMap<string, readonly string[]>;
  readonly logged: LoggedCommit;
}

const NANOSECONDS_PER_MICROSECOND = 1_000n;

/** The commits that some open transaction has not seen, whether they are on disk yet or not. */
export class CommitLog {
  #commits: LoggedCommit[] = [];

  add(commit: LoggedCommit): void {
    this.#commits.push(commit);
  }

  /** Throws when a commit after `snapshotTs` touched what was read. */
  checkConflicts(reads: ReadSet, snapshotTs: number): void {
    const start = this.#firstAfter(snapshotTs);
    if (start === this.#commits.length) return;
    reads.seal();
    for (let i = start; i < this.#commits.length; i++) {
      for (const { table, index, key } of this.#commits[i]?.touched ?? []) {
        if (reads.covers(index, key)) throw new WriteConflict(table);
      }
    }
  }

  /** Forgets what every open transaction began after. */
  prune(oldestSnapshotTs: number): void {
    const start = this.#firstAfter(oldestSnapshotTs);
    if (start > 0) this.#commits = this.#commits.slice(start);
  }

  get length(): number {
    return this.#commits.length;
  }

  #firstAfter(ts: number): number {
    let low = 0;
    let high = this.#commits.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#commits[middle]?.ts ?? 0) <= ts) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Works out the stored changes of a transaction at its commit timestamp. */
export function planCommit(overlay: Overlay, ts: number): PlannedCommit {
  const writes: StoreWrite[] = [];
  const touched: { table: string; index: number; key: string }[] = [];
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
        touched.push({ table: table.name, index: index.number, key: before });
      if (after !== undefined && after !== before) {
        touched.push({ table: table.name, index: index.number, key: after });
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
  return { ts, writes, idsByTable, logged: { ts, touched } };
}

/** The document to store: where it refers to the commit's timestamp, that is now known. */
function resolvedNext({ table, id, next }: Write, ts: number): Write["next"] {
  if (next === null || !mayHoldPlaceholder(next.text)) return next;
  const timestampNs = BigInt(ts) * NANOSECONDS_PER_MICROSECOND;
  const value = resolvePlaceholders(next.value, timestampNs) as JsonObject;
  return nextDocument(table, id, value, next.bytes);
}
