import type { FunctionReference } from "convex/server";
import { env } from "../../src/config/env";
import { readKnob } from "../../src/config/read";
import { fullJitterMs } from "../../src/core/backoff";
import { KIB, utf8Bytes } from "../../src/core/bytes";
import { MINUTE, SECOND } from "../../src/core/time";
import { AppError } from "../../src/errors/appError";
import { type QueuePolicy, queuePolicy } from "../../src/tools/policy";
import { isToolId, type ToolId } from "../../src/tools/table";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { newBatch, takeBatch } from "./batch";
import * as Slots from "./slots";

export type Job = Doc<"toolJobs">;

/** What a worker needs to run a job, and to prove later that it is still its own. */
export interface Claim {
  readonly jobId: Id<"toolJobs">;
  readonly fence: number;
  readonly toolName: string;
  readonly argsJson: string;
  readonly attempts: number;
  readonly leaseExpiresAt: number;
}

/** Scheduled functions the queue starts; the model knows no function files. */
export interface QueueFunctions {
  /** An action that claims and runs one waiting job of a tool. */
  readonly run: FunctionReference<"action", "internal", { toolName: string }>;
  readonly dispatch: FunctionReference<"mutation", "internal", { jobId: Id<"toolJobs"> }>;
  readonly expireLease: FunctionReference<
    "mutation",
    "internal",
    { jobId: Id<"toolJobs">; fence: number }
  >;
}

export interface NewJob {
  readonly source: Job["source"];
  readonly toolName: ToolId;
  readonly argsJson: string;
  /** Key of identical work; callers with the same key share one job. */
  readonly workKey?: string;
  readonly maxAttempts?: number;
  /** Who runs it where a slot is free: the caller at once, the default, or a worker of its own. */
  readonly run?: "caller" | "worker";
}

export type Enqueued =
  | { readonly kind: "run"; readonly claim: Claim }
  | { readonly kind: "waiting"; readonly jobId: Id<"toolJobs">; readonly joined: boolean }
  | { readonly kind: "saturated"; readonly retryAfterMs: number };

const MAX_ATTEMPTS_CEILING = 6;
const RETRY_CAP_MS = MINUTE;
/** After a lease ends its job is taken back, with a margin for the completion on its way. */
const LEASE_GRACE_MS = 5 * SECOND;
const SATURATED_RETRY_MS = SECOND;
/** When a worker that was started for a job is believed lost: the platform runs actions at most once. */
const START_GRACE_MS = 10 * SECOND;
/** Largest result. A tool's is 64 KiB, before its quotes are escaped. */
const RESULT_BYTES_MAX = 256 * KIB;

/** The tool a job names, or null for one that no longer exists. */
export const toolOf = (toolName: string): ToolId | null => (isToolId(toolName) ? toolName : null);

/**
 * Hands the job to the caller to run at once where a slot is free and nobody waits for it, queues it
 * where there is room, else refuses. Identical work in flight is joined and writes nothing.
 */
export async function enqueue(
  ctx: MutationCtx,
  job: NewJob,
  functions: QueueFunctions,
): Promise<Enqueued> {
  const nowMs = Date.now();
  const { toolName, workKey } = job;
  const inFlight = workKey === undefined ? null : await findInFlight(ctx, workKey);
  if (inFlight !== null) return { kind: "waiting", jobId: inFlight._id, joined: true };

  const slot = await Slots.findFree(ctx, slotRequest(toolName), nowMs);
  // Whoever waits goes first: a steady stream of new jobs must not starve the queue.
  const ahead = slot === null ? null : await nextWaiting(ctx, toolName, nowMs);
  const isNext = slot !== null && ahead === null;
  const run = isNext && job.run !== "worker" ? slot : null;
  if (!isNext && (await isFull(ctx, toolName)))
    return { kind: "saturated", retryAfterMs: SATURATED_RETRY_MS };
  const configured = readKnob(env, "TOOL_JOB_MAX_ATTEMPTS");
  const jobId = await ctx.db.insert("toolJobs", {
    source: job.source,
    toolName,
    qosClass: policyOf(toolName).qos,
    status: "queued",
    attempts: 0,
    maxAttempts: clamp(
      job.maxAttempts ?? configured,
      1,
      Math.max(configured, MAX_ATTEMPTS_CEILING),
    ),
    availableAt: nowMs,
    fence: 0,
    createdAt: nowMs,
    updatedAt: nowMs,
    expiresAt: nowMs + readKnob(env, "TOOL_JOB_TTL_MS"),
    ...(workKey === undefined ? {} : { workKey }),
  });
  await ctx.db.insert("toolJobPayloads", { jobId, argsJson: job.argsJson });
  if (ahead !== null) await startWorker(ctx, ahead, functions);
  if (run === null && !isNext) return { kind: "waiting", jobId, joined: false };
  const row = await ctx.db.get("toolJobs", jobId);
  if (row === null) throw new Error("a job just inserted exists");
  if (run === null) {
    await startWorker(ctx, row, functions);
    return { kind: "waiting", jobId, joined: false };
  }
  return { kind: "run", claim: await claim(ctx, { job: row, slot: run }, functions) };
}

