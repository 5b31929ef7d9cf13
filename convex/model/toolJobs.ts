/** The life of a tool job: enqueued, run by its caller or a worker, completed, failed, cancelled. */
import { KIB, utf8Bytes } from "../../src/core/bytes";
import { type Ending, isPast, PLACE, standingOf } from "../../src/core/queue";
import { SECOND } from "../../src/core/time";
import { AppError } from "../../src/errors/appError";
import { internal } from "../_generated/api";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import * as Slots from "./slots";
import * as Counts from "./toolJobCounts";
import * as Ends from "./toolJobEnds";
import * as Line from "./toolJobLine";
import {
  type Claim,
  deadlineOf,
  type Job,
  type JobId,
  LEASE_GRACE_MS,
  newRow,
  type NewJob,
  queueOf,
  statusNow,
  type ToolQueue,
} from "./toolJobRows";
import * as Starts from "./toolJobStarts";

export type Enqueued =
  | { readonly kind: "run"; readonly claim: Claim }
  | { readonly kind: "waiting"; readonly jobId: JobId; readonly joined: boolean }
  | { readonly kind: "saturated"; readonly retryAfterMs: number };

/** Who holds a job, and whether the same worker would run another one after it. */
export interface Held {
  readonly jobId: JobId;
  readonly fence: number;
  readonly wantsNext: boolean;
}

export const SATURATED_RETRY_MS = SECOND;
/** Largest result. A tool's is 64 KiB, before its quotes are escaped. */
const RESULT_BYTES_MAX = 256 * KIB;

/**
 * Hands the job to the caller to run at once where a slot is free, or to a worker; puts it where it
 * waits for a slot, or refuses. Identical work in flight is joined and writes nothing.
 */
export async function enqueue(
  ctx: MutationCtx,
  queue: ToolQueue,
  { run, ...job }: NewJob & { readonly run: "caller" | "worker" },
): Promise<Enqueued> {
  const nowMs = Date.now();
  const inFlight = await findInFlight(ctx, job.workKey, nowMs);
  if (inFlight !== null) return { kind: "waiting", jobId: inFlight._id, joined: true };
  const seat = await Line.findSeat(ctx, queue, { mustFit: false, nowMs });
  if (seat.kind === "full") return { kind: "saturated", retryAfterMs: SATURATED_RETRY_MS };
  const draft = { row: newRow(job, queue, nowMs), of: { argsJson: job.argsJson } };
  const { claim, jobId } = await Starts.place(ctx, queue, draft, { seat, nowMs });
  if (claim !== null && run === "caller") return { kind: "run", claim };
  if (claim !== null) await Starts.startWorkers(ctx, [claim]);
  return { kind: "waiting", jobId, joined: false };
}

/** A job of the same work that waits or runs, and may still bring a result. */
export async function findInFlight(
  ctx: MutationCtx,
  workKey: string | undefined,
  nowMs: number,
): Promise<Job | null> {
  if (workKey === undefined) return null;
  const jobs = await ctx.db
    .query("toolJobs")
    .withIndex("by_work_key", (q) => q.eq("k", workKey))
    .order("desc")
    .take(IN_FLIGHT_LOOKS);
  return jobs.find((job) => ["queued", "running"].includes(statusNow(job, nowMs))) ?? null;
}

/** Jobs of the same work there may be besides one in flight: those past their deadline. */
const IN_FLIGHT_LOOKS = 4;

/** The job if this fence still holds it, else null: the result of a stale worker is refused. */
async function loadHeld(
  ctx: QueryCtx,
  { fence, jobId }: Pick<Held, "jobId" | "fence">,
): Promise<Job | null> {
  const job = await ctx.db.get("toolJobs", jobId);
  return job?.p === PLACE.running && job.f === fence ? job : null;
}

export interface Completed {
  readonly ok: boolean;
  readonly next: Claim | null;
  /** When the attempt that completed it began, in epoch milliseconds; 0 where none did. */
  readonly claimedAtMs: number;
}

/**
 * Ends a job well and gives its slot to whoever is next. Not `ok` where the caller no longer holds
 * the job, or it was cancelled: then its result is not kept. Throws `internal_error` for a result
 * too large to be stored whole.
 */
export async function complete(
  ctx: MutationCtx,
  { resultJson, wantsNext, ...held }: Held & { readonly resultJson: string },
): Promise<Completed> {
  const nowMs = Date.now();
  const job = await loadHeld(ctx, held);
  if (job === null) return { ok: false, next: null, claimedAtMs: 0 };
  if (utf8Bytes(resultJson) > RESULT_BYTES_MAX)
    throw new AppError("internal_error", { detail: "The result is too large." });
  await stopTimer(ctx, job);
  const completed = job.y !== true;
  if (completed) await Ends.succeed(ctx, job, { resultJson, nowMs });
  else await Ends.cancel(ctx, job, nowMs);
  const next = await giveSlot(ctx, job, { completed, nowMs });
  return { ok: completed, next: await offer(ctx, next, wantsNext), claimedAtMs: job.a };
}

