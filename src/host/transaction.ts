import { indexKey, type Catalog, type TableInfo } from "./catalog";
import type { Transaction } from "./database";
import { documentKey, parseDocument, wholeIndex } from "./entries";
import { decodeId } from "./ids";
import { ReadSet } from "./intervals";
import { isObject, type Json, type JsonObject } from "./json";
import { afterPrefix } from "./keys";
import { Budget, checkTopLevelFields, measureDocument } from "./limits";
import { Overlay, type NextDocument } from "./overlay";
import { parseQuery } from "./query";
import { readPage, ResultStream, type PageRequest } from "./results";
import { storedRow, type Row, type View } from "./scan";
import type { SharedSnapshot } from "./snapshots";
import type { Snapshot, Store } from "./store";
import { validateDocument } from "./validate";

/** What the engine lends to its transactions. */
export interface Surroundings {
  readonly store: Store;
  readonly catalog: Catalog;
  newId(table: TableInfo): string;
  nextCreationTime(): number;
  latency(op: string): Promise<void> | undefined;
  /** Another, possibly older snapshot for a stale reader; null for the transaction's own. */
  staleSnapshot(): SharedSnapshot | null;
  release(snapshot: SharedSnapshot): void;
  ended(transaction: EngineTransaction): void;
}

interface Parts {
  readonly kind: "query" | "mutation";
  readonly snapshot: SharedSnapshot;
  readonly parent: EngineTransaction | null;
  readonly overlay: Overlay | null;
  readonly reads: ReadSet | null;
  readonly budget: Budget;
}

type Args = Readonly<Record<string, Json | undefined>>;

/** See `Transaction`: this one runs on the store, and the engine commits it. */
export class EngineTransaction implements Transaction, View {
  readonly kind: "query" | "mutation";
  readonly snapshotTs: number;
  /** The state of the indexes that the writes were planned against. */
  readonly catalogGeneration: number;
  readonly store: Store;
  readonly overlay: Overlay | null;
  readonly reads: ReadSet | null;
  readonly system: Transaction["system"];
  readonly #parts: Parts;
  readonly #around: Surroundings;
  readonly #streams = new Map<number, ResultStream>();
  #nextStream = 0;
  #hasPaged = false;
  #isEnded = false;

  constructor(around: Surroundings, parts: Parts) {
    this.kind = parts.kind;
    this.snapshotTs = parts.snapshot.ts;
    this.catalogGeneration = around.catalog.generation;
    this.store = around.store;
    this.overlay = parts.overlay;
    this.reads = parts.reads;
    this.#parts = parts;
    this.#around = around;
    this.system = {
      insert: (table, value) => this.#insert(around.catalog.table(table), value as JsonObject),
      patch: (id, value) => {
        this.#patch(this.#resolve(id, "db.patch"), id, value as JsonObject);
      },
      remove: (id) => {
        this.#remove(this.#resolve(id, "db.delete"), id);
      },
      get: (id) => this.#find(this.#resolve(id, "db.get"), id)?.value() ?? null,
      countScheduled: (argsBytes) => {
        parts.budget.countScheduled(argsBytes);
      },
    };
  }

  /** A top-level transaction on a snapshot that the caller has acquired for it. */
  static begin(
    around: Surroundings,
    kind: "query" | "mutation",
    snapshot: SharedSnapshot,
  ): EngineTransaction {
    const isMutation = kind === "mutation";
    return new EngineTransaction(around, {
      kind,
      snapshot,
      parent: null,
      overlay: isMutation ? new Overlay(null) : null,
      // Nothing can invalidate a query, so it needs no record of what it read.
      reads: isMutation ? new ReadSet() : null,
      budget: new Budget(),
    });
  }

  get isTopLevel(): boolean {
    return this.#parts.parent === null;
  }

