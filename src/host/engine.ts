import { randomFillSync } from "node:crypto";
import { setImmediate as nextTurn } from "node:timers/promises";
import { Catalog, type TableInfo } from "./catalog";
import { CommitLog, planCommit, type PlannedCommit } from "./commits";
import { WriteConflict, type Database, type Transaction } from "./database";
import { encodeId } from "./ids";
import type { Injection } from "./injection";
import { applySchema, dropIndexes, parseSchema, type SchemaWork } from "./schema";
import { Snapshots, type SharedSnapshot } from "./snapshots";
import { Store, type Snapshot } from "./store";
import { EngineTransaction, type Surroundings } from "./transaction";

const SWEEP_INTERVAL_MS = 1_000;
const MICROSECONDS_PER_MILLISECOND = 1_000;
const ID_RANDOM_BYTES = 16;
const RANDOM_POOL_BYTES = 4_096;
// The smallest step a creation time of this century can take.
const CREATION_TIME_STEP_MS = 2 ** -12;

interface WaitingCommit {
  readonly commit: PlannedCommit;
  readonly resolve: (result: { readonly ts: number }) => void;
  readonly reject: (error: unknown) => void;
}

/** Opens the database in a directory, which it creates when there is none. */
export async function openDatabase(options: {
  readonly dir: string;
  readonly injection?: Injection;
}): Promise<Database> {
  const engine = new Engine(new Store(options.dir), options.injection ?? {});
  await engine.start();
  return engine;
}

/** See `Database`: this one keeps everything in one file and commits in groups. */
class Engine implements Database {
  readonly #store: Store;
  readonly #injection: Injection;
  readonly #catalog: Catalog;
  readonly #snapshots: Snapshots;
  readonly #log = new CommitLog();
  readonly #around: Surroundings;
  readonly #listeners = new Map<string, Set<(ids: readonly string[]) => void>>();
  /** How many open mutations began at each timestamp. */
  readonly #mutationsAt = new Map<number, number>();
  readonly #sweeper: NodeJS.Timeout;
  readonly #randomPool = new Uint8Array(RANDOM_POOL_BYTES);
  #randomUsed = RANDOM_POOL_BYTES;
  #waiting: WaitingCommit[] = [];
  #isWriting = false;
  /** Settles when the schema change that keeps commits out is over. */
  #exclusive: Promise<void> | null = null;
  #lastTs: number;
  #lastCreationTime: number;
  #isClosed = false;

