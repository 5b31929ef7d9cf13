import type { TableInfo } from "./catalog";
import type { Transaction } from "./database";
import { Documents, type Origin } from "./documents";
import { ReadSet } from "./intervals";
import { isObject, type Json, type JsonObject } from "./json";
import { Budget } from "./limits";
import { Overlay } from "./overlay";
import { parseQuery } from "./query";
import { readPage, ResultStream, type PageRequest } from "./results";
import type { View } from "./scan";
import type { SharedSnapshot } from "./snapshots";
import type { Snapshot, Store } from "./store";

/** What the engine lends to its transactions. */
export interface Surroundings extends Origin {
  readonly store: Store;
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
  readonly #documents: Documents;
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
    const documents = new Documents(this, around, parts.budget);
    this.#documents = documents;
    this.system = {
      insert: (table, value) => documents.insert(around.catalog.table(table), value as JsonObject),
      patch: (id, value) => {
        documents.patch(documents.tableOf(id, "db.patch"), id, value as JsonObject);
      },
      remove: (id) => {
        documents.remove(documents.tableOf(id, "db.delete"), id);
      },
      get: (id) => documents.find(documents.tableOf(id, "db.get"), id)?.value() ?? null,
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
        return JSON.stringify({
          id: this.#documents.normalizeId(textOf(args, "table"), textOf(args, "idString")),
        });
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
        return this.#insert(args);
      case "1.0/shallowMerge":
        return this.#change("db.patch", args);
      case "1.0/replace":
        return this.#change("db.replace", args);
      case "1.0/remove":
        return this.#change("db.delete", args);
      case "1.0/queryPage":
        return this.#queryPage(args);
      case "1.0/count":
        return String(this.#documents.count(this.#around.catalog.table(textOf(args, "table"))));
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
      cursor: optionalText(args, "cursor"),
      endCursor: optionalText(args, "endCursor"),
      pageSize: Number(args["pageSize"]),
      maximumRowsRead: optionalNumber(args, "maximumRowsRead"),
      maximumBytesRead: optionalNumber(args, "maximumBytesRead"),
    };
    return readPage(this, query, request, this.#parts.budget);
  }

  #get(args: Args): string {
    const id = textOf(args, "id");
    const table = this.#documents.tableOf(id, "db.get", optionalText(args, "table"));
    checkSystem(table, args["isSystem"] === true);
    return this.#documents.find(table, id)?.text ?? "null";
  }

  #insert(args: Args): string {
    const table = this.#around.catalog.table(textOf(args, "table"));
    checkSystem(table, false);
    return JSON.stringify({ _id: this.#documents.insert(table, documentOf(args, "db.insert")) });
  }

  #change(operation: "db.patch" | "db.replace" | "db.delete", args: Args): string {
    const id = textOf(args, "id");
    const table = this.#documents.tableOf(id, operation, optionalText(args, "table"));
    checkSystem(table, false);
    switch (operation) {
      case "db.patch":
        return this.#documents.patch(table, id, documentOf(args, operation));
      case "db.replace":
        return this.#documents.replace(table, id, documentOf(args, operation));
      case "db.delete":
        return this.#documents.remove(table, id);
    }
  }
}

function checkSystem(table: TableInfo, expected: boolean): void {
  if (table.isSystem === expected) return;
  throw new Error(
    table.isSystem
      ? "System tables can only be accessed with db.system."
      : "User tables cannot be accessed with db.system.",
  );
}

function documentOf(args: Args, operation: string): JsonObject {
  const { value } = args;
  if (isObject(value)) return value;
  throw new Error(`Invalid argument \`value\` for \`${operation}\`: Value must be an Object`);
}

function textOf(args: Args, name: string): string {
  const value = args[name];
  if (typeof value === "string") return value;
  throw new Error(`Invalid argument \`${name}\`: expected a string.`);
}

function optionalText(args: Args, name: string): string | null {
  return args[name] === undefined || args[name] === null ? null : textOf(args, name);
}

function optionalNumber(args: Args, name: string): number | null {
  const value = args[name];
  return typeof value === "number" ? value : null;
}