export type FailedStatus =
  "requeued" | "dead_letter" | "failed" | "cancelled" | "missing" | "not_running";

export interface Failed {
  readonly status: FailedStatus;
  readonly retryDelayMs: number;
  readonly next: Claim | null;
  /** When the attempt that failed began, in epoch milliseconds; 0 where none did. */
  readonly claimedAtMs: number;
}

/** Ends one attempt badly: the next is scheduled in the same transaction, or the job is buried. */
export async function fail(
  ctx: MutationCtx,
  {
    errorCode,
    retryable,
    wantsNext,
    ...held
  }: Held & { readonly errorCode: string; readonly retryable: boolean },
): Promise<Failed> {
  const job = await loadHeld(ctx, held);
  if (job === null) {
    const gone = (await ctx.db.get("toolJobs", held.jobId)) === null;
    const status = gone ? "missing" : "not_running";
    return { status, retryDelayMs: 0, next: null, claimedAtMs: 0 };
  }
  await stopTimer(ctx, job);
  const ending =
    queueOf(job.t) === null ? "unknown_tool" : retryable ? "failed" : "failed_for_good";
  const { ended, next } = await endAttempt(ctx, job, { ending, code: errorCode });
  return {
    status: ended.kind,
    retryDelayMs: ended.kind === "requeued" ? ended.retryDelayMs : 0,
    next: await offer(ctx, next, wantsNext),
    claimedAtMs: job.a,
  };
}

async function endAttempt(
  ctx: MutationCtx,
  job: Job,
  { code, ending }: { readonly ending: Ending; readonly code: string },
): Promise<{ readonly ended: Ends.Ended; readonly next: Claim | null }> {
  const nowMs = Date.now();
  const ended = await Ends.endAttempt(ctx, job, { ending, code, nowMs });
  return { ended, next: await giveSlot(ctx, job, { completed: false, nowMs }) };
}

/** Gives the slot of a job that ended to whoever is next. One that was lost is another's already. */
async function giveSlot(
  ctx: MutationCtx,
  job: Job,
  { completed, nowMs }: { readonly completed: boolean; readonly nowMs: number },
): Promise<Claim | null> {
  const slot = await slotOf(ctx, job, nowMs);
  if (slot !== null) return await Starts.handOn(ctx, slot, { toolName: job.t, completed, nowMs });
  if (completed) await Counts.add(ctx, job.t, { completed: 1 });
  return null;
}

/** The slot a job runs in: still its own, or expired and nobody's. */
async function slotOf(ctx: QueryCtx, { g, l }: Job, nowMs: number): Promise<Doc<"slots"> | null> {
  if (l === undefined || g === undefined) return null;
  const slot = await ctx.db.get("slots", l);
  return slot !== null && (slot.f === g || slot.e <= nowMs) ? slot : null;
}

/** Gives a claim to the worker that asked for one, else starts a worker with it. */
async function offer(
  ctx: MutationCtx,
  claim: Claim | null,
  wantsNext: boolean,
): Promise<Claim | null> {
  if (claim === null || wantsNext) return claim;
  await Starts.startWorkers(ctx, [claim]);
  return null;
}

/** Cancels what is scheduled for a job. Not for that function itself, which is running then. */
async function stopTimer(ctx: MutationCtx, { x }: Job): Promise<void> {
  if (x !== undefined) await ctx.scheduler.cancel(x);
}

/**
 * Extends the lease of a running job, writing only once half of it has passed, and notes how far it
 * is. Tells a worker whether it still holds the job and whether anybody still wants it.
 */
export async function heartbeat(
  ctx: MutationCtx,
  { progress, ...held }: Pick<Held, "jobId" | "fence"> & { readonly progress?: number },
): Promise<{ readonly ok: boolean; readonly cancelled: boolean; readonly leaseExpiresAt: number }> {
  const nowMs = Date.now();
  const job = await loadHeld(ctx, held);
  const slot = job === null ? null : await slotOf(ctx, job, nowMs);
  const queue = job === null ? null : queueOf(job.t);
  if (job === null || slot === null || slot.f !== job.g || queue === null)
    return { ok: false, cancelled: job?.y === true, leaseExpiresAt: 0 };
  const reached = progress === undefined ? undefined : Math.min(1, Math.max(0, progress || 0));
  if (reached !== undefined && reached !== job.s)
    await ctx.db.patch("toolJobs", job._id, { s: reached });
  const leaseEndMs = leaseEndOf(slot, queue);
  const renewed = leaseEndMs - nowMs < queue.leaseMs / 2;
  if (renewed) await ctx.db.patch("slots", slot._id, { e: nowMs + queue.slotMs });
  return {
    ok: true,
    cancelled: job.y === true,
    leaseExpiresAt: renewed ? nowMs + queue.leaseMs : leaseEndMs,
  };
}

