import { encodeId } from "../../../src/host/ids";
import type { Interval } from "../../../src/host/intervals";
import { isObject, untag, type Json, type JsonObject } from "../../../src/host/json";
import { afterKey } from "../../../src/host/keys";
import { Usage } from "./billing";
import type { Random } from "./random";
import { BY_ID, StoredDocument, type Index, type Table } from "./tables";

const ID_RANDOM_BYTES = 16;
const CREATION_TIME_STEP_MS = 0.001;

/** The platform's limits on one transaction. */
const LIMITS = {
  documentsRead: 32_000,
  bytesRead: 16 * 1_024 * 1_024,
  intervals: 4_096,
  writeOperations: 16_000,
  documentBytesWritten: 16 * 1_024 * 1_024,
} as const;

/** A document a transaction has written, as it was committed before and as it will be. */
export interface Write {
  readonly table: Table;
  readonly id: string;
  readonly before: StoredDocument | null;
  readonly after: StoredDocument | null;
}

/** A stretch of an index that the transaction depends on. */
interface Dependency {
  readonly index: Index;
  readonly interval: Interval;
}

/** Makes ids and creation times for all transactions of one backend. */
export class Origin {
  readonly #random: Random;
  #lastCreationTime = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  newId(table: Table): string {
    const bytes = Uint8Array.from({ length: ID_RANDOM_BYTES }, () =>
      Math.floor(this.#random() * 256),
    );
    return encodeId(table.number, bytes);
  }

  creationTime(nowMs: number): number {
    const next = this.#lastCreationTime + CREATION_TIME_STEP_MS;
    this.#lastCreationTime = Math.max(nowMs, next);
    return this.#lastCreationTime;
  }
}

/**
 * One attempt at a query or mutation on what is committed now. It counts what it reads, remembers
 * what it depends on and keeps its writes to itself.
 */
export class Transaction {
  readonly usage: Usage;
  /** Runs when the transaction commits, in order. */
  readonly onCommit: (() => void)[] = [];
  readonly #origin: Origin;
  readonly #nowMs: number;
  readonly #writes = new Map<Table, Map<string, Write>>();
  readonly #dependencies = new Map<Table, Dependency[]>();
  readonly #undo: (() => void)[] = [];

  /** What it costs is added to `usage` as it goes. */
  constructor(origin: Origin, nowMs: number, usage = new Usage()) {
    this.usage = usage;
    this.#origin = origin;
    this.#nowMs = nowMs;
  }

  /** The point to come back to when a sub-transaction fails. */
  savepoint(): () => void {
    const undoAt = this.#undo.length;
    const effectsAt = this.onCommit.length;
    return () => {
      for (const undo of this.#undo.splice(undoAt).reverse()) undo();
      this.onCommit.length = effectsAt;
    };
  }

  /** Reads a document by id. `stale` reads what is committed and depends on nothing. */
  get(table: Table, id: string, stale: boolean): StoredDocument | null {
    this.#countQuery();
    return this.#load(table, id, stale);
  }

  insert(table: Table, fields: JsonObject): string {
    const id = this.#origin.newId(table);
    const creationTime = this.#origin.creationTime(this.#nowMs);
    const value = { ...fields, _id: id, _creationTime: creationTime };
    this.#write(table, id, new StoredDocument(table, id, withoutUndefined(value)));
    return id;
  }

  patch(table: Table, id: string, fields: JsonObject): void {
    const before = this.#require(table, id);
    const value = withoutUndefined({ ...before.value, ...fields });
    this.#write(table, id, new StoredDocument(table, id, value));
  }

  replace(table: Table, id: string, fields: JsonObject): void {
    const before = this.#require(table, id);
    const { _id = id, _creationTime = this.#nowMs } = before.value;
    const value = withoutUndefined({ ...fields, _id, _creationTime });
    this.#write(table, id, new StoredDocument(table, id, value));
  }

  remove(table: Table, id: string): void {
    this.#require(table, id);
    this.#write(table, id, null);
  }

  scan(range: ScanRange, stale: boolean): Scan {
    this.#countQuery();
    this.usage.intervals += 1;
    return new Scan(this, range, stale);
  }

  /** What a reader of this transaction sees under an id. */
  view(table: Table, id: string, stale: boolean): StoredDocument | null {
    const own = stale ? undefined : this.#writes.get(table)?.get(id);
    return own === undefined ? (table.documents.get(id) ?? null) : own.after;
  }

  written(table: Table): ReadonlyMap<string, Write> | undefined {
    return this.#writes.get(table);
  }

  depend(table: Table, dependency: Dependency): void {
    const known = this.#dependencies.get(table);
    if (known === undefined) this.#dependencies.set(table, [dependency]);
    else known.push(dependency);
  }

  countRead(table: Table, document: StoredDocument, index: Index | null): void {
    if (table.isSystem) return;
    const { usage } = this;
    const ofTable = usage.table(table.component, table.name);
    ofTable.documentsRead += 1;
    ofTable.bytesRead += document.bytes + (index === null ? 0 : document.keyBytesRead(index));
    usage.documentBytesRead += document.bytes;
    check("documentsRead", usage.documentsRead);
    check("bytesRead", usage.bytesRead);
  }

  /** The writes that change something; counts them, so call it once, at the commit. */
  commit(): Write[] {
    const changed: Write[] = [];
    for (const writes of this.#writes.values()) {
      for (const write of writes.values()) {
        const { before, after, table } = write;
        if (before === after || before?.text === after?.text) continue;
        changed.push(write);
        if (table.isSystem) continue;
        const ofTable = this.usage.table(table.component, table.name);
        ofTable.documentsWritten += 1;
        if (after !== null) ofTable.bytesWritten += after.bytes + after.keyBytesWritten;
      }
    }
    return changed;
  }

  get isReadOnly(): boolean {
    return this.#writes.size === 0 && this.onCommit.length === 0;
  }

  /** The first write of others that this transaction's reads would have seen otherwise. */
  conflict(writes: readonly Write[]): string | null {
    for (const { table, before, after } of writes) {
      for (const { index, interval } of this.#dependencies.get(table) ?? []) {
        const { lower, upper } = interval;
        for (const document of [before, after]) {
          const key = document?.keys[index.place];
          if (key !== undefined && key >= lower && key < upper) {
            return `${table.component}/${table.name}.${index.name}`;
          }
        }
      }
    }
    return null;
  }

  #countQuery(): void {
    this.usage.queries += 1;
  }

  #require(table: Table, id: string): StoredDocument {
    const document = this.#load(table, id, false);
    if (document === null) throw new Error(`There is no document ${id} in ${table.name}.`);
    return document;
  }

