/**
 * The registered functions of the job queue under a random history: in simulated time, with
 * transactions that overlap and conflict, workers that die between any two steps, a scheduler that
 * is late or loses actions, and operators who do whatever they may.
 */
import type { Value } from "convex/values";
import { expect } from "vitest";
import { Backend, ContentionError } from "../../../scripts/bench/engine/backend";
import type { Definition } from "../../../scripts/bench/engine/app";
import type { Random } from "../../../scripts/bench/engine/random";
import { env } from "../../../src/config/env";
import { MINUTE, SECOND } from "../../../src/core/time";
import { isObject, type JsonObject } from "../../../src/host/json";
import {
  checkAlways,
  checkEnd,
  deadLettersOf,
  fenceOf,
  overtakenIn,
  queueOf,
} from "./jobInvariants";

const TOOLS = [
  { tool: "search_web", name: "WEB" },
  { tool: "search_products", name: "PROD" },
  { tool: "search_global", name: "GLOB" },
] as const;

interface Claim {
  readonly jobId: string;
  readonly fence: number;
  readonly toolName: string;
}

/** A pool in which each busy slot has somebody who is next. */
const LARGE = 32;

type Args = Record<string, Value>;

/** Numbers drawn by the test, in [0, n). */
type Draw = (n: number) => number;

/** Draws for one step from one number, so that histories are cheap to make and to shrink. */
function drawsOf(drawn: number): Draw {
  const digits = { left: drawn };
  return (n) => {
    const digit = digits.left % n;
    digits.left = Math.floor(digits.left / n);
    return digit;
  };
}

export class JobHistory {
  /** What happened at least once, so that a test can tell that it tests something. */
  readonly reached = new Map<string, number>();
  readonly #backend: Backend;
  readonly #random: Random;
  readonly #sizes = new Map<string, number>();
  readonly #isResized: boolean;
  readonly #isLarge: boolean;
  /** Longest work, in milliseconds: short where ends and starts are to meet. */
  readonly #workMs: number;
  readonly #jobs: string[] = [];
  readonly #claims: Claim[] = [];
  readonly #completions = new Map<string, number>();
  readonly #handed = new Set<string>();
  readonly #under: Promise<void>[] = [];
  #accepted = 0;

