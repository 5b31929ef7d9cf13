import { convexToJson, type Value } from "convex/values";
import { nextRunMs } from "../../../src/host/cronTime";
import type { Json, JsonObject } from "../../../src/host/json";
import { Component, type Definition, type RegisteredFunction } from "./app";
import { Usage } from "./billing";
import { Clock } from "./clock";
import { multiply } from "./copies";
import { cronsOf } from "./crons";
import { enterWorld } from "./globals";
import { History, resolved } from "./history";
import { type Job, setState, stateOf } from "./jobs";
import { seededRandom, type Random } from "./random";
import { newStats, type OperationStats } from "./stats";
import { crossing, frames, resultOf, type Frame, type FrameHost } from "./syscalls";
import { StoredDocument } from "./tables";
import { Origin, Transaction } from "./transaction";

/** Start of simulated time: an ordinary minute of an ordinary day. */
export const START_MS = Date.UTC(2026, 0, 5, 12, 2, 0, 0);

/** The platform's constants, as its source has them. */
const CLIENT_RETRIES_MAX = 4;
const BACKOFF_BASE_MS = 100;
const CLIENT_BACKOFF_MAX_MS = 2_000;
const SCHEDULED_BACKOFF_MAX_MS = 60_000;
const SCHEDULED_AT_ONCE_MAX = 256;
export interface BackendOptions {
  /** How long a transaction takes from its begin to its commit. 0 runs one after the other. */
  readonly transactionMs: number;
  /** The share by which that varies, in both directions. */
  readonly jitter: number;
  /** From the commit that scheduled a function, or its time, to its start. */
  readonly schedulerMs: number;
  readonly seed: number;
  /** Variables of the app. */
  readonly variables?: Readonly<Record<string, string>>;
}

/** One billed call: each attempt of a top-level function counts, nested ones do not. */
export interface Call {
  readonly label: string;
  readonly kind: RegisteredFunction["kind"];
  readonly usage: Usage;
  /** Scheduler hops between the first cause and this call. */
  readonly hops: number;
  /** Whether a cron, and nobody else, set it off. */
  readonly isCron: boolean;
  readonly startedMs: number;
  outcome: "running" | "done" | "conflict" | "failed";
}

interface Cause {
  readonly hops: number;
  readonly job: Job | null;
  readonly isCron: boolean;
}
const FROM_CLIENT: Cause = { hops: 0, job: null, isCron: false };
const FROM_CRON: Cause = { hops: 0, job: null, isCron: true };

/** A function of the harness that stands in for one of the app. */
export type StandIn = (args: JsonObject) => Promise<void>;

/** The platform gave a mutation up: others kept changing what it read. */
export class ContentionError extends Error {}

/**
 * A Convex deployment in memory and in simulated time. Every attempt of a mutation runs the real
 * function on what is committed then, takes its time, and commits if nobody wrote into what it read
 * meanwhile; otherwise it is tried again as the platform does.
 */
export class Backend {
  readonly app: Component;
  readonly clock = new Clock(START_MS);
  readonly calls: Call[] = [];
  readonly stats = new Map<string, OperationStats>();
  readonly random: Random;
  /** Called with each committed mutation's label and result, at the time of the commit. */
  onCommit: ((label: string, value: unknown) => void) | null = null;
  /** Answers what actions fetch. */
  fetch: (url: string, init: RequestInit | undefined) => Promise<Response> = () =>
    Promise.reject(new TypeError("there is no network here"));
  readonly #options: BackendOptions;
  readonly #origin: Origin;
  readonly #standIns = new Map<string, StandIn>();
  readonly #history = new History();
  readonly #host: FrameHost;
  readonly #causes = new WeakMap<Frame, Cause>();
  readonly #waitingJobs: (() => void)[] = [];
  #runningJobs = 0;
  #executing: Promise<unknown> = Promise.resolve();

  constructor(definition: Definition, options: BackendOptions) {
    this.app = new Component(definition);
    this.#options = options;
    this.random = seededRandom(options.seed);
    this.#origin = new Origin(seededRandom(options.seed + 1));
    this.#host = this.#frameHost();
  }

