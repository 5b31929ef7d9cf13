import { randomUUID } from "node:crypto";
import { setMaxListeners } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { canonicalName } from "./app";
import type { FunctionEntry } from "./app";
import { WriteConflict } from "./database";
import type { Transaction } from "./database";
import { FunctionError, messageOf } from "./errors";
import { conflictDelayMs } from "./functions";
import type { Runtime } from "./functions";
import { DueQueue } from "./dueQueue";
import type { Caller, NewJob } from "./invocation";
import { JOBS, readRows } from "./systemTables";
import type { Row } from "./systemTables";

const PARALLEL_MAX = 64;
/** Longest delay that one timer of Node can hold. */
const TIMER_MS_MAX = 2 ** 31 - 1;
const CONFLICT_BASE_MS = 100;
const CONFLICT_CAP_MS = 60_000;
const RESULTS_KEPT_MS = 7 * 24 * 3_600_000;
const CLEANUP_EVERY_MS = 3_600_000;
const CLEANUP_ROWS_MAX = 256;
const CLEANUP_BATCHES_MAX = 40;
const CRASHED = "Transient error while executing action";

type JobState = { readonly kind: string; readonly error?: string };

/**
 * Runs `_scheduled_functions`. A mutation and the note that it is done are one transaction, so it
 * happens exactly once; an action is noted as in progress first, so it starts at most once.
 */
export class Scheduler {
  readonly #runtime: Runtime;
  readonly #print: (line: string) => void;
  readonly #due = new DueQueue();
  readonly #running = new Map<string, Promise<void>>();
  readonly #stop = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #cleanup: NodeJS.Timeout | undefined;