  constructor(store: Store, injection: Injection) {
    this.#store = store;
    this.#injection = injection;
    this.#snapshots = new Snapshots(store, {
      monotonicMs: injection.monotonicMs ?? (() => performance.now()),
      keepsEarlier: injection.staleLagBatches !== undefined,
    });
    this.#lastTs = this.#snapshots.latestTs;
    this.#lastCreationTime = this.#lastTs / MICROSECONDS_PER_MILLISECOND;
    const first = this.#snapshots.acquire(true);
    this.#catalog = new Catalog(store.catalog(first));
    this.#snapshots.release(first);
    this.#around = this.#surroundings();
    this.#sweeper = setInterval(() => {
      this.#snapshots.sweep();
    }, SWEEP_INTERVAL_MS);
    this.#sweeper.unref();
  }

  /** Takes away what an interrupted schema change left behind. */
  async start(): Promise<void> {
    if (this.#catalog.dropped.size > 0) await dropIndexes(this.#schemaWork());
  }

  async applySchema(schemaJson: string): Promise<void> {
    const schema = parseSchema(schemaJson);
    while (this.#exclusive !== null) await this.#exclusive;
    const work = this.#alone(async () => {
      await applySchema(this.#schemaWork(), schema);
    });
    await work;
  }

  begin(kind: "query" | "mutation", options: { readonly atTs?: number } = {}): Transaction {
    if (this.#isClosed) throw new Error("The database is closed.");
    const snapshot =
      options.atTs === undefined
        ? this.#snapshots.acquire(!this.#isWriting)
        : this.#snapshots.acquireHeld(options.atTs);
    const transaction = EngineTransaction.begin(this.#around, kind, snapshot);
    if (kind === "mutation") {
      this.#mutationsAt.set(snapshot.ts, (this.#mutationsAt.get(snapshot.ts) ?? 0) + 1);
    }
    return transaction;
  }

  async commit(transaction: Transaction): Promise<{ readonly ts: number }> {
    if (!(transaction instanceof EngineTransaction) || !transaction.isTopLevel) {
      throw new Error("Only a transaction that `begin` gave can be committed.");
    }
    const latency = this.#around.latency("commit");
    if (latency !== undefined) await latency;
    const failure = this.#injection.commitFailure?.();
    if (failure !== undefined) throw failure;
    while (this.#exclusive !== null) await this.#exclusive;
    const { overlay, reads } = transaction;
    transaction.snapshot();
    if (overlay === null || reads === null || overlay.isEmpty) {
      return { ts: transaction.snapshotTs };
    }
    if (transaction.catalogGeneration !== this.#catalog.generation) {
      throw new WriteConflict("_schema");
    }
    this.#log.checkConflicts(reads, transaction.snapshotTs);
    const commit = planCommit(overlay, this.#nextTs());
    this.#log.add(commit.touched);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ commit, resolve, reject });
      if (!this.#isWriting && this.#exclusive === null) void this.#writeWaiting();
    });
  }

  latestTs(): number {
    return this.#snapshots.latestTs;
  }

  holdSnapshot(): number {
    return this.#snapshots.hold(!this.#isWriting);
  }

  onCommit(table: string, listener: (ids: readonly string[]) => void): () => void {
    const listeners = this.#listeners.get(table) ?? new Set();
    this.#listeners.set(table, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  /** The name of the table that ids with this number belong to. */
  tableName(tableNumber: number): string | undefined {
    return this.#catalog.byNumber(tableNumber)?.name;
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearInterval(this.#sweeper);
    await this.#alone(async () => {
      this.#snapshots.close();
      await this.#store.close();
    });
  }

  /** Stores batch after batch until nothing waits: what arrives during one is the next. */
  async #writeWaiting(): Promise<void> {
    this.#isWriting = true;
    // Clients that the last batch let go come back in the same turn; they go together again.
    await nextTurn();
    while (this.#waiting.length > 0) {
      const batch = this.#waiting;
      this.#waiting = [];
      await this.#writeBatch(batch);
    }
    this.#isWriting = false;
  }

  async #writeBatch(batch: readonly WaitingCommit[]): Promise<void> {
    try {
      this.#injection.crash?.("beforeCommit");
      const ts = batch.at(-1)?.commit.ts ?? this.#lastTs;
      await this.#store.write(
        batch.flatMap(({ commit }) => commit.writes),
        ts,
        this.#takeCatalog(),
      );
      await this.#injection.holdFlush?.();
      this.#publish();
      this.#injection.crash?.("afterCommit");
    } catch (error) {
      this.#catalog.dirty = true;
      for (const { reject } of batch) reject(error);
      return;
    }
    for (const { commit, resolve } of batch) resolve({ ts: commit.ts });
    // A listener that throws must not stop the commits behind it.
    queueMicrotask(() => {
      for (const { commit } of batch) this.#notify(commit);
    });
  }

  #publish(): void {
    this.#snapshots.publish();
    let oldest = this.latestTs();
    for (const ts of this.#mutationsAt.keys()) oldest = Math.min(oldest, ts);
    this.#log.prune(oldest);
  }

  #notify(commit: PlannedCommit): void {
    for (const [table, ids] of commit.idsByTable) {
      for (const listener of this.#listeners.get(table) ?? []) listener(ids);
    }
  }

  #takeCatalog(): string | undefined {
    if (!this.#catalog.dirty) return undefined;
    this.#catalog.dirty = false;
    return this.#catalog.toJson();
  }

  /** Runs when the writes under way are on disk, and keeps commits out until it is over. */
  async #alone(work: () => Promise<void>): Promise<void> {
    const result = this.#idle().then(work);
    const settled = result.then(
      () => undefined,
      () => undefined,
    );
    this.#exclusive = settled;
    await settled;
    if (this.#exclusive === settled) this.#exclusive = null;
    if (this.#waiting.length > 0) void this.#writeWaiting();
    await result;
  }

  async #idle(): Promise<void> {
    while (this.#isWriting) await nextTurn();
  }

  #schemaWork(): SchemaWork {
    return {
      store: this.#store,
      catalog: this.#catalog,
      read: <T>(work: (snapshot: Snapshot) => T): T => {
        const snapshot = this.#snapshots.acquire(true);
        try {
          return work(snapshot);
        } finally {
          this.#snapshots.release(snapshot);
        }
      },
      write: async (writes) => {
        await this.#store.write(writes, this.#nextTs(), this.#takeCatalog());
        this.#publish();
      },
    };
  }

  #surroundings(): Surroundings {
    const { databaseLatency, staleLagBatches } = this.#injection;
    return {
      store: this.#store,
      catalog: this.#catalog,
      newId: (table: TableInfo) => encodeId(table.number, this.#randomBytes()),
      nextCreationTime: () => {
        this.#lastCreationTime = Math.max(
          this.#nowMs(),
          this.#lastCreationTime + CREATION_TIME_STEP_MS,
        );
        return this.#lastCreationTime;
      },
      latency: (op) => databaseLatency?.(op),
      staleSnapshot: (): SharedSnapshot | null =>
        staleLagBatches === undefined ? null : this.#snapshots.acquireLagging(staleLagBatches()),
      release: (snapshot) => {
        this.#snapshots.release(snapshot);
      },
      ended: ({ kind, snapshotTs }) => {
        if (kind === "query") return;
        const left = (this.#mutationsAt.get(snapshotTs) ?? 1) - 1;
        if (left === 0) this.#mutationsAt.delete(snapshotTs);
        else this.#mutationsAt.set(snapshotTs, left);
      },
    };
  }

  #nowMs(): number {
    return (this.#injection.nowMs ?? Date.now)();
  }

  #nextTs(): number {
    const now = Math.floor(this.#nowMs() * MICROSECONDS_PER_MILLISECOND);
    this.#lastTs = Math.max(now, this.#lastTs + 1);
    return this.#lastTs;
  }

  #randomBytes(): Uint8Array {
    const { random } = this.#injection;
    if (random !== undefined) {
      return Uint8Array.from({ length: ID_RANDOM_BYTES }, () => Math.floor(random() * 256));
    }
    if (this.#randomUsed + ID_RANDOM_BYTES > RANDOM_POOL_BYTES) {
      randomFillSync(this.#randomPool);
      this.#randomUsed = 0;
    }
    this.#randomUsed += ID_RANDOM_BYTES;
    return this.#randomPool.subarray(this.#randomUsed - ID_RANDOM_BYTES, this.#randomUsed);
  }
}