  /** Runs work in this backend's time, until it is done. */
  async within<T>(work: () => Promise<T>): Promise<T> {
    const leave = enterWorld({
      clock: this.clock,
      random: this.random,
      variables: this.#options.variables ?? {},
      fetch: (url, init) => this.fetch(url, init),
    });
    try {
      return await this.clock.runFor(work());
    } finally {
      leave();
    }
  }

  /** Puts a function of the harness in place of an action. */
  standIn(path: string, run: StandIn): void {
    this.#standIns.set(path, run);
  }

  mutation(path: string, args: Record<string, Value>): Promise<unknown> {
    return this.#fromClient(path, args);
  }

  query(path: string, args: Record<string, Value>): Promise<unknown> {
    return this.#fromClient(path, args);
  }

  action(path: string, args: Record<string, Value>): Promise<unknown> {
    return this.#fromClient(path, args);
  }

  /** Runs a mutation as the scheduler does: conflicts are retried without end. */
  async scheduled(path: string, args: Record<string, Value>): Promise<unknown> {
    const fn = this.app.function(path);
    const table = this.app.tables.scheduledFunctions;
    const transaction = new Transaction(this.#origin, this.clock.nowMs);
    const state = { kind: "pending" };
    const fields = { name: path, args: [convexToJson(args)], scheduledTime: 0, state };
    const job: Job = { table, id: transaction.insert(table, fields), hops: 1, isCron: false };
    this.#commit(transaction);
    await this.clock.sleep(this.#options.schedulerMs);
    const cause = { hops: 1, job, isCron: false };
    return resultOf(await this.#start(fn, convexToJson(args), cause));
  }

  /** Runs the app's crons for some time, and nothing else. */
  async runCrons(forMs: number): Promise<void> {
    const endMs = this.clock.nowMs + forMs;
    for (const [name, { fn, args, schedule }] of cronsOf(this.app)) {
      let atMs = nextRunMs(name, schedule, this.clock.nowMs, null);
      for (; atMs < endMs; atMs = nextRunMs(name, schedule, atMs, atMs)) {
        this.clock.at(atMs, () => {
          void this.#start(fn, args, FROM_CRON).catch(() => undefined);
        });
      }
    }
    await this.clock.sleep(forMs);
  }

  /** Runs one function as its cron does, with everything that it sets off. */
  async runCron(fn: RegisteredFunction, args: Json): Promise<void> {
    await this.#start(fn, args, FROM_CRON);
    await this.clock.idle();
  }

  /** Puts documents in place without a call. */
  fill(tableName: string, documents: Iterable<Record<string, Value>>): void {
    const table = this.app.tables.named(tableName);
    for (const document of documents) {
      const id = this.#origin.newId(table);
      const _creationTime = this.#origin.creationTime(this.clock.nowMs);
      const value = { ...(convexToJson(document) as JsonObject), _id: id, _creationTime };
      table.put(id, new StoredDocument(table, id, value));
    }
  }

  /**
   * Copies every document of some tables, `times` each. Copies of one round refer to each other as
   * the originals do, and every time in them is `stepMs` earlier than in the round before.
   */
  multiply(tableNames: readonly string[], times: number, stepMs: number): void {
    const tables = tableNames
      .map((name) => this.app.tables.find(name))
      .filter((table) => table !== undefined);
    multiply(tables, { times, stepMs }, (table) => this.#origin.newId(table));
  }

  /** The documents of one of the app's tables. */
  documents(tableName: string): JsonObject[] {
    return [...this.app.tables.named(tableName).documents.values()].map(({ value }) => value);
  }

  /** Lets go of everything but the statistics. */
  forget(): void {
    this.calls.length = 0;
    this.#history.forget();
    for (const component of this.app.all()) component.tables.clear();
  }

  statsOf(label: string): OperationStats {
    let stats = this.stats.get(label);
    if (stats === undefined) {
      stats = newStats(label);
      this.stats.set(label, stats);
    }
    return stats;
  }

  async #fromClient(path: string, args: Record<string, Value>): Promise<unknown> {
    const fn = this.app.function(path);
    return resultOf(await this.#start(fn, convexToJson(args), FROM_CLIENT));
  }

  #start(fn: RegisteredFunction, args: Json, cause: Cause): Promise<string> {
    switch (fn.kind) {
      case "query":
        return this.#query(fn, args, cause);
      case "mutation":
        return this.#mutation(fn, args, cause);
      case "action":
        return this.#action(fn, args, cause);
    }
  }

  async #query(fn: RegisteredFunction, args: Json, cause: Cause): Promise<string> {
    const call = this.#newCall(fn, cause);
    const { result } = await this.#execute({ fn, args, cause, call });
    await this.#takeTime();
    return this.#finish(call, result);
  }

  async #mutation(fn: RegisteredFunction, args: Json, cause: Cause): Promise<string> {
    const stats = this.statsOf(fn.label);
    const beganMs = this.clock.nowMs;
    stats.operations += 1;
    for (let failures = 0; ; failures++) {
      stats.attempts += 1;
      const call = this.#newCall(fn, cause);
      const { result, seen, transaction } = await this.#execute({ fn, args, cause, call });
      await this.#takeTime();
      if (result instanceof Error) return this.#finish(call, result);
      const isAlone = transaction.isReadOnly || this.#options.transactionMs === 0;
      const hot = isAlone ? null : this.#history.conflictSince(transaction, seen);
      if (hot === null) {
        this.#commit(transaction);
        stats.latenciesMs.push(this.clock.nowMs - beganMs);
        this.onCommit?.(fn.label, resultOf(result));
        return this.#finish(call, result);
      }
      call.outcome = "conflict";
      stats.conflicts += 1;
      stats.hot.set(hot, (stats.hot.get(hot) ?? 0) + 1);
      if (cause.job === null && failures >= CLIENT_RETRIES_MAX) {
        stats.terminal += 1;
        throw new ContentionError(
          `Documents read from or written to the "${hot}" table changed while this mutation was being run and on every subsequent retry.`,
        );
      }
      await this.#backOff(failures, cause.job !== null);
    }
  }

  async #action(fn: RegisteredFunction, args: Json, cause: Cause): Promise<string> {
    const call = this.#newCall(fn, cause);
    const standIn = this.#standIns.get(fn.label);
    if (standIn !== undefined) {
      await standIn(args as JsonObject);
      return this.#finish(call, "null");
    }
    const frame = this.#frame({ fn, transaction: null, stale: false }, cause);
    try {
      fn.checkArgs(args);
      const run = () => fn.invoke(JSON.stringify([args]));
      return this.#finish(call, await frames.run(frame, run));
    } catch (error) {
      return this.#finish(call, crossing(error));
    }
  }

