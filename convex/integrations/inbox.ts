import { v } from "convex/values";
import { env } from "../../src/config/env";
import { readKnob } from "../../src/config/read";
import { fullJitterMs } from "../../src/core/backoff";
import { AppError, errorData } from "../../src/errors/appError";
import { log } from "../../src/log/log";
import { internal } from "../_generated/api";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import { type Batch, newBatch, takeBatch } from "../model/batch";
import { internalMutation, internalQuery } from "../model/functionBoundaries";
import * as GmailHistory from "../model/gmailHistory";
import * as Inbox from "../model/inbox";
import { JOBS_PER_RUN, scheduleRun } from "../model/inboxRuns";
import type { InboxEvent } from "../model/integrationTables";
import * as WhatsappMessages from "../model/whatsappMessages";

const DEAD_LETTERS_MAX = 200;

const job = v.object({
  id: v.id("webhookInbox"),
  /** Failed attempts at scheduling time. An attempt for another count is stale. */
  attempts: v.number(),
});

/**
 * One attempt at each job, of many at the first, and at the rest in runs behind this one. The effect
 * is a nested transaction: when it fails it alone is rolled back, and the failure and the next
 * attempt are recorded in the transaction around it.
 */
export const processJobs = internalMutation({
  args: {
    jobs: v.array(job),
    /** The part of a large delivery whose turn comes after these jobs. */
    nextId: v.optional(v.id("webhookInbox")),
  },
  returns: v.null(),
  handler: async (ctx, { jobs, nextId }) => {
    const nowMs = Date.now();
    const rest = jobs.slice(JOBS_PER_RUN);
    if (rest.length > 0) await scheduleRun(ctx, rest, nextId);
    else await startPart(ctx, nextId);
    for (const { id, attempts } of jobs.slice(0, JOBS_PER_RUN)) {
      const row = await Inbox.load(ctx, id);
      if (row?.state !== "queued" || row.attempts !== attempts || row.event === null) continue;
      try {
        await apply(ctx, row, row.event);
      } catch (error) {
        await fail(ctx, row, { errorCode: errorData(error).code, nowMs });
        await startPart(ctx, partBehind(row, row.event));
        continue;
      }
      await Inbox.finish(ctx, row, nowMs);
    }
    return null;
  },
});

/** Jobs that exhausted their attempts, for operators. No texts. */
export const listDeadLetters = internalQuery({
  args: { limit: v.optional(v.number()) },
  returns: v.object({
    deadLetters: v.array(
      v.object({
        id: v.id("webhookInbox"),
        type: v.string(),
        attempts: v.number(),
        lastErrorCode: v.union(v.string(), v.null()),
        receivedAt: v.number(),
      }),
    ),
    truncated: v.boolean(),
  }),
  handler: async (ctx, { limit = DEAD_LETTERS_MAX }) => {
    const count = Math.min(Math.max(Math.floor(limit), 1), DEAD_LETTERS_MAX);
    const rows = await Inbox.listDead(ctx, count + 1);
    const deadLetters = rows.slice(0, count).map((row) => ({
      id: row._id,
      type: row.event?.type ?? "unknown",
      attempts: row.attempts,
      lastErrorCode: row.lastErrorCode,
      receivedAt: row.receivedAtMs,
    }));
    return { deadLetters, truncated: rows.length > count };
  },
});

/** Gives a dead letter all its attempts again, the first of them now. */
export const requeueDeadLetter = internalMutation({
  args: { id: v.id("webhookInbox") },
  returns: v.null(),
  handler: async (ctx, { id }) => {
    const row = await Inbox.load(ctx, id);
    if (row?.state !== "dead_letter")
      throw new AppError("not_found", { detail: "No dead letter has this id" });
    await Inbox.revive(ctx, row, Date.now());
    await scheduleRun(ctx, [{ id, attempts: 0 }]);
    return null;
  },
});

/**
 * Deletes what has outlived its retention, in bounded batches that reschedule themselves, and
 * gives a job whose attempt never came a new one.
 */
