/**
 * What the function runtime asks of the database. Arguments and results of system calls are JSON
 * text exactly as the functions' own library sends and expects them, so a read parses nothing.
 */
export interface Database {
  /**
   * Installs the schema exported by `convex/schema.ts` (its JSON), building indexes as needed. The
   * runtime adds its own tables to it, whose names start with `_`, to have indexes on them.
   */
  applySchema(schemaJson: string): Promise<void>;
  /** Opens a snapshot. `atTs` reads an earlier commit still held open by `holdSnapshot`. */
  begin(kind: "query" | "mutation", options?: { readonly atTs?: number }): Transaction;
  /** Validates the read set, assigns a timestamp and stores; resolves once on disk. */
  commit(transaction: Transaction): Promise<{ readonly ts: number }>;
  /** Timestamp of the newest commit, in microseconds since the epoch, strictly increasing. */
  latestTs(): number;
  /** Keeps a snapshot readable for `query_at_ts`; throws a clear error when too many are held. */
  holdSnapshot(): number;
  /** Called after each commit that touched `table`, with ids written; used to wake the scheduler. */
  onCommit(table: string, listener: (ids: readonly string[]) => void): () => void;
  close(): Promise<void>;
}

/** Thrown by `commit` when another commit changed what the transaction read. */
export class WriteConflict extends Error {
  readonly table: string;
  constructor(table: string) {
    super(`conflict on ${table}`);
    this.table = table;
  }
}

/** A transaction and the sub-transactions under it share one budget of the platform's limits. */
export interface Transaction {
  readonly kind: "query" | "mutation";
  readonly snapshotTs: number;
  /** `1.0/queryStream`, `1.0/queryCleanup`, `1.0/db/normalizeId`. */
  syscall(op: string, argsJson: string): string;
  /** `1.0/get`, `insert`, `shallowMerge`, `replace`, `remove`, `queryStreamNext`, `queryPage`, `count`, `getTransactionMetrics`. */
  asyncSyscall(op: string, argsJson: string): Promise<string>;
  /** A nested mutation: keep its writes with `commitChild`, or drop them by forgetting it. */
  child(): Transaction;
  commitChild(child: Transaction): void;
  /** A nested query on the snapshot the transaction began with: not in the read set, blind to own writes. */
  staleReader(): Transaction;
  /** Writes to system tables (`_scheduled_functions`, `_cron_jobs`, …), which user code may only read. */
  system: {
    insert(table: string, value: Readonly<Record<string, unknown>>): string;
    patch(id: string, value: Readonly<Record<string, unknown>>): void;
    remove(id: string): void;
    get(id: string): Readonly<Record<string, unknown>> | null;
    /** Counts one scheduled function against the budget. */
    countScheduled(argsBytes: number): void;
  };
  /** Releases the snapshot; safe to call twice. */
  end(): void;
}