  #load(table: Table, id: string, stale: boolean): StoredDocument | null {
    this.usage.intervals += 1;
    check("intervals", this.usage.intervals);
    const document = this.view(table, id, stale);
    if (document !== null) this.countRead(table, document, null);
    if (!stale) {
      const interval = { lower: id, upper: afterKey(id) };
      this.depend(table, { index: table.index(BY_ID), interval });
    }
    return document;
  }

  #write(table: Table, id: string, after: StoredDocument | null): void {
    let writes = this.#writes.get(table);
    if (writes === undefined) {
      writes = new Map();
      this.#writes.set(table, writes);
    }
    const ofTable = writes;
    const earlier = ofTable.get(id);
    this.#undo.push(() => {
      if (earlier === undefined) ofTable.delete(id);
      else ofTable.set(id, earlier);
      if (ofTable.size === 0) this.#writes.delete(table);
    });
    const before = earlier === undefined ? (table.documents.get(id) ?? null) : earlier.before;
    this.#writes.set(table, ofTable.set(id, { table, id, before, after }));
    if (table.isSystem) return;
    this.usage.writeOperations += 1;
    this.usage.documentBytesWritten += after?.bytes ?? 0;
    check("writeOperations", this.usage.writeOperations);
    check("documentBytesWritten", this.usage.documentBytesWritten);
  }
}

export interface ScanRange {
  readonly table: Table;
  readonly index: Index;
  readonly interval: Readonly<Interval>;
  readonly descending: boolean;
}

/** Walks a range; the transaction depends on as much of it as was walked. */
export class Scan {
  readonly range: ScanRange;
  readonly #transaction: Transaction;
  readonly #stale: boolean;
  readonly #left: Interval;
  readonly #dependency: Interval;

  constructor(transaction: Transaction, range: ScanRange, stale: boolean) {
    this.range = range;
    this.#transaction = transaction;
    this.#stale = stale;
    this.#left = { ...range.interval };
    const start = range.descending ? range.interval.upper : range.interval.lower;
    this.#dependency = { lower: start, upper: start };
    if (!stale) transaction.depend(range.table, { index: range.index, interval: this.#dependency });
  }

  /** The next document, counted, or null when the range is exhausted. */
  next(): StoredDocument | null {
    const { table, index, interval, descending } = this.range;
    const stored = this.#nextStored();
    const own = this.#nextOwn();
    const key = closer(stored, own, descending);
    if (key === undefined) {
      this.#dependency.lower = interval.lower;
      this.#dependency.upper = interval.upper;
      return null;
    }
    if (descending) {
      this.#left.upper = key;
      this.#dependency.lower = key;
    } else {
      this.#left.lower = afterKey(key);
      this.#dependency.upper = this.#left.lower;
    }
    const document = this.#transaction.view(table, table.idOf(key), this.#stale);
    if (document === null) throw new Error("An index names a document that is not there.");
    this.#transaction.countRead(table, document, index);
    return document;
  }

  /** The next committed key whose document this transaction has not written. */
  #nextStored(): string | undefined {
    const { table, index, descending } = this.range;
    const own = this.#stale ? undefined : this.#transaction.written(table);
    let { lower, upper } = this.#left;
    for (;;) {
      const key = descending ? index.keys.lastBefore(upper) : index.keys.firstFrom(lower);
      if (key === undefined || (descending ? key < lower : key >= upper)) return undefined;
      if (own?.has(table.idOf(key)) !== true) return key;
      if (descending) upper = key;
      else lower = afterKey(key);
    }
  }

  #nextOwn(): string | undefined {
    if (this.#stale) return undefined;
    const { table, index, descending } = this.range;
    let best: string | undefined;
    for (const { after } of this.#transaction.written(table)?.values() ?? []) {
      const key = after?.keys[index.place];
      if (key === undefined || key < this.#left.lower || key >= this.#left.upper) continue;
      best = closer(best, key, descending);
    }
    return best;
  }
}

function closer(
  a: string | undefined,
  b: string | undefined,
  descending: boolean,
): string | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return a < b === descending ? b : a;
}

function check(limit: keyof typeof LIMITS, used: number): void {
  if (used > LIMITS[limit]) {
    throw new Error(`Too many ${limit} in a single function execution (limit: ${LIMITS[limit]}).`);
  }
}

/** A patch removes a field by giving it a placeholder for `undefined`. */
function withoutUndefined(value: Readonly<Record<string, Json>>): JsonObject {
  return Object.fromEntries(
    Object.entries(value).filter(
      ([, field]) => !isObject(field) || untag(field).kind !== "undefined",
    ),
  );
}