/** When the lease of the job in a slot ends: the slot is kept a little longer. */
const leaseEndOf = ({ e }: Doc<"slots">, { leaseMs, slotMs }: ToolQueue): number =>
  e - slotMs + leaseMs;

/** Takes a job back whose worker let its lease expire. A job that ended or moved on is left alone. */
export async function expireLease(ctx: MutationCtx, lease: Slots.Lease): Promise<void> {
  const nowMs = Date.now();
  const slot = await Slots.loadHeld(ctx, lease);
  const job = await findHolder(ctx, lease, slot);
  if (job === null) return;
  const queue = queueOf(job.t);
  const leaseEndMs = slot === null || queue === null ? 0 : leaseEndOf(slot, queue);
  if (leaseEndMs > nowMs) {
    const due = leaseEndMs + LEASE_GRACE_MS;
    const x = await ctx.scheduler.runAt(due, internal.toolJobs.expireLease, lease);
    await ctx.db.patch("toolJobs", job._id, { x });
    return;
  }
  const ending = queue === null ? "unknown_tool" : "lease_expired";
  const { next } = await endAttempt(ctx, job, { ending, code: "lease_expired" });
  await offer(ctx, next, false);
}

/** The job that ran under a lease, also where its slot is another's already. */
async function findHolder(
  ctx: MutationCtx,
  { fence, slotId }: Slots.Lease,
  slot: Doc<"slots"> | null,
): Promise<Job | null> {
  const jobId: JobId | null =
    slot?.h === undefined
      ? await ctx.runQuery(
          internal.toolJobPicks.findRunning,
          { slotId, fence },
          { useStaleSnapshot: true },
        )
      : ctx.db.normalizeId("toolJobs", slot.h);
  const job = jobId === null ? null : await ctx.db.get("toolJobs", jobId);
  return job?.p === PLACE.running && job.l === slotId && job.g === fence ? job : null;
}

/** Jobs that run at once, at most: slots of all pools, and a few lost ones. */
const RUNNING_MAX = 1_000;

/** The running job of a lease, where its slot does not say. To be run on a stale snapshot. */
export async function findRunning(
  ctx: QueryCtx,
  { fence, slotId }: { slotId: Id<"slots">; fence: number },
): Promise<JobId | null> {
  const running = await ctx.db
    .query("toolJobs")
    .withIndex("by_place", (q) => q.eq("p", PLACE.running))
    .take(RUNNING_MAX);
  return running.find(({ g, l }) => l === slotId && g === fence)?._id ?? null;
}

/** Starts a job whose time to be tried again has come, or puts it in line. */
export async function dispatch(
  ctx: MutationCtx,
  { fence, jobId }: { readonly jobId: JobId; readonly fence: number },
): Promise<void> {
  const job = await ctx.db.get("toolJobs", jobId);
  if (job?.p !== PLACE.backingOff || job.f !== fence) return;
  await resume(ctx, job, Date.now());
}

/** Puts a job that stands nowhere back into the queue, and starts it where a slot is free. */
export async function resume(ctx: MutationCtx, job: Job, nowMs: number): Promise<void> {
  const queue = queueOf(job.t);
  if (queue === null) {
    await Ends.bury(ctx, job, "unknown_tool", nowMs);
    return;
  }
  if (isPast(deadlineOf(job), nowMs)) {
    await Ends.missDeadline(ctx, job, nowMs);
    return;
  }
  const seat = await Line.findSeat(ctx, queue, { mustFit: true, nowMs });
  if (seat.kind === "full") throw new Error("a job that must fit finds a place");
  const { claim } = await Starts.place(ctx, queue, Starts.draftOf(job), { seat, nowMs });
  if (claim !== null) await Starts.startWorkers(ctx, [claim]);
}

export type Cancelled =
  | { readonly ok: true; readonly status: "cancelled" | "cancelling" }
  | { readonly ok: false; readonly reason: "missing" | "ended" };

/**
 * Cancels a job: one that waits at once; one that runs keeps its slot until its worker reports or
 * its lease ends. From now on nobody joins it, and `get` says that it is cancelled.
 */
export async function cancel(ctx: MutationCtx, jobId: JobId): Promise<Cancelled> {
  const job = await ctx.db.get("toolJobs", jobId);
  if (job === null) return { ok: false, reason: "missing" };
  if (job.p === PLACE.running) {
    await ctx.db.patch("toolJobs", job._id, { y: true, k: undefined });
    return { ok: true, status: "cancelling" };
  }
  const waits = standingOf(job.p) !== null || job.p === PLACE.next;
  if (!waits && job.p !== PLACE.backingOff) return { ok: false, reason: "ended" };
  if (waits) await Line.leave(ctx, { job, stripe: null });
  else await stopTimer(ctx, job);
  await Ends.cancel(ctx, job, Date.now());
  return { ok: true, status: "cancelled" };
}