/** Takes the oldest waiting job of a tool, if a slot is free for it. */
export async function claimNext(
  ctx: MutationCtx,
  toolName: ToolId,
  functions: QueueFunctions,
): Promise<Claim | null> {
  const nowMs = Date.now();
  const slot = await Slots.findFree(ctx, slotRequest(toolName), nowMs);
  if (slot === null) return null;
  const job = await nextWaiting(ctx, toolName, nowMs);
  return job === null ? null : await claim(ctx, { job, slot }, functions);
}

/**
 * Ends a job well. Refused (false) where the caller no longer holds it. Throws `internal_error` for
 * a result too large to be stored whole.
 */
export async function complete(
  ctx: MutationCtx,
  held: { readonly jobId: Id<"toolJobs">; readonly fence: number; readonly resultJson: string },
  functions: QueueFunctions,
): Promise<boolean> {
  const job = await loadHeld(ctx, held);
  if (job === null) return false;
  if (utf8Bytes(held.resultJson) > RESULT_BYTES_MAX)
    throw new AppError("internal_error", { detail: "The result is too large." });
  const nowMs = Date.now();
  await stopTimer(ctx, job);
  await endAttempt(ctx, job, functions);
  const payload = await loadPayload(ctx, job._id);
  if (payload !== null)
    await ctx.db.patch("toolJobPayloads", payload._id, { resultJson: held.resultJson });
  await ctx.db.patch("toolJobs", job._id, {
    status: "completed",
    completedAt: nowMs,
    expiresAt: nowMs + readKnob(env, "TOOL_JOB_TTL_MS"),
    ...released(nowMs),
  });
  return true;
}

export type Failed = "requeued" | "dead_letter" | "missing" | "not_running";

/** Ends one attempt badly: schedules the next in the same transaction, or buries the job. */
export async function fail(
  ctx: MutationCtx,
  held: {
    readonly jobId: Id<"toolJobs">;
    readonly fence: number;
    readonly errorCode: string;
    readonly retryable: boolean;
  },
  functions: QueueFunctions,
): Promise<{ readonly status: Failed; readonly retryDelayMs: number }> {
  const job = await loadHeld(ctx, held);
  if (job === null) {
    const gone = (await ctx.db.get("toolJobs", held.jobId)) === null;
    return { status: gone ? "missing" : "not_running", retryDelayMs: 0 };
  }
  await stopTimer(ctx, job);
  await endAttempt(ctx, job, functions);
  if (!held.retryable || job.attempts >= job.maxAttempts) {
    await bury(ctx, job, held.retryable ? "attempts_exhausted" : "not_retryable", held.errorCode);
    return { status: "dead_letter", retryDelayMs: 0 };
  }
  return { status: "requeued", retryDelayMs: await requeue(ctx, job, held.errorCode, functions) };
}

/** Takes a job back whose worker let its lease expire. A job that ended or moved on is left alone. */
export async function expireLease(
  ctx: MutationCtx,
  held: { readonly jobId: Id<"toolJobs">; readonly fence: number },
  functions: QueueFunctions,
): Promise<void> {
  const job = await loadHeld(ctx, held);
  if (job === null) return;
  await endAttempt(ctx, job, functions);
  if (job.attempts >= job.maxAttempts) await bury(ctx, job, "lease_expired", "lease_expired");
  else await requeue(ctx, job, "lease_expired", functions);
}

