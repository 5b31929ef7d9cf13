/** The ends of a job, and of an attempt that is not its last. */
import { env } from "../../src/config/env";
import { readKnob } from "../../src/config/read";
import { fullJitterMs } from "../../src/core/backoff";
import { type BurialReason, type Ending, afterAttempt, PLACE } from "../../src/core/queue";
import { MINUTE, SECOND } from "../../src/core/time";
import { internal } from "../_generated/api";
import type { MutationCtx } from "../_generated/server";
import * as Counts from "./toolJobCounts";
import {
  attemptsMaxOfJob,
  attemptsOf,
  deadlineOf,
  deletePayload,
  type Job,
  looseRow,
  settledRow,
  storeResult,
  withoutArgs,
} from "./toolJobRows";

const RETRY_CAP_MS = MINUTE;
/** A worker that vanished has cost a whole lease already; this only spreads a crowd of them. */
const LOST_RETRY_CAP_MS = 5 * SECOND;
/** Attempts remembered. */
const HISTORY_MAX = 8;

export type Ended =
  | { readonly kind: "requeued"; readonly retryDelayMs: number }
  | { readonly kind: "dead_letter" | "failed" | "cancelled" };

/** Writes a result down. The job's slot is the caller's to free. */
export async function succeed(
  ctx: MutationCtx,
  job: Job,
  { resultJson, nowMs }: { readonly resultJson: string; readonly nowMs: number },
): Promise<void> {
  const row = withoutArgs(settledRow(job, PLACE.completed, nowMs));
  const result = await storeResult(ctx, job, resultJson);
  await ctx.db.replace("toolJobs", job._id, { ...row, ...result });
}

/** Ends an attempt without a result: the next is scheduled in this transaction, or none comes. */
export async function endAttempt(
  ctx: MutationCtx,
  job: Job,
  {
    code,
    ending,
    nowMs,
  }: { readonly ending: Ending; readonly code: string; readonly nowMs: number },
): Promise<Ended> {
  const attempt = attemptsOf(job);
  const verdict = afterAttempt({
    ending,
    attempt,
    attemptsMax: attemptsMaxOfJob(job),
    cancelled: job.y === true,
    delayMs: fullJitterMs({
      attempt,
      baseMs: readKnob(env, "TOOL_JOB_RETRY_BASE_MS"),
      capMs: ending === "lease_expired" ? LOST_RETRY_CAP_MS : RETRY_CAP_MS,
      random: Math.random,
    }),
    nowMs,
    deadlineAtMs: deadlineOf(job),
  });
  const failed = { ...job, h: [...(job.h ?? []), { atMs: nowMs, code }].slice(-HISTORY_MAX) };
  switch (verdict.kind) {
    case "retry":
      await backOff(ctx, failed, nowMs + verdict.delayMs);
      return { kind: "requeued", retryDelayMs: verdict.delayMs };
    case "bury":
      await bury(ctx, failed, verdict.reason, nowMs);
      return { kind: "dead_letter" };
    case "cancel":
      await cancel(ctx, failed, nowMs);
      return { kind: "cancelled" };
    case "miss_deadline":
      await missDeadline(ctx, failed, nowMs);
      return { kind: "failed" };
  }
}

async function backOff(ctx: MutationCtx, job: Job, dueMs: number): Promise<void> {
  const x = await ctx.scheduler.runAt(dueMs, internal.toolJobs.dispatch, {
    jobId: job._id,
    fence: job.f,
  });
  await ctx.db.replace("toolJobs", job._id, { ...looseRow(job), p: PLACE.backingOff, a: dueMs, x });
}

/** Keeps a job as a dead letter, arguments and history included, until an operator decides. */
export async function bury(
  ctx: MutationCtx,
  job: Job,
  reason: BurialReason,
  nowMs: number,
): Promise<void> {
  const row = { ...settledRow(job, PLACE.deadLetter, nowMs), w: reason };
  const { k: workKey } = job;
  await ctx.db.replace("toolJobs", job._id, workKey === undefined ? row : { ...row, q: workKey });
  await Counts.add(ctx, job.t, { deadLetters: 1 });
}

/** Ends a job that may not start any more. */
export async function missDeadline(ctx: MutationCtx, job: Job, nowMs: number): Promise<void> {
  const row = withoutArgs(settledRow(job, PLACE.failed, nowMs));
  await deletePayload(ctx, job);
  await ctx.db.replace("toolJobs", job._id, { ...row, w: "deadline_exceeded" });
  await Counts.add(ctx, job.t, { failed: 1 });
}

/** Ends a job nobody wants any more. */
export async function cancel(ctx: MutationCtx, job: Job, nowMs: number): Promise<void> {
  const row = withoutArgs(settledRow(job, PLACE.cancelled, nowMs));
  await deletePayload(ctx, job);
  await ctx.db.replace("toolJobs", job._id, row);
  await Counts.add(ctx, job.t, { cancelled: 1 });
}