  constructor(app: Definition, seed: number, large: boolean) {
    // Where nobody resizes it, a pool's limit is exact.
    this.#isResized = seed % 2 === 1;
    this.#isLarge = large;
    this.#workMs = seed % 4 < 2 ? 30 : 300;
    const variables: Record<string, string> = {};
    for (const { name, tool } of TOOLS) {
      const size = large && name === "WEB" ? LARGE : 2;
      variables[`TOOL_JOB_RUNMAX_${name}`] = String(size);
      variables[`TOOL_JOB_QMAX_${name}`] = size === LARGE ? "80" : "5";
      this.#sizes.set(tool, size);
    }
    const late = () => this.#schedulerMs();
    this.#backend = new Backend(app, {
      transactionMs: 15,
      jitter: 0.6,
      get schedulerMs() {
        return late();
      },
      seed,
      variables: {
        ...variables,
        TOOL_JOB_MAX_ATTEMPTS: "2",
        TOOL_JOB_LEASE_MS: "5000",
        BULKHEAD_TOOL_JOB_LEASE_MS: "15000",
      },
    });
    this.#random = this.#backend.random;
    this.#backend.standIn("toolRuns:run", (args) => this.#work(args));
  }

  /** Plays the steps, one shortly after the other, and then lets everything come to its end. */
  async play(steps: readonly number[]): Promise<void> {
    await this.#backend.within(async () => {
      await this.#fill();
      for (const [i, drawn] of steps.entries()) {
        const draw = drawsOf(drawn);
        // Quiet moments are when somebody who was forgotten is not found by chance.
        if (draw(40) === 0) {
          await this.#settle();
          await this.#fill();
        }
        this.#under.push(this.#step(draw));
        await this.#backend.clock.sleep(draw(40) === 0 ? draw(20) * SECOND : draw(8));
        if (i % 8 === 0) this.#check();
      }
      await this.#settle();
    });
  }

  /** A large pool takes longer to fill than a history lasts. */
  async #fill(): Promise<void> {
    if (this.#isLarge) await this.#enqueueMany("search_web", LARGE);
  }

  /** Lets everything come to its end, and looks whether it did. */
  async #settle(): Promise<void> {
    await this.#backend.clock.idle();
    await Promise.all(this.#under);
    this.#check();
    const stats = await this.#backend.query("toolJobs:getQueueStats", {});
    checkEnd(queueOf(this.#backend), {
      accepted: this.#accepted,
      completions: this.#completions,
      tools: TOOLS.map(({ tool }) => tool),
      stats,
    });
    this.#reach("everything is over");
  }

  /** Transactions that were begun. */
  get transactions(): number {
    return this.#backend.calls.filter(({ kind }) => kind === "mutation").length;
  }

  /** What was tried again by the platform: without that, nothing overlapped. */
  get conflicts(): number {
    return this.#backend.calls.filter(({ outcome }) => outcome === "conflict").length;
  }

  #reach(what: string): void {
    this.reached.set(what, (this.reached.get(what) ?? 0) + 1);
  }

  /** A scheduler is late at times: longer than a slot is kept. */
  #schedulerMs(): number {
    return this.#random() < 0.05 ? this.#random() * MINUTE : 5;
  }

  #chance(share: number): boolean {
    return this.#random() < share;
  }

  async #step(draw: Draw): Promise<void> {
    const kind = draw(64);
    const { name, tool } = TOOLS[Math.max(0, draw(5) - 2)] ?? TOOLS[0];
    if (kind < 30) await this.#enqueue(tool, draw);
    else if (kind < 33) await this.#enqueueMany(tool, 1 + draw(6));
    else if (kind < 40) await this.#cancel(draw);
    else if (kind < 44) await this.#beat(draw);
    else if (kind < 48) await this.#reportAgain(draw);
    else if (kind < 51) await this.#requeue(draw);
    else if (kind < 53) await this.#requeueMany(tool, draw);
    else if (kind < 55) await this.#defer(draw);
    else if (kind < 58 && this.#isResized) this.#resize(tool, name, draw);
    else if (kind < 60) await this.#claimNext(tool);
    else if (kind < 61) await this.#mutation("toolJobs:cleanupExpired", {});
  }

  async #mutation(path: string, args: Args): Promise<JsonObject | null> {
    try {
      const result = await this.#backend.mutation(path, args);
      this.#reach(path);
      return isObject(result) ? result : null;
    } catch (error) {
      if (!(error instanceof ContentionError)) throw error;
      this.#reach("given up");
      return null;
    }
  }

  /** Reports are handed to the scheduler where contention took them. */
  async #report(path: string, args: Args): Promise<JsonObject> {
    let result: unknown;
    try {
      result = await this.#backend.mutation(path, args);
    } catch (error) {
      if (!(error instanceof ContentionError)) throw error;
      result = await this.#backend.scheduled(path, { ...args, wantsNext: false });
    }
    if (!isObject(result)) throw new Error("a report is answered");
    return result;
  }

  async #enqueue(toolName: string, draw: Draw): Promise<void> {
    const isCaller = draw(3) > 0;
    const enqueued = await this.#mutation("toolJobs:enqueue", {
      source: "operator",
      toolName,
      argsJson: draw(8) === 0 ? JSON.stringify("x".repeat(2_000)) : '{"query":"boats"}',
      run: isCaller ? "caller" : "worker",
      qosClass: (["realtime", "interactive", "batch"] as const)[draw(3)] ?? "batch",
      ...(draw(3) === 0 ? { workKey: `key ${draw(4)}` } : {}),
      ...(draw(4) === 0 ? { deadlineMs: 1 + draw(3_000) } : {}),
      ...(draw(4) === 0 ? { maxAttempts: 1 + draw(3) } : {}),
    });
    if (enqueued === null) return;
    this.#reach(`enqueue: ${said(enqueued, "kind")}`);
    if (enqueued["kind"] === "run") {
      const claim = claimOf(enqueued["claim"]);
      if (claim === null) throw new Error("a job to run is claimed");
      this.#accept(claim.jobId);
      await this.#run(claim, false);
    }
    if (enqueued["kind"] === "waiting" && enqueued["joined"] === false)
      this.#accept(said(enqueued, "jobId"));
  }

  async #enqueueMany(toolName: string, count: number): Promise<void> {
    const jobs = Array.from({ length: count }, () => ({ argsJson: '{"query":"hats"}' }));
    const many = await this.#mutation("toolJobs:enqueueMany", {
      source: "operator",
      toolName,
      jobs,
    });
    const jobIds = many?.["jobIds"] ?? [];
    if (!Array.isArray(jobIds)) return;
    for (const jobId of jobIds) if (typeof jobId === "string") this.#accept(jobId);
  }

  #accept(jobId: string): void {
    this.#jobs.push(jobId);
    this.#accepted += 1;
  }

  async #cancel(draw: Draw): Promise<void> {
    const jobId = this.#anyJob(draw);
    if (jobId === null) return;
    const cancelled = await this.#mutation("toolJobs:cancel", { jobId });
    this.#reach(`cancel: ${said(cancelled, cancelled?.["ok"] === true ? "status" : "reason")}`);
  }

  async #beat(draw: Draw): Promise<void> {
    const claim = this.#claims.at(-1 - draw(8));
    if (claim === undefined) return;
    const { fence, jobId } = claim;
    const beat = await this.#mutation("toolJobs:heartbeat", {
      jobId,
      fence,
      progress: draw(10) / 9,
    });
    this.#reach(`heartbeat: ${said(beat, "ok")}`);
  }

  /** A worker that was thought to be dead, or reports twice. */
  async #reportAgain(draw: Draw): Promise<void> {
    const claim = this.#claims.at(-1 - draw(12));
    if (claim !== undefined) await this.#end(claim, { wantsNext: false, completes: draw(2) === 0 });
  }

  async #requeue(draw: Draw): Promise<void> {
    const jobId = this.#anyDeadLetter(draw);
    if (jobId !== null) await this.#mutation("toolJobs:requeueDeadLetter", { jobId });
  }

  #anyDeadLetter(draw: Draw): string | null {
    const dead = deadLettersOf(queueOf(this.#backend));
    return dead[draw(Math.max(1, dead.length))] ?? null;
  }

  async #requeueMany(toolName: string, draw: Draw): Promise<void> {
    await this.#mutation("toolJobs:requeueDeadLetters", {
      limit: 1 + draw(5),
      dryRun: draw(4) === 0,
      ...(draw(2) === 0 ? { toolName } : {}),
    });
  }

  async #defer(draw: Draw): Promise<void> {
    const jobId = this.#anyDeadLetter(draw);
    if (jobId === null) return;
    const reason = "the provider is down";
    const delayMs = draw(20) * SECOND;
    await this.#mutation("toolJobs:deferDeadLetter", { jobId, delayMs, reason });
  }

  #resize(tool: string, name: string, draw: Draw): void {
    const before = this.#sizes.get(tool) ?? 1;
    const size = before >= 32 || draw(4) === 0 ? 1 + draw(40) : 1 + draw(4);
    Reflect.set(env, `TOOL_JOB_RUNMAX_${name}`, String(size));
    // Those that run in slots above the new size run on.
    this.#sizes.set(tool, Math.max(before, size));
    this.#reach("resize");
  }

  async #claimNext(toolName: string): Promise<void> {
    const claim = claimOf(await this.#mutation("toolJobs:claimNext", { toolName }));
    if (claim !== null) await this.#run(claim, false);
  }

  #anyJob(draw: Draw): string | null {
    return this.#jobs.at(-1 - draw(8)) ?? null;
  }

  /** What a scheduled worker does, if it is started at all. */
  async #work(args: JsonObject): Promise<void> {
    const claims = args["claims"];
    if (!Array.isArray(claims)) throw new Error("a worker is handed claims");
    if (this.#chance(0.05)) {
      this.#reach("a worker that never starts");
      return;
    }
    await Promise.all(
      claims.map(async (first) => {
        for (let claim = claimOf(first); claim !== null;)
          claim = await this.#run(claim, this.#random() < 0.8);
      }),
    );
  }

  async #run(claim: Claim, wantsNext: boolean): Promise<Claim | null> {
    this.#claims.push(claim);
    if (this.#chance(0.06)) {
      this.#reach("a worker that dies with its claim");
      return null;
    }
    // Nobody is handed what another was handed.
    const key = `${claim.jobId} ${claim.fence}`;
    expect(this.#handed.has(key)).toBe(false);
    this.#handed.add(key);
    await this.#backend.clock.sleep(
      this.#chance(0.03)
        ? this.#random() * MINUTE
        : this.#random() *
            (this.#isLarge && claim.toolName === "search_web" ? 2_000 : this.#workMs),
    );
    const completes = this.#random() < 0.7;
    const next = await this.#end(claim, { wantsNext, completes });
    if (next === null || !this.#chance(0.05)) return next;
    this.#reach("a worker that dies with the next job");
    this.#claims.push(next);
    return null;
  }

  async #end(
    { fence, jobId }: Claim,
    { completes, wantsNext }: { readonly wantsNext: boolean; readonly completes: boolean },
  ): Promise<Claim | null> {
    if (completes) {
      const resultJson = this.#random() < 0.1 ? JSON.stringify("y".repeat(2_000)) : "null";
      const ended = await this.#report("toolJobs:complete", {
        jobId,
        fence,
        resultJson,
        wantsNext,
      });
      this.#reach(`complete: ${said(ended, "ok")}`);
      if (ended["ok"] === true) {
        expect(fenceOf(queueOf(this.#backend), jobId)).toBe(fence);
        this.#completions.set(jobId, (this.#completions.get(jobId) ?? 0) + 1);
      }
      return claimOf(ended["next"]);
    }
    const failure = { errorCode: "upstream_error", retryable: this.#random() < 0.8, wantsNext };
    const ended = await this.#report("toolJobs:fail", { jobId, fence, ...failure });
    this.#reach(`fail: ${said(ended, "status")}`);
    return claimOf(ended["next"]);
  }

  #check(): void {
    const queue = queueOf(this.#backend);
    if (overtakenIn(queue) > 0) this.#reach("a slot that another has by now");
    if (queue.slots.some(({ n }) => n !== undefined)) this.#reach("somebody is next");
    checkAlways(queue, this.#sizes);
  }
}

/** A field of a result that is a text or says yes or no. */
const said = (result: JsonObject | null, field: string): string =>
  JSON.stringify(result?.[field] ?? null).replaceAll('"', "");

function claimOf(value: unknown): Claim | null {
  if (!isObject(value)) return null;
  const { fence, jobId, toolName } = value;
  if (typeof jobId !== "string" || typeof fence !== "number" || typeof toolName !== "string")
    return null;
  return { jobId, fence, toolName };
}