/** Starts a worker for a waiting job whose time has come; does nothing where no slot is free. */
export async function dispatch(
  ctx: MutationCtx,
  jobId: Id<"toolJobs">,
  functions: QueueFunctions,
): Promise<void> {
  const nowMs = Date.now();
  const job = await ctx.db.get("toolJobs", jobId);
  if (job?.status !== "queued" || job.availableAt > nowMs) return;
  const toolName = toolOf(job.toolName);
  if (toolName === null) return;
  const slot = await Slots.findFree(ctx, slotRequest(toolName), nowMs);
  // Without a free slot the completion that frees one starts the next worker.
  if (slot !== null) await startWorker(ctx, job, functions);
}

/** Starts a worker for a job that waits, and looks again in case the worker is lost on its way. */
async function startWorker(ctx: MutationCtx, job: Job, functions: QueueFunctions): Promise<void> {
  await ctx.scheduler.runAfter(0, functions.run, { toolName: job.toolName });
  await ctx.scheduler.runAfter(START_GRACE_MS, functions.dispatch, { jobId: job._id });
}

/** Arguments and result of a job. */
export async function loadPayload(
  ctx: QueryCtx,
  jobId: Id<"toolJobs">,
): Promise<Doc<"toolJobPayloads"> | null> {
  return await ctx.db
    .query("toolJobPayloads")
    .withIndex("by_job", (q) => q.eq("jobId", jobId))
    .unique();
}

const released = (nowMs: number) => ({
  updatedAt: nowMs,
  slot: undefined,
  leaseExpiresAt: undefined,
  leaseTimerId: undefined,
});

async function claim(
  ctx: MutationCtx,
  { job, slot }: { readonly job: Job; readonly slot: Slots.FreeSlot },
  functions: QueueFunctions,
): Promise<Claim> {
  const nowMs = Date.now();
  const lease = await Slots.take(ctx, slot, nowMs);
  const fence = job.fence + 1;
  const leaseExpiresAt = nowMs + slot.request.leaseMs;
  const leaseTimerId = await ctx.scheduler.runAt(
    leaseExpiresAt + LEASE_GRACE_MS,
    functions.expireLease,
    { jobId: job._id, fence },
  );
  await ctx.db.patch("toolJobs", job._id, {
    status: "running",
    attempts: job.attempts + 1,
    fence,
    slot: lease,
    leaseExpiresAt,
    leaseTimerId,
    updatedAt: nowMs,
  });
  const payload = await loadPayload(ctx, job._id);
  if (payload === null) throw new Error("a job has its payload");
  return {
    jobId: job._id,
    fence,
    toolName: job.toolName,
    argsJson: payload.argsJson,
    attempts: job.attempts + 1,
    leaseExpiresAt,
  };
}

/** The job if this fence still holds it, else null: the result of a stale worker is refused. */
async function loadHeld(
  ctx: MutationCtx,
  { jobId, fence }: { readonly jobId: Id<"toolJobs">; readonly fence: number },
): Promise<Job | null> {
  const job = await ctx.db.get("toolJobs", jobId);
  return job?.status === "running" && job.fence === fence ? job : null;
}

/** Cancels the scheduled end of the lease. Not for that function itself, which is running then. */
async function stopTimer(ctx: MutationCtx, job: Job): Promise<void> {
  if (job.leaseTimerId !== undefined) await ctx.scheduler.cancel(job.leaseTimerId);
}

/** Frees the slot and hands it over: a worker is started if another job of the tool waits. */
async function endAttempt(ctx: MutationCtx, job: Job, functions: QueueFunctions): Promise<void> {
  const held = job.slot === undefined ? null : await Slots.loadHeld(ctx, job.slot);
  if (held !== null) await Slots.release(ctx, held, Date.now());
  const toolName = toolOf(job.toolName);
  if (toolName === null) return;
  const waiting = await nextWaiting(ctx, toolName, Date.now());
  if (waiting !== null) await startWorker(ctx, waiting, functions);
}

