/** Dead letters: what an operator sees of them, and their way back into the queue. */
import type { Infer } from "convex/values";
import { PLACE, type Status, statusOf } from "../../src/core/queue";
import { beginningOf } from "../../src/core/wellFormed";
import { internal } from "../_generated/api";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { BATCH_JOBS_MAX, placeMany } from "./toolJobBatches";
import * as Counts from "./toolJobCounts";
import type { deadLetter, refused } from "./toolJobShapes";
import {
  attemptsMaxOfJob,
  attemptsOf,
  type Job,
  type JobId,
  type JobRow,
  lastErrorOf,
  looseRow,
  queueOf,
  without,
} from "./toolJobRows";

/** Dead letters shown at once. */
export const LIST_MAX = 500;
/** Dead letters looked at for those of one tool. */
const LOOKS_MAX = 4_000;
const REASON_CHARS_MAX = 200;

/** A dead letter without what users asked: arguments and results are never shown to operators. */
export type DeadLetter = Infer<typeof deadLetter>;

/** Dead letters, the newest first, then those that an operator put off. */
export async function list(ctx: QueryCtx, limit: number): Promise<DeadLetter[]> {
  const most = Math.min(LIST_MAX, Math.max(1, Math.floor(limit) || 1));
  const dead = await newestFirst(ctx).take(most);
  const left = most - dead.length;
  const deferred = left === 0 ? [] : await at(ctx, PLACE.deferred).take(left);
  return [...dead, ...deferred].map(viewOf);
}

/** Dead letters but those that were put off. */
export const newestFirst = (ctx: QueryCtx) => at(ctx, PLACE.deadLetter).order("desc");

export const viewOf = (job: Job): DeadLetter => ({
  jobId: job._id,
  toolName: job.t,
  attempts: attemptsOf(job),
  maxAttempts: attemptsMaxOfJob(job),
  reason: job.w ?? null,
  errorCode: lastErrorOf(job),
  deadLetterAt: job.u?.sinceMs ?? job.a,
  history: job.h ?? [],
  deferred: job.u === undefined ? null : { untilMs: job.u.untilMs, reason: job.u.reason },
});

const at = (ctx: QueryCtx, place: string) =>
  ctx.db.query("toolJobs").withIndex("by_place", (q) => q.eq("p", place));

type Refused = Infer<typeof refused>;
type Refusal = Refused["reason"];
export type Requeued = { ok: true } | Refused;

/**
 * Puts one dead letter back into the queue, and starts it where a slot is free. All its attempts
 * are before it again; should they fail it is a dead letter again.
 */
export async function requeue(ctx: MutationCtx, jobId: JobId): Promise<Requeued> {
  const found = await find(ctx, jobId);
  if ("reason" in found) return { ok: false, reason: found.reason };
  const { x } = found.job;
  if (x !== undefined) await ctx.scheduler.cancel(x);
  await requeueAll(ctx, [found.job], Date.now());
  return { ok: true };
}

async function find(
  ctx: QueryCtx,
  jobId: JobId,
): Promise<{ readonly job: Job } | { readonly reason: Refusal }> {
  const job = await ctx.db.get("toolJobs", jobId);
  if (job === null) return { reason: "missing" };
  if (statusOf(job.p) !== ("dead_letter" satisfies Status)) return { reason: "not_dead_letter" };
  return queueOf(job.t) === null ? { reason: "unknown_tool" } : { job };
}

export interface Redriven {
  readonly jobIds: readonly JobId[];
  /** Whether others like these are left. */
  readonly hasMore: boolean;
}

/** Puts the oldest dead letters back, of one tool or of all; `dryRun` only says which. */
export async function requeueMany(
  ctx: MutationCtx,
  wanted: { readonly toolName?: string; readonly limit: number; readonly dryRun: boolean },
): Promise<Redriven> {
  const { dryRun, limit, toolName } = wanted;
  const most = Math.min(BATCH_JOBS_MAX, limit);
  const wants = ({ t }: Job): boolean =>
    queueOf(t) !== null && (toolName === undefined || t === toolName);
  const chosen: Job[] = [];
  let hasMore = false;
  let looks = 0;
  // Those of one tool may lie behind any number of another's.
  for await (const job of at(ctx, PLACE.deadLetter)) {
    looks += 1;
    hasMore = looks > LOOKS_MAX || (wants(job) && chosen.length === most);
    if (hasMore) break;
    if (wants(job)) chosen.push(job);
  }
  if (!dryRun) await requeueAll(ctx, chosen, Date.now());
  return { jobIds: chosen.map(({ _id }) => _id), hasMore };
}

async function requeueAll(ctx: MutationCtx, jobs: readonly Job[], nowMs: number): Promise<void> {
  for (const toolName of new Set(jobs.map(({ t }) => t))) {
    const queue = queueOf(toolName);
    if (queue === null) continue;
    const ofTool = jobs.filter(({ t }) => t === toolName);
    const drafts = ofTool.map((job) => ({ row: anew(job), of: { id: job._id } }));
    await placeMany(ctx, queue, drafts, { mustFit: true, nowMs });
    await Counts.add(ctx, toolName, { deadLetters: -ofTool.length });
  }
}

/**
 * The row of a job that starts over: no attempt counts, and nobody waits for it by a deadline. Others
 * who want the same work join it again.
 */
function anew(job: Job): JobRow {
  const row = { ...without(looseRow(job), ["d", "q", "w"]), p: PLACE.backingOff, b: job.f };
  return job.q === undefined ? row : { ...row, k: job.q };
}

export type Deferred = { ok: true; untilMs: number } | Refused;

/** Puts a dead letter off until a time at which it goes back into the queue by itself. */
export async function defer(
  ctx: MutationCtx,
  {
    jobId,
    reason,
    untilMs,
  }: { readonly jobId: JobId; readonly reason: string; readonly untilMs: number },
): Promise<Deferred> {
  const found = await find(ctx, jobId);
  if ("reason" in found) return { ok: false, reason: found.reason };
  const { job } = found;
  if (job.x !== undefined) await ctx.scheduler.cancel(job.x);
  const x = await ctx.scheduler.runAt(untilMs, internal.toolJobs.requeueDeferred, {
    jobId,
    untilMs,
  });
  const sinceMs = job.u?.sinceMs ?? job.a;
  const u = { untilMs, reason: beginningOf(reason, REASON_CHARS_MAX), sinceMs };
  await ctx.db.patch("toolJobs", jobId, { p: PLACE.deferred, a: untilMs, u, x });
  return { ok: true, untilMs };
}

/** Puts a deferred dead letter back, unless an operator decided otherwise since. */
export async function requeueDeferred(
  ctx: MutationCtx,
  { jobId, untilMs }: { readonly jobId: JobId; readonly untilMs: number },
): Promise<void> {
  const job = await ctx.db.get("toolJobs", jobId);
  if (job?.p !== PLACE.deferred || job.u?.untilMs !== untilMs) return;
  if (queueOf(job.t) !== null) {
    await requeueAll(ctx, [job], Date.now());
    return;
  }
  // Its tool is no more: it is kept as long as any dead letter.
  const row = { ...looseRow(job), p: PLACE.deadLetter, a: job.u.sinceMs };
  await ctx.db.replace("toolJobs", jobId, row);
}