  constructor(runtime: Runtime, print: (line: string) => void) {
    this.#runtime = runtime;
    this.#print = print;
    // Each job that waits for another attempt listens; beyond ten, Node would warn of a leak.
    setMaxListeners(PARALLEL_MAX + 1, this.#stop.signal);
  }

  /** Takes up what an earlier process left, then what is scheduled from now on. */
  async start(): Promise<void> {
    this.#runtime.onScheduled = (jobs) => {
      this.add(jobs);
    };
    for (const row of await this.#inState("inProgress")) await this.#settleCrashed(row._id);
    this.add(
      (await this.#inState("pending")).map((row) => ({
        id: row._id,
        dueMs: Number(row["scheduledTime"]),
      })),
    );
    this.#cleanup = setInterval(() => void this.#removeOld(), CLEANUP_EVERY_MS);
    void this.#removeOld();
  }

  add(jobs: readonly NewJob[]): void {
    for (const job of jobs) this.#due.push(job);
    this.#pump();
  }

  /** Starts nothing more and waits for what runs; actions cut off by the exit are failed at the next start. */
  async stop(graceMs: number): Promise<void> {
    this.#stop.abort();
    clearTimeout(this.#timer);
    clearInterval(this.#cleanup);
    this.#runtime.onScheduled = () => undefined;
    const all = Promise.allSettled(this.#running.values());
    await Promise.race([all, delay(graceMs, undefined, { ref: false })]);
  }

  #pump(): void {
    clearTimeout(this.#timer);
    while (!this.#stop.signal.aborted && this.#running.size < PARALLEL_MAX) {
      const next = this.#due.peek();
      if (next === undefined) return;
      const waitMs = next.dueMs - this.#runtime.hooks.nowMs();
      if (waitMs > 0) {
        this.#timer = setTimeout(
          () => {
            this.#pump();
          },
          Math.min(waitMs, TIMER_MS_MAX),
        );
        return;
      }
      this.#due.pop();
      if (this.#running.has(next.id)) continue;
      const run = this.#run(next.id)
        .catch((error: unknown) => {
          this.#report(next.id, error);
        })
        .finally(() => {
          this.#running.delete(next.id);
          this.#pump();
        });
      this.#running.set(next.id, run);
    }
  }

  #report(id: string, error: unknown): void {
    if (this.#stop.signal.aborted) return;
    this.#print(`Scheduled job ${id}: ${messageOf(error)}`);
  }

  async #run(id: string): Promise<void> {
    const row = await this.#read(id);
    if (row === null || stateOf(row) !== "pending") return;
    const name = canonicalName(String(row["name"]));
    const entry = this.#runtime.app.functions.get(name);
    if (entry === undefined)
      await this.#settle(id, "pending", {
        kind: "failed",
        error: `Could not find function '${name}'.`,
      });
    else if (entry.kind === "mutation") await this.#runMutation(id, entry, row);
    else await this.#runAction(id, entry, row);
  }

  async #runMutation(id: string, entry: FunctionEntry, row: Row): Promise<void> {
    for (let attempt = 1; !this.#stop.signal.aborted; attempt++) {
      try {
        await this.#runtime.transact((transaction) =>
          this.#mutateAndSettle(transaction, id, entry, row),
        );
        return;
      } catch (error) {
        if (error instanceof FunctionError) {
          this.#report(`${id} (${entry.name})`, error);
          await this.#settle(id, "pending", { kind: "failed", error: error.message });
          return;
        }
        if (!(error instanceof WriteConflict)) this.#report(id, error);
        const waitMs = conflictDelayMs(
          this.#runtime.hooks,
          attempt,
          CONFLICT_BASE_MS,
          CONFLICT_CAP_MS,
        );
        await delay(waitMs, undefined, { signal: this.#stop.signal }).catch(() => undefined);
      }
    }
  }

  async #mutateAndSettle(
    transaction: Transaction,
    id: string,
    entry: FunctionEntry,
    row: Row,
  ): Promise<{ jobs: readonly NewJob[] }> {
    // Read in this transaction: a cancellation meanwhile is a conflict, then seen here.
    if (stateOf(transaction.system.get(id)) !== "pending") return { jobs: [] };
    const { jobs } = await this.#runtime.mutateIn(transaction, entry, argsOf(row), callerOf(id));
    transaction.system.patch(id, {
      state: { kind: "success" },
      completedTime: this.#runtime.hooks.nowMs(),
    });
    return { jobs };
  }

  async #runAction(id: string, entry: FunctionEntry, row: Row): Promise<void> {
    if (!(await this.#settle(id, "pending", { kind: "inProgress" }))) return;
    const jobCanceled = async () => stateOf(await this.#read(id)) === "canceled";
    const outcome = await this.#runtime
      .action(entry.name, argsOf(row), callerOf(id), { jobCanceled })
      .then(
        (): JobState => ({ kind: "success" }),
        (error: unknown): JobState => {
          this.#report(`${id} (${entry.name})`, error);
          return { kind: "failed", error: messageOf(error) };
        },
      );
    await this.#settle(id, "inProgress", outcome);
  }

  #settleCrashed(id: string): Promise<boolean> {
    return this.#settle(id, "inProgress", { kind: "failed", error: CRASHED });
  }

  /** Moves a job from one state to another; false when it was no longer in the first. */
  async #settle(id: string, from: string, to: JobState): Promise<boolean> {
    const { moved } = await this.#runtime.retrying(() =>
      this.#runtime.transact((transaction) => {
        const moved = stateOf(transaction.system.get(id)) === from;
        const done = to.kind === "inProgress" ? {} : { completedTime: this.#runtime.hooks.nowMs() };
        if (moved) transaction.system.patch(id, { state: to, ...done });
        return { jobs: [], moved };
      }),
    );
    return moved;
  }

  async #read(id: string): Promise<Row | null> {
    const transaction = this.#runtime.database.begin("query");
    try {
      return transaction.system.get(id) as Row | null;
    } finally {
      transaction.end();
    }
  }

  async #inState(kind: string): Promise<Row[]> {
    const range = [{ type: "Eq", fieldPath: "state.kind", value: kind }];
    const transaction = this.#runtime.database.begin("query");
    const rows: Row[] = [];
    try {
      for await (const row of readRows(transaction, { index: `${JOBS}.by_state`, range }))
        rows.push(row);
      return rows;
    } finally {
      transaction.end();
    }
  }

  /** A bounded number of old results at a time; the rest waits for the next round. */
  async #removeOld(): Promise<void> {
    const before = this.#runtime.hooks.nowMs() - RESULTS_KEPT_MS;
    const range = [
      { type: "Gt", fieldPath: "completedTime", value: 0 },
      { type: "Lt", fieldPath: "completedTime", value: before },
    ];
    const read = { index: `${JOBS}.by_completed_time`, range, limit: CLEANUP_ROWS_MAX };
    try {
      for (let batch = 0; batch < CLEANUP_BATCHES_MAX && !this.#stop.signal.aborted; batch++) {
        const { removed } = await this.#runtime.transact(async (transaction) => {
          let count = 0;
          for await (const row of readRows(transaction, read)) {
            transaction.system.remove(row._id);
            count++;
          }
          return { jobs: [], removed: count };
        });
        if (removed < CLEANUP_ROWS_MAX) return;
      }
    } catch (error) {
      this.#report("cleanup", error);
    }
  }
}

function stateOf(row: Readonly<Record<string, unknown>> | null): string | undefined {
  return (row?.["state"] as JobState | undefined)?.kind;
}

function argsOf(row: Row): unknown {
  return (row["args"] as unknown[])[0] ?? {};
}

/** Scheduled functions act for nobody. */
export function callerOf(scheduledFunctionId: string | null): Caller {
  return {
    identity: { kind: "none" },
    request: { requestId: randomUUID(), ip: null, userAgent: null, scheduledFunctionId },
  };
}