async function requeue(
  ctx: MutationCtx,
  job: Job,
  errorCode: string,
  functions: QueueFunctions,
): Promise<number> {
  const nowMs = Date.now();
  const retryDelayMs = fullJitterMs({
    attempt: job.attempts,
    baseMs: readKnob(env, "TOOL_JOB_RETRY_BASE_MS"),
    capMs: RETRY_CAP_MS,
    random: Math.random,
  });
  const availableAt = nowMs + retryDelayMs;
  await ctx.db.patch("toolJobs", job._id, {
    status: "queued",
    availableAt,
    lastErrorCode: errorCode,
    ...released(nowMs),
  });
  await ctx.scheduler.runAt(availableAt, functions.dispatch, { jobId: job._id });
  return retryDelayMs;
}

async function bury(ctx: MutationCtx, job: Job, reason: string, errorCode: string): Promise<void> {
  const nowMs = Date.now();
  await ctx.db.patch("toolJobs", job._id, {
    status: "dead_letter",
    deadLetterReason: reason,
    deadLetterAt: nowMs,
    lastErrorCode: errorCode,
    expiresAt: nowMs + readKnob(env, "TOOL_JOB_DLQ_TTL_MS"),
    ...released(nowMs),
  });
}

function slotRequest(toolName: ToolId): Slots.SlotRequest {
  return {
    pool: `tool:${toolName}`,
    size: policyOf(toolName).runMax,
    holder: toolName,
    leaseMs: readKnob(env, "TOOL_JOB_LEASE_MS"),
  };
}

function policyOf(toolName: ToolId): QueuePolicy {
  const policy = queuePolicy(env, toolName);
  if (policy === null)
    throw new AppError("invalid_request", { detail: "This tool does not queue." });
  return policy;
}

/** Whether the tool's waiting room is full. Reads no more than its cap, and only when all run. */
async function isFull(ctx: MutationCtx, toolName: ToolId): Promise<boolean> {
  const { queueMax } = policyOf(toolName);
  const waiting = await ctx.db
    .query("toolJobs")
    .withIndex("by_tool_status_available", (q) => q.eq("toolName", toolName).eq("status", "queued"))
    .take(queueMax);
  return waiting.length >= queueMax;
}

async function nextWaiting(ctx: MutationCtx, toolName: ToolId, nowMs: number): Promise<Job | null> {
  return await ctx.db
    .query("toolJobs")
    .withIndex("by_tool_status_available", (q) =>
      q.eq("toolName", toolName).eq("status", "queued").lte("availableAt", nowMs),
    )
    .first();
}

async function findInFlight(ctx: MutationCtx, workKey: string): Promise<Job | null> {
  for (const status of ["running", "queued"] as const) {
    const job = await ctx.db
      .query("toolJobs")
      .withIndex("by_work_key", (q) => q.eq("workKey", workKey).eq("status", status))
      .first();
    if (job !== null) return job;
  }
  return null;
}

/** What is no number becomes `min`: a job must not be tried for ever. */
const clamp = (value: number, min: number, max: number): number =>
  Math.min(max, Math.max(min, Math.floor(value) || min));

/**
 * Deletes ended jobs whose retention is over, with their payloads, one batch of them. One that
 * never ended is not deleted but buried first: a job does not vanish.
 */
export async function deleteExpired(
  ctx: MutationCtx,
  functions: QueueFunctions,
): Promise<{ readonly deleted: number; readonly hasMore: boolean }> {
  const nowMs = Date.now();
  const batch = newBatch();
  let deleted = 0;
  const expired = await takeBatch(
    ctx.db.query("toolJobs").withIndex("by_expires_at", (q) => q.lte("expiresAt", nowMs)),
    batch,
  );
  for (const job of expired) {
    if (job.status === "queued" || job.status === "running") {
      if (job.status === "running") {
        await stopTimer(ctx, job);
        await endAttempt(ctx, job, functions);
      }
      await bury(ctx, job, "expired", job.lastErrorCode ?? "expired");
      continue;
    }
    const payload = await loadPayload(ctx, job._id);
    if (payload !== null) await ctx.db.delete("toolJobPayloads", payload._id);
    await ctx.db.delete("toolJobs", job._id);
    deleted += 1;
  }
  return { deleted, hasMore: batch.full };
}
