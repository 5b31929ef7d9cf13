import { DAY, MINUTE } from "../../src/core/time";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import type { InboxEvent } from "./integrationTables";

type Row = Doc<"webhookInbox">;

/** As long as a delivery is recognised as a duplicate, so its outcome can be looked up as well. */
const DONE_RETENTION_MS = 3 * DAY;
const DEAD_LETTER_RETENTION_MS = 30 * DAY;
/** A job this long overdue has lost its scheduled attempt. */
const OVERDUE_MS = 10 * MINUTE;

interface Times {
  readonly nowMs: number;
  readonly receivedAtMs?: number;
  readonly dueAtMs?: number;
}

/**
 * Stores an accepted event as a job that is due now, or later where its turn comes later. The caller
 * schedules its first attempt. An event of a delivery that was stored in parts was received when the
 * delivery was.
 */
export async function enqueue(
  ctx: MutationCtx,
  event: InboxEvent,
  { nowMs, receivedAtMs = nowMs, dueAtMs = nowMs }: Times,
): Promise<Id<"webhookInbox">> {
  return await ctx.db.insert("webhookInbox", {
    state: "queued",
    event,
    attempts: 0,
    dueAtMs,
    lastErrorCode: null,
    receivedAtMs,
  });
}

/** The row, or null when it has died. */
export async function load(ctx: QueryCtx, id: Id<"webhookInbox">): Promise<Row | null> {
  return await ctx.db.get("webhookInbox", id);
}

/** Records that the effect is applied, in the transaction that applied it. */
export async function finish(ctx: MutationCtx, row: Row, nowMs: number): Promise<void> {
  await ctx.db.patch("webhookInbox", row._id, {
    state: "done",
    event: null,
    dueAtMs: nowMs + DONE_RETENTION_MS,
  });
}

/** Records a failed attempt that is tried again at `dueAtMs`. */
export async function delay(
  ctx: MutationCtx,
  row: Row,
  failure: { readonly errorCode: string; readonly dueAtMs: number },
): Promise<void> {
  await ctx.db.patch("webhookInbox", row._id, {
    attempts: row.attempts + 1,
    dueAtMs: failure.dueAtMs,
    lastErrorCode: failure.errorCode,
  });
}

/** Records the last failed attempt. The event is kept for whoever looks into it. */
export async function bury(
  ctx: MutationCtx,
  row: Row,
  failure: { readonly errorCode: string; readonly nowMs: number },
): Promise<void> {
  await ctx.db.patch("webhookInbox", row._id, {
    state: "dead_letter",
    attempts: row.attempts + 1,
    dueAtMs: failure.nowMs + DEAD_LETTER_RETENTION_MS,
    lastErrorCode: failure.errorCode,
  });
}

/** Makes a dead letter a job again, with all its attempts. */
export async function revive(ctx: MutationCtx, row: Row, nowMs: number): Promise<void> {
  await ctx.db.patch("webhookInbox", row._id, { state: "queued", attempts: 0, dueAtMs: nowMs });
}

/** Dead letters, the one that dies first in front. */
export async function listDead(ctx: QueryCtx, count: number): Promise<Row[]> {
  return await ctx.db
    .query("webhookInbox")
    .withIndex("by_state_due", (q) => q.eq("state", "dead_letter"))
    .take(count);
}

/** Rows whose retention is over. The range ends now, so it meets no row that is being written. */
export const expired = (ctx: QueryCtx, state: "done" | "dead_letter", nowMs: number) =>
  ctx.db
    .query("webhookInbox")
    .withIndex("by_state_due", (q) => q.eq("state", state).lt("dueAtMs", nowMs));

/** Queued rows whose attempt never came. */
export const overdue = (ctx: QueryCtx, nowMs: number) =>
  ctx.db
    .query("webhookInbox")
    .withIndex("by_state_due", (q) => q.eq("state", "queued").lt("dueAtMs", nowMs - OVERDUE_MS));

/** Puts a row that lost its attempt back in order, so that it is not found overdue again at once. */
export async function postpone(ctx: MutationCtx, row: Row, nowMs: number): Promise<void> {
  await ctx.db.patch("webhookInbox", row._id, { dueAtMs: nowMs });
}
