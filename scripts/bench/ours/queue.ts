import { ContentionError, type Backend } from "../engine/backend";
import { MINUTE } from "../../../src/core/time";
import { fieldAt, isArray, isObject, type JsonObject } from "../../../src/host/json";

const TOOL = "search_web";
const LARGE_POOL = 32;
/** Jobs enqueued in one mutation, at most. */
const BATCH = 100;
/** How long a worker goes from job to job, as in convex/toolRuns.ts. */
const WORKER_MS = 4 * MINUTE;

/** Limits of the measured tool out of the way: what binds is the pool's size. */
export function queueVariables(slots: number, waiting = 10_000): Record<string, string> {
  return {
    TOOL_JOB_RUNMAX_WEB: String(slots),
    TOOL_JOB_QMAX_WEB: String(waiting),
    BULKHEAD_TOOL_JOB_MAX: String(slots),
    // A worker that is handed many jobs saves calls; the default is for pools of a few slots.
    TOOL_JOB_MAX_PER_RUN: slots >= LARGE_POOL ? "20" : "3",
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
  readonly #failsAlways: ReadonlySet<number>;
  readonly #crashesOnce: Set<number>;
  #running = 0;

  constructor(
    backend: Backend,
    options: {
      readonly workMs: number;
      readonly failsOnce?: Iterable<number>;
      /** Jobs that no further attempt would save. */
      readonly failsAlways?: ReadonlySet<number>;
      readonly crashesOnce?: Iterable<number>;
    },
  ) {
    this.#backend = backend;
    this.#workMs = options.workMs;
    this.#failsOnce = new Set(options.failsOnce);
    this.#failsAlways = options.failsAlways ?? new Set();
    this.#crashesOnce = new Set(options.crashesOnce);
    backend.standIn("toolRuns:run", (args) => this.#work(args));
  }

  /** Enqueues job `i` for a worker; "saturated" where the queue refuses. */
  async enqueue(i: number): Promise<"accepted" | "saturated"> {
    const result = await this.#backend.mutation("toolJobs:enqueue", {
      ...JOB,
      argsJson: argsOf(i),
      run: "worker",
    });
    return this.#accepted(i, result);
  }

  /** Enqueues job `i` and runs it here where a slot is free. */
  async enqueueAndRun(i: number): Promise<"accepted" | "saturated"> {
    const result = await this.#backend.mutation("toolJobs:enqueue", {
      ...JOB,
      argsJson: argsOf(i),
      run: "caller",
    });
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
      const batch = numbers.map((i) => ({ argsJson: argsOf(i) }));
      const many = await this.#backend.mutation("toolJobs:enqueueMany", { ...JOB, jobs: batch });
      const jobIds = isObject(many) ? (many["jobIds"] ?? null) : null;
      for (const [place, i] of numbers.entries()) {
        if (!isArray(jobIds) || typeof jobIds[place] !== "string") continue;
        this.times.enqueuedMs.set(i, this.#backend.clock.nowMs);
        accepted += 1;
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

  #accepted(i: number, result: unknown): "accepted" | "saturated" {
    if (textAt(result, "kind") === "saturated") return "saturated";
    this.times.enqueuedMs.set(i, this.#backend.clock.nowMs);
    return "accepted";
  }

  /** What a scheduled worker does: runs what it was handed, and whatever it is handed next. */
  async #work(args: JsonObject): Promise<void> {
    const handed = args["claims"] ?? null;
    if (!isArray(handed)) throw new Error("A worker is handed claims.");
    const untilMs = this.#backend.clock.nowMs + WORKER_MS;
    await Promise.all(handed.map((claim) => this.#runLane(toClaim(claim), untilMs)));
  }

  async #runLane(first: Claim | null, untilMs: number): Promise<void> {
    for (let claim = first; claim !== null;)
      claim = await this.#run(claim, this.#backend.clock.nowMs < untilMs);
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
    if (this.#failsAlways.has(i) || this.#failsOnce.delete(i)) {
      const retryable = !this.#failsAlways.has(i);
      const failure = { jobId, fence, errorCode: "upstream_error", retryable, wantsNext };
      return claimOf(await this.#report("toolJobs:fail", failure), "next");
    }
    const completion = { jobId, fence, resultJson: "null", wantsNext };
    const completed = await this.#report("toolJobs:complete", completion);
    doneMs.set(i, clock.nowMs);
    return claimOf(completed, "next");
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

const JOB = { source: "operator", toolName: TOOL };
const argsOf = (i: number): string => JSON.stringify({ i });

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
