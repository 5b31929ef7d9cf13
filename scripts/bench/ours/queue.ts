import { makeFunctionReference, mutationGeneric, type DefaultFunctionArgs } from "convex/server";
import { v } from "convex/values";
import { ContentionError, type Backend } from "../engine/backend";
import { fieldAt, isArray, isObject, type Json, type JsonObject } from "../../../src/host/json";

const enqueueOne = makeFunctionReference<"mutation">("toolJobs:enqueue");

/** What an app does that has many jobs at once: all of them in one transaction. */
export const enqueueMany = mutationGeneric({
  args: { jobs: v.array(v.any()) },
  returns: v.array(v.any()),
  handler: async (ctx, { jobs }) => {
    const results: unknown[] = [];
    for (const job of jobs)
      results.push(await ctx.runMutation(enqueueOne, job as DefaultFunctionArgs));
    return results;
  },
});

const TOOL = "search_web";
/** Jobs enqueued in one mutation: many, and far from the limits of one transaction. */
const BATCH = 100;

/** Limits of the measured tool out of the way: what binds is the pool's size. */
export function queueVariables(slots: number, waiting = 10_000): Record<string, string> {
  return {
    TOOL_JOB_RUNMAX_WEB: String(slots),
    TOOL_JOB_QMAX_WEB: String(waiting),
    BULKHEAD_TOOL_JOB_MAX: String(slots),
  };
}

interface Claim {
  readonly jobId: string;
  readonly fence: number;
  readonly i: number;
}

/** How the jobs of a run went, by their numbers, in simulated time. */
export interface JobTimes {
  readonly enqueuedMs: Map<number, number>;
  readonly startedMs: Map<number, number>;
  readonly doneMs: Map<number, number>;
  /** Every attempt at any job. */
  readonly attemptsMs: number[];
  runningMax: number;
}

/**
 * The queue with workers that do nothing but take their time: enqueueing, claiming and completing
 * are the registered functions, the tool's work is a pause.
 */
export class OurQueue {
  readonly times: JobTimes = {
    enqueuedMs: new Map(),
    startedMs: new Map(),
    doneMs: new Map(),
    attemptsMs: [],
    runningMax: 0,
  };
  readonly #backend: Backend;
  readonly #workMs: number;
  readonly #failsOnce: Set<number>;
  readonly #crashesOnce: Set<number>;
  #running = 0;