  snapshot(): Snapshot {
    if (this.#isEnded) throw new Error("The transaction has ended.");
    if (this.#parts.snapshot.expired) {
      throw new Error(
        "The transaction ran for longer than 20 seconds and its snapshot was closed.",
      );
    }
    return this.#parts.snapshot;
  }

  syscall(op: string, argsJson: string): string {
    const args = JSON.parse(argsJson) as Args;
    this.snapshot();
    switch (op) {
      case "1.0/queryStream": {
        const query = parseQuery(args["query"] ?? null, this.#around.catalog);
        const queryId = this.#nextStream++;
        this.#streams.set(queryId, new ResultStream(this, query, this.#parts.budget));
        return `{"queryId":${queryId}}`;
      }
      case "1.0/queryCleanup":
        this.#streams.delete(Number(args["queryId"]));
        return "null";
      case "1.0/db/normalizeId":
        return JSON.stringify({ id: this.#normalizeId(args) });
      default:
        throw new Error(`Unknown operation ${op}`);
    }
  }

  async asyncSyscall(op: string, argsJson: string): Promise<string> {
    const args = JSON.parse(argsJson) as Args;
    const latency = this.#around.latency(op);
    if (latency !== undefined) await latency;
    this.snapshot();
    switch (op) {
      case "1.0/queryStreamNext":
        return this.#streamNext(args);
      case "1.0/get":
        return this.#get(args);
      case "1.0/insert":
        return this.#userInsert(args);
      case "1.0/shallowMerge":
      case "1.0/replace":
      case "1.0/remove":
        return this.#change(op, args);
      case "1.0/queryPage":
        return this.#queryPage(args);
      case "1.0/count":
        return JSON.stringify(this.#count(this.#around.catalog.table(String(args["table"]))));
      case "1.0/getTransactionMetrics":
        return JSON.stringify(this.#parts.budget.metrics());
      default:
        throw new Error(`Unknown async operation ${op}`);
    }
  }

  child(): Transaction {
    const { kind, snapshot, overlay, reads, budget } = this.#parts;
    return new EngineTransaction(this.#around, {
      kind,
      snapshot,
      parent: this,
      overlay: overlay === null ? null : new Overlay(overlay),
      reads,
      budget: new Budget(budget),
    });
  }

  commitChild(child: Transaction): void {
    if (!(child instanceof EngineTransaction) || child.#parts.parent !== this) {
      throw new Error("The sub-transaction belongs to another transaction.");
    }
    if (child.#isEnded) throw new Error("The sub-transaction has ended.");
    child.#isEnded = true;
    if (child.overlay !== null) this.overlay?.keep(child.overlay);
    this.#parts.budget.keep(child.#parts.budget);
  }

  staleReader(): Transaction {
    const stale = this.#around.staleSnapshot();
    return new EngineTransaction(this.#around, {
      kind: "query",
      snapshot: stale ?? this.#parts.snapshot,
      parent: stale === null ? this : null,
      overlay: null,
      reads: null,
      budget: new Budget(this.#parts.budget),
    });
  }

  end(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#streams.clear();
    if (!this.isTopLevel) return;
    this.#around.release(this.#parts.snapshot);
    this.#around.ended(this);
  }

  #streamNext(args: Args): string {
    const stream = this.#streams.get(Number(args["queryId"]));
    if (stream === undefined) throw new Error("The query has been closed.");
    const row = stream.next();
    return row === null ? '{"value":null,"done":true}' : `{"value":${row.text},"done":false}`;
  }

  #queryPage(args: Args): string {
    if (this.#hasPaged) {
      throw new Error(
        "This query or mutation function ran multiple paginated queries. Convex only supports a single paginated query in each function.",
      );
    }
    this.#hasPaged = true;
    const query = parseQuery(args["query"] ?? null, this.#around.catalog);
    const request: PageRequest = {
      cursor: text(args["cursor"]),
      endCursor: text(args["endCursor"]),
      pageSize: Number(args["pageSize"]),
      maximumRowsRead: number(args["maximumRowsRead"]),
      maximumBytesRead: number(args["maximumBytesRead"]),
    };
    return readPage(this, query, request, this.#parts.budget);
  }

  #get(args: Args): string {
    const id = String(args["id"]);
    const table = this.#resolve(id, "db.get", text(args["table"]));
    checkSystem(table, args["isSystem"] === true);
    return this.#find(table, id)?.text ?? "null";
  }

  #normalizeId(args: Args): string | null {
    const table = this.#around.catalog.find(String(args["table"]));
    const id = String(args["idString"]);
    const decoded = decodeId(id);
    return "tableNumber" in decoded && decoded.tableNumber === table?.number ? id : null;
  }

  #count(table: TableInfo): number {
    const [byId] = table.indexes;
    this.#parts.budget.countQuery();
    this.reads?.addRange(byId.number, { lower: "", upper: afterPrefix("") });
    let rows = this.store.count(this.snapshot(), wholeIndex(byId.number));
    for (const { base, next } of this.overlay?.ofTable(table.number).values() ?? []) {
      rows += (next === null ? 0 : 1) - (base === null ? 0 : 1);
    }
    return rows;
  }

  #userInsert(args: Args): string {
    const table = this.#around.catalog.table(String(args["table"]));
    checkSystem(table, false);
    const value = documentArgument(args["value"], "db.insert");
    return JSON.stringify({ _id: this.#insert(table, value) });
  }

  #insert(table: TableInfo, value: JsonObject): string {
    checkTopLevelFields(value);
    const id = this.#around.newId(table);
    this.#put(table, id, null, {
      ...value,
      _id: id,
      _creationTime: this.#around.nextCreationTime(),
    });
    return id;
  }

  #change(op: string, args: Args): string {
    const names = { "1.0/shallowMerge": "db.patch", "1.0/replace": "db.replace" } as const;
    const name = op === "1.0/remove" ? "db.delete" : names[op as keyof typeof names];
    const id = String(args["id"]);
    const table = this.#resolve(id, name, text(args["table"]));
    checkSystem(table, false);
    if (op === "1.0/remove") return this.#remove(table, id);
    const value = documentArgument(args["value"], name);
    return op === "1.0/replace" ? this.#replace(table, id, value) : this.#patch(table, id, value);
  }