export const cleanupExpired = internalMutation({
  args: {},
  returns: v.object({ deleted: v.number(), rescued: v.number(), hasMore: v.boolean() }),
  handler: async (ctx) => {
    const nowMs = Date.now();
    const batch = newBatch();
    const deleted = await deleteExpired(ctx, nowMs, batch);
    const rescued = await rescueOverdue(ctx, nowMs, batch);
    const hasMore = batch.full;
    if (hasMore) await ctx.scheduler.runAfter(0, internal.integrations.inbox.cleanupExpired, {});
    return { deleted, rescued, hasMore };
  },
});

async function startPart(ctx: MutationCtx, id: Id<"webhookInbox"> | undefined): Promise<void> {
  if (id !== undefined) await scheduleRun(ctx, [{ id, attempts: 0 }]);
}

/**
 * The part whose turn comes after the first attempt at this one, whatever came of that: one that is
 * tried again later, or is dead, holds up no other.
 */
const partBehind = (row: Doc<"webhookInbox">, event: InboxEvent) =>
  event.type === "whatsapp_part" && row.attempts === 0 ? event.nextId : undefined;

async function apply(ctx: MutationCtx, row: Doc<"webhookInbox">, event: InboxEvent): Promise<void> {
  const { receivedAtMs } = row;
  if (event.type === "gmail_history") {
    const { emailAddress, historyId } = event;
    const args = { notification: { emailAddress, historyId }, receivedAtMs };
    await ctx.runMutation(internal.integrations.gmail.applyNotification, args);
    return;
  }
  if (event.type === "whatsapp_part") {
    const nextId = partBehind(row, event);
    await ctx.runMutation(internal.integrations.whatsapp.applyPart, {
      ...{ events: event.events, receivedAtMs },
      ...(nextId === undefined ? {} : { nextId }),
    });
    return;
  }
  await ctx.runMutation(internal.integrations.whatsapp.applyEvent, { event, receivedAtMs });
}

async function fail(
  ctx: MutationCtx,
  row: Doc<"webhookInbox">,
  { errorCode, nowMs }: { readonly errorCode: string; readonly nowMs: number },
): Promise<void> {
  const attempt = row.attempts + 1;
  if (attempt >= readKnob(env, "WEBHOOK_JOB_ATTEMPTS_MAX")) {
    await Inbox.bury(ctx, row, { errorCode, nowMs });
    log.event("webhook_dead_lettered", { inboxId: row._id, attempts: attempt, errorCode });
    return;
  }
  const delayMs = fullJitterMs({
    attempt,
    baseMs: readKnob(env, "WEBHOOK_JOB_RETRY_BASE_MS"),
    capMs: readKnob(env, "WEBHOOK_JOB_RETRY_CAP_MS"),
    random: Math.random,
  });
  await Inbox.delay(ctx, row, { errorCode, dueAtMs: nowMs + delayMs });
  await ctx.scheduler.runAfter(delayMs, internal.integrations.inbox.processJobs, {
    jobs: [{ id: row._id, attempts: attempt }],
  });
}

async function deleteExpired(ctx: MutationCtx, nowMs: number, batch: Batch): Promise<number> {
  const jobs = [
    ...(await takeBatch(Inbox.expired(ctx, "done", nowMs), batch)),
    ...(await takeBatch(Inbox.expired(ctx, "dead_letter", nowMs), batch)),
  ];
  for (const { _id } of jobs) await ctx.db.delete("webhookInbox", _id);
  const messages = await takeBatch(WhatsappMessages.expired(ctx, nowMs), batch);
  for (const { _id } of messages) await ctx.db.delete("whatsappMessages", _id);
  const changes = await takeBatch(GmailHistory.expired(ctx, nowMs), batch);
  for (const { _id } of changes) await ctx.db.delete("gmailHistoryChanges", _id);
  return jobs.length + messages.length + changes.length;
}

async function rescueOverdue(ctx: MutationCtx, nowMs: number, batch: Batch): Promise<number> {
  const rows = await takeBatch(Inbox.overdue(ctx, nowMs), batch);
  for (const row of rows) {
    await Inbox.postpone(ctx, row, nowMs);
    await scheduleRun(ctx, [{ id: row._id, attempts: row.attempts }]);
  }
  if (rows.length > 0) log.event("webhook_jobs_rescued", { count: rows.length });
  return rows.length;
}