  constructor(
    backend: Backend,
    options: {
      readonly workMs: number;
      readonly failsOnce?: Iterable<number>;
      readonly crashesOnce?: Iterable<number>;
    },
  ) {
    this.#backend = backend;
    this.#workMs = options.workMs;
    this.#failsOnce = new Set(options.failsOnce);
    this.#crashesOnce = new Set(options.crashesOnce);
    backend.standIn("toolRuns:run", (args) => this.#work(args));
  }

  /** Enqueues job `i` for a worker; "saturated" where the queue refuses. */
  async enqueue(i: number): Promise<"accepted" | "saturated"> {
    const result = await this.#backend.mutation("toolJobs:enqueue", this.#jobArgs(i, "worker"));
    const accepted = this.#accepted(i, result);
    const claim = claimOf(result, "claim");
    if (claim !== null) void this.#run(claim, false);
    return accepted;
  }

  /** Enqueues job `i` and runs it here where a slot is free. */
  async enqueueAndRun(i: number): Promise<"accepted" | "saturated"> {
    const result = await this.#backend.mutation("toolJobs:enqueue", this.#jobArgs(i, "caller"));
    const accepted = this.#accepted(i, result);
    const claim = claimOf(result, "claim");
    if (claim !== null) await this.#run(claim, false);
    return accepted;
  }

  /** Enqueues jobs from number `from`, a batch per mutation; returns how many were accepted. */
  async enqueueMany(from: number, jobs: number): Promise<number> {
    let accepted = 0;
    for (let first = from; first < from + jobs; first += BATCH) {
      const numbers = Array.from(
        { length: Math.min(BATCH, from + jobs - first) },
        (_, place) => first + place,
      );
      const batch = numbers.map((i) => this.#jobArgs(i, "worker"));
      const results = await this.#backend.mutation("bench:enqueueMany", { jobs: batch });
      for (const [place, i] of numbers.entries()) {
        const result: unknown = Array.isArray(results) ? results[place] : null;
        if (this.#accepted(i, result) === "accepted") accepted += 1;
        const claim = claimOf(result, "claim");
        if (claim !== null) void this.#run(claim, false);
      }
    }
    return accepted;
  }

  /** Jobs that were accepted and never done. */
  get lost(): number {
    return this.times.enqueuedMs.size - this.times.doneMs.size;
  }

  startLatenciesMs(): number[] {
    return latencies(this.times.enqueuedMs, this.times.startedMs);
  }

  doneLatenciesMs(): number[] {
    return latencies(this.times.enqueuedMs, this.times.doneMs);
  }

  #jobArgs(i: number, run: "caller" | "worker"): Record<string, string> {
    const args = { source: "operator", toolName: TOOL, argsJson: JSON.stringify({ i }) };
    return this.#backend.app.accepts("toolJobs:enqueue", "run") ? { ...args, run } : args;
  }

  #accepted(i: number, result: unknown): "accepted" | "saturated" {
    if (textAt(result, "kind") === "saturated") return "saturated";
    this.times.enqueuedMs.set(i, this.#backend.clock.nowMs);
    return "accepted";
  }

  /** What a scheduled worker does: runs what it was handed, and whatever it is handed next. */
  async #work(args: JsonObject): Promise<void> {
    const handed = isArray(args["claims"] ?? null)
      ? (args["claims"] as readonly Json[])
      : [args["claim"] ?? null];
    const claims = handed.map((claim) => toClaim(claim)).filter((claim) => claim !== null);
    if (claims.length === 0 && typeof args["toolName"] === "string") {
      const claimed = await this.#backend.mutation("toolJobs:claimNext", {
        toolName: args["toolName"],
      });
      const claim = toClaim(claimed);
      if (claim !== null) claims.push(claim);
    }
    await Promise.all(
      claims.map(async (first) => {
        for (let claim: Claim | null = first; claim !== null;) claim = await this.#run(claim, true);
      }),
    );
  }

  async #run({ fence, i, jobId }: Claim, wantsNext: boolean): Promise<Claim | null> {
    const { clock } = this.#backend;
    const { doneMs, startedMs } = this.times;
    if (!startedMs.has(i)) startedMs.set(i, clock.nowMs);
    this.times.attemptsMs.push(clock.nowMs);
    if (this.#crashesOnce.delete(i)) return null;
    this.#running += 1;
    this.times.runningMax = Math.max(this.times.runningMax, this.#running);
    if (this.#workMs > 0) await clock.sleep(this.#workMs);
    this.#running -= 1;
    if (this.#failsOnce.delete(i)) {
      const failure = { jobId, fence, errorCode: "upstream_error", retryable: true };
      return claimOf(await this.#report("toolJobs:fail", failure), "next");
    }
    const completion = { jobId, fence, resultJson: "null", ...this.#wanting(wantsNext) };
    const completed = await this.#report("toolJobs:complete", completion);
    doneMs.set(i, clock.nowMs);
    return claimOf(completed, "next");
  }

  #wanting(wantsNext: boolean): Record<string, boolean> {
    return wantsNext && this.#backend.app.accepts("toolJobs:complete", "wantsNext")
      ? { wantsNext }
      : {};
  }

  /** A report that the platform gives up is handed to the scheduler, which never does. */
  async #report(path: string, args: Record<string, string | number | boolean>): Promise<unknown> {
    try {
      return await this.#backend.mutation(path, args);
    } catch (error) {
      if (!(error instanceof ContentionError)) throw error;
      return this.#backend.scheduled(path, args);
    }
  }
}

function claimOf(result: unknown, name: string): Claim | null {
  return isObject(result) ? toClaim(fieldAt(result, [name]) ?? null) : null;
}

function toClaim(value: unknown): Claim | null {
  if (!isObject(value)) return null;
  const { argsJson, fence, jobId } = value;
  if (typeof jobId !== "string" || typeof fence !== "number" || typeof argsJson !== "string")
    return null;
  const { i } = JSON.parse(argsJson) as { readonly i: number };
  return { jobId, fence, i };
}

function textAt(value: unknown, name: string): string | null {
  const text = isObject(value) ? fieldAt(value, [name]) : null;
  return typeof text === "string" ? text : null;
}

function latencies(from: ReadonlyMap<number, number>, to: ReadonlyMap<number, number>): number[] {
  const found: number[] = [];
  for (const [i, startMs] of from) {
    const endMs = to.get(i);
    if (endMs !== undefined) found.push(Math.max(0, endMs - startMs));
  }
  return found;
}