  #patch(table: TableInfo, id: string, value: JsonObject): string {
    const old = this.#require(table, id, "Update");
    const merged: Record<string, Json> = { ...old };
    for (const [field, change] of Object.entries(value)) {
      if (isObject(change) && "$undefined" in change) delete merged[field];
      else merged[field] = change;
    }
    checkSystemFields(merged, old);
    return this.#put(table, id, this.#base(table, id), merged);
  }

  #replace(table: TableInfo, id: string, value: JsonObject): string {
    const old = this.#require(table, id, "Replace");
    const system = { _id: id, _creationTime: old["_creationTime"] ?? 0 };
    const replaced = { ...system, ...value };
    checkSystemFields(replaced, old);
    return this.#put(table, id, this.#base(table, id), replaced);
  }

  #remove(table: TableInfo, id: string): string {
    const row = this.#find(table, id);
    if (row === null) throw new Error(`Delete on nonexistent document ID ${id}`);
    const base = this.#base(table, id);
    this.#writable().put({ table, id, base, next: null });
    if (!table.isSystem) this.#parts.budget.countWrite(0);
    return row.text;
  }

  /** Plans the document's new state: checked, measured, with its keys; returns its text. */
  #put(table: TableInfo, id: string, base: string | null, document: JsonObject): string {
    const sorted = sortFields(document);
    const bytes = measureDocument(sorted);
    validateDocument(table, sorted, (number) => this.#around.catalog.byNumber(number)?.name);
    const next = nextDocument(table, id, sorted, bytes);
    this.#writable().put({ table, id, base, next });
    if (!table.isSystem) this.#parts.budget.countWrite(bytes);
    return next.text;
  }

  #writable(): Overlay {
    if (this.#isEnded) throw new Error("The transaction has ended.");
    if (this.overlay === null) throw new Error("A query can not write.");
    return this.overlay;
  }

  /** The document as the transaction sees it; a lookup that finds nothing is read all the same. */
  #find(table: TableInfo, id: string): Row | null {
    const snapshot = this.snapshot();
    const { budget } = this.#parts;
    budget.countQuery();
    this.reads?.addPoint(table.indexes[0].number, id);
    const row = this.#look(snapshot, table, id);
    if (row !== null && !table.isSystem) budget.countRead(row.bytes);
    return row;
  }

  #look(snapshot: Snapshot, table: TableInfo, id: string): Row | null {
    const own = this.overlay?.find(table.number, id);
    if (own !== undefined) {
      if (own.next === null) return null;
      const { text: json, bytes, value } = own.next;
      return { key: id, text: json, bytes, value: () => value };
    }
    const packed = this.store.get(snapshot, documentKey(table, id));
    return packed === undefined ? null : storedRow(id, packed);
  }

  #require(table: TableInfo, id: string, verb: string): JsonObject {
    const row = this.#find(table, id);
    if (row === null) throw new Error(`${verb} on nonexistent document ID ${id}`);
    return row.value();
  }

  /** What the snapshot holds under the id, whatever the transaction has written since. */
  #base(table: TableInfo, id: string): string | null {
    const own = this.overlay?.find(table.number, id);
    if (own !== undefined) return own.base;
    return this.store.get(this.snapshot(), documentKey(table, id)) ?? null;
  }

  #resolve(id: string, operation: string, expected: string | null = null): TableInfo {
    const invalid = (reason: string) =>
      new Error(`Invalid argument \`id\` for \`${operation}\`: ${reason}`);
    const decoded = decodeId(id);
    if ("error" in decoded) throw invalid(decoded.error);
    const table = this.#around.catalog.byNumber(decoded.tableNumber);
    if (table === undefined) throw invalid(`Table for ID "${id}" not found`);
    if (expected !== null && expected !== table.name) {
      throw invalid(`expected to be an Id<"${expected}">, got Id<"${table.name}"> instead.`);
    }
    return table;
  }
}