  /** Runs a query's or mutation's code; transactions run one at a time, as they take no time. */
  async #execute(run: {
    readonly fn: RegisteredFunction;
    readonly args: Json;
    readonly cause: Cause;
    readonly call: Call;
  }): Promise<{
    readonly result: string | Error;
    /** How many commits it saw. */
    readonly seen: number;
    readonly transaction: Transaction;
  }> {
    const { fn, args, cause, call } = run;
    const before = this.#executing;
    let release = (): void => undefined;
    this.#executing = new Promise<void>((resolve) => {
      release = resolve;
    });
    await before;
    const seen = this.#history.committed;
    const transaction = new Transaction(this.#origin, this.clock.nowMs, call.usage);
    try {
      if (cause.job !== null && fn.kind === "mutation") setState(transaction, cause.job, "success");
      const frame = this.#frame({ fn, transaction, stale: false }, cause);
      fn.checkArgs(args);
      const result = await frames.run(frame, () => fn.invoke(JSON.stringify([args])));
      return { result, seen, transaction };
    } catch (error) {
      return { result: crossing(error), seen, transaction };
    } finally {
      release();
    }
  }

  #frame(parts: Pick<Frame, "fn" | "transaction" | "stale">, cause: Cause): Frame {
    const frame: Frame = { ...parts, host: this.#host, results: new Map() };
    this.#causes.set(frame, cause);
    return frame;
  }

  #frameHost(): FrameHost {
    return {
      nested: async (frame, fn, args, stale) => {
        const { transaction } = frame;
        if (transaction === null) throw new Error("An action runs nothing inside itself.");
        const rollBack = transaction.savepoint();
        const inner = this.#frame({ fn, transaction, stale }, this.#causeOf(frame));
        try {
          fn.checkArgs(args);
          return await frames.run(inner, () => fn.invoke(JSON.stringify([args])));
        } catch (error) {
          rollBack();
          throw crossing(error);
        }
      },
      call: (fn, args) => this.#start(fn, args, { ...this.#causeOfCaller(), job: null }),
      schedule: (frame, fn, args, atMs) => this.#schedule(frame, { fn, args, atMs }),
      cancel: (frame, jobId) => {
        this.#cancel(frame, jobId);
      },
    };
  }

  #causeOfCaller(): Cause {
    const frame = frames.getStore();
    return frame === undefined ? FROM_CLIENT : this.#causeOf(frame);
  }

  #causeOf(frame: Frame): Cause {
    return this.#causes.get(frame) ?? FROM_CLIENT;
  }

  #schedule(
    frame: Frame,
    { fn, args, atMs }: { fn: RegisteredFunction; args: Json; atMs: number },
  ): string {
    const table = frame.fn.component.tables.scheduledFunctions;
    const transaction = frame.transaction ?? new Transaction(this.#origin, this.clock.nowMs);
    const fields = { name: fn.path, args: [args], scheduledTime: atMs, state: { kind: "pending" } };
    const id = transaction.insert(table, fields);
    transaction.usage.scheduled += 1;
    const { hops, isCron } = this.#causeOf(frame);
    const job: Job = { table, id, hops: hops + 1, isCron };
    transaction.onCommit.push(() => {
      const startMs = Math.max(atMs, this.clock.nowMs) + this.#options.schedulerMs;
      this.clock.at(startMs, () => {
        this.#dispatch(job, fn, args);
      });
    });
    if (frame.transaction === null) this.#commit(transaction);
    return id;
  }

  #cancel(frame: Frame, jobId: string): void {
    const table = frame.fn.component.tables.scheduledFunctions;
    const transaction = frame.transaction ?? new Transaction(this.#origin, this.clock.nowMs);
    setState(transaction, { table, id: jobId }, "canceled");
    if (frame.transaction === null) this.#commit(transaction);
  }

  #dispatch(job: Job, fn: RegisteredFunction, args: Json): void {
    const start = (): void => {
      if (stateOf(job) !== "pending") return;
      this.#runningJobs += 1;
      const run = this.#runJob(job, fn, args);
      void run.finally(() => {
        this.#runningJobs -= 1;
        this.#waitingJobs.shift()?.();
      });
    };
    if (this.#runningJobs >= SCHEDULED_AT_ONCE_MAX) this.#waitingJobs.push(start);
    else start();
  }

  async #runJob(job: Job, fn: RegisteredFunction, args: Json): Promise<void> {
    const cause = { hops: job.hops, job, isCron: job.isCron };
    try {
      if (fn.kind === "action") this.#putState(job, "inProgress");
      await this.#start(fn, args, cause);
      if (fn.kind === "action") this.#putState(job, "success");
    } catch {
      // The platform logs the failure of a scheduled function and goes on; it is in the calls.
      this.#putState(job, "failed");
    }
  }

  #putState(job: Job, kind: string): void {
    const transaction = new Transaction(this.#origin, this.clock.nowMs);
    setState(transaction, job, kind);
    this.#commit(transaction);
  }

  #commit(transaction: Transaction): void {
    const atMs = this.clock.nowMs;
    const writes = transaction.commit().map((write) => resolved(write, atMs));
    for (const { table, id, after } of writes) table.put(id, after);
    for (const effect of transaction.onCommit) effect();
    this.#history.add(writes);
  }

  async #takeTime(): Promise<void> {
    const { jitter, transactionMs } = this.#options;
    if (transactionMs === 0) return;
    await this.clock.sleep(transactionMs * (1 - jitter + 2 * jitter * this.random()));
  }

  async #backOff(failures: number, isScheduled: boolean): Promise<void> {
    const capMs = isScheduled ? SCHEDULED_BACKOFF_MAX_MS : CLIENT_BACKOFF_MAX_MS;
    await this.clock.sleep(Math.min(BACKOFF_BASE_MS * 2 ** failures, capMs) * this.random());
  }

  #newCall({ label, kind }: RegisteredFunction, { hops, isCron }: Cause): Call {
    const startedMs = this.clock.nowMs;
    const usage = new Usage();
    const call: Call = { label, kind, usage, hops, isCron, startedMs, outcome: "running" };
    this.calls.push(call);
    return call;
  }

  #finish(call: Call, result: string | Error): string {
    call.outcome = result instanceof Error ? "failed" : "done";
    if (result instanceof Error) throw result;
    return result;
  }
}
