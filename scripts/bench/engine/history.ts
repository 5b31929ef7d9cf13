import { mayHoldPlaceholder, resolvePlaceholders, type JsonObject } from "../../../src/host/json";
import { StoredDocument } from "./tables";
import type { Transaction, Write } from "./transaction";

/** Commits kept to compare with; no transaction stays open for longer than that many. */
const COMMITS_KEPT = 4_000;
const NANOSECONDS_PER_MILLISECOND = 1_000_000n;

/** The latest commits, by their numbers: two may fall on one moment. */
export class History {
  readonly #commits: { readonly number: number; readonly writes: readonly Write[] }[] = [];
  #committed = 0;

  /** The number of the latest commit. */
  get committed(): number {
    return this.#committed;
  }

  add(writes: readonly Write[]): void {
    if (writes.length === 0) return;
    this.#committed += 1;
    this.#commits.push({ number: this.#committed, writes });
    if (this.#commits.length > COMMITS_KEPT) this.#commits.splice(0, COMMITS_KEPT / 2);
  }

  /** What a transaction depends on that commits after the ones it saw have changed. */
  conflictSince(transaction: Transaction, seen: number): string | null {
    for (let i = this.#commits.length - 1; i >= 0; i--) {
      const commit = this.#commits[i];
      if (commit === undefined || commit.number <= seen) return null;
      const hot = transaction.conflict(commit.writes);
      if (hot !== null) return hot;
    }
    return null;
  }

  forget(): void {
    this.#commits.length = 0;
  }
}

/** The write with the commit's time where the function left a placeholder for it. */
export function resolved(write: Write, atMs: number): Write {
  const { after, id, table } = write;
  if (after === null || table.isSystem || !mayHoldPlaceholder(after.text)) return write;
  const ns = BigInt(Math.floor(atMs * 1_000)) * (NANOSECONDS_PER_MILLISECOND / 1_000n);
  const value = resolvePlaceholders(after.value, ns) as JsonObject;
  return { ...write, after: new StoredDocument(table, id, value) };
}