/** Everything that is stored of a document: its text and its key in each index. */
export function nextDocument(
  table: TableInfo,
  id: string,
  value: JsonObject,
  bytes: number,
): NextDocument {
  return {
    value,
    text: JSON.stringify(value),
    bytes,
    keys: table.indexes.map((index) => indexKey(index, value, id)),
  };
}

/** The keys a stored document has in the indexes of its table. */
export function storedKeys(table: TableInfo, id: string, packed: string): readonly string[] {
  const value = parseDocument(packed);
  return table.indexes.map((index) => indexKey(index, value, id));
}

function checkSystem(table: TableInfo, expected: boolean): void {
  if (table.isSystem === expected) return;
  throw new Error(
    table.isSystem
      ? "System tables can only be accessed with db.system."
      : "User tables cannot be accessed with db.system.",
  );
}

function checkSystemFields(document: JsonObject, old: JsonObject): void {
  for (const field of ["_id", "_creationTime"] as const) {
    if (document[field] === old[field]) continue;
    throw new Error(
      `Provided \`${field}\` field value ${JSON.stringify(document[field] ?? null)} does not match the document's ${JSON.stringify(old[field] ?? null)}`,
    );
  }
  const { _id, _creationTime, ...fields } = document;
  if (_id !== undefined && _creationTime !== undefined) checkTopLevelFields(fields);
}

// The platform keeps fields in order, and callers see them so.
function sortFields(document: JsonObject): JsonObject {
  const sorted: Record<string, Json> = {};
  for (const field of Object.keys(document).sort()) {
    const value = document[field];
    if (value !== undefined) sorted[field] = value;
  }
  return sorted;
}

function documentArgument(value: Json | undefined, operation: string): JsonObject {
  if (isObject(value)) return value;
  throw new Error(`Invalid argument \`value\` for \`${operation}\`: Value must be an Object`);
}

function text(value: Json | undefined): string | null {
  return typeof value === "string" ? value : null;
}

function number(value: Json | undefined): number | null {
  return typeof value === "number" ? value : null;
}
