import { v } from "convex/values";
import { AppError } from "../src/errors/appError";
import { internal } from "./_generated/api";
import { findMessage, requireStream, requireThread } from "./model/access";
import * as Admission from "./model/admission";
import { newBatch } from "./model/batch";
import * as Budgets from "./model/budgets";
import { internalMutation, internalQuery } from "./model/functionBoundaries";
import { outcomeKind } from "./model/permit";
import * as Refusals from "./model/refusals";
import * as Streams from "./model/streams";
import { beginTurn, turnRequest, type TurnVerdict } from "./model/turnAdmission";
import { PROVIDER_OF } from "./model/turnRoutes";
import * as Threads from "./model/threads";
import * as Turns from "./model/turns";

/**
 * Admits a chat turn and stores what starts it, or says why not. One transaction: identity is
 * checked by the caller, everything else here.
 */
export const admit = internalMutation({
  args: {
    request: turnRequest,
    /** Limits to go without: declared to let through what they lost, on the last try of a turn. */
    leaveOut: v.optional(v.array(v.string())),
  },
  handler: async (ctx, { leaveOut, request }): Promise<TurnVerdict> =>
    await beginTurn(ctx, request, internal.chatTurns.reap, leaveOut),
});

const progressResult = v.union(
  v.object({ live: v.literal(true), abort: v.boolean(), nextFrameId: v.number() }),
  v.object({ live: v.literal(false) }),
);

/**
 * Stores frames of a running turn; without any it is a heartbeat. The reply says whether to go on.
 * `firstFrameId` fences: a chunk stored before its reply was lost is not stored twice.
 */
export const append = internalMutation({
  args: { streamId: v.id("streamSessions"), firstFrameId: v.number(), frames: v.array(v.string()) },
  returns: progressResult,
  handler: async (ctx, { streamId, firstFrameId, frames }) => {
    const session = await ctx.db.get("streamSessions", streamId);
    if (!Turns.isLive(session)) return { live: false as const };
    const known = session.nextFrameId - firstFrameId;
    if (known < 0) throw new Error("a chunk must follow the stored ones");
    const { abort } = await Turns.progress(ctx, session, frames.slice(known), Date.now());
    return { live: true as const, abort, nextFrameId: firstFrameId + frames.length };
  },
});

/**
 * Moves a turn to its secondary route before anything was seen of the first: settles the one and
 * takes the other in one transaction.
 */
export const switchRoute = internalMutation({
  args: {
    streamId: v.id("streamSessions"),
    outcome: outcomeKind,
    /** How often the route was asked, retries included. */
    attempts: v.optional(v.number()),
  },
  returns: v.object({ ok: v.boolean() }),
  handler: async (ctx, { attempts = 1, outcome, streamId }) => {
    const nowMs = Date.now();
    const session = await ctx.db.get("streamSessions", streamId);
    if (!Turns.isLive(session) || session.permit?.provider !== PROVIDER_OF.primary)
      return { ok: false };
    const grant = await Admission.checkProvider(
      ctx,
      { provider: PROVIDER_OF.secondary, holder: session.userId },
      nowMs,
    );
    if (!grant.ok) {
      await Refusals.count(ctx, { bucket: grant.provider, outcome: grant.reason }, nowMs);
      return { ok: false };
    }
    await Admission.settleProvider(
      ctx,
      session.permit,
      { outcome, attempts, latencyMs: nowMs - session.permit.admittedAtMs },
      nowMs,
    );
    const permit = await Admission.takeProvider(ctx, grant, nowMs);
    await ctx.db.patch("streamSessions", streamId, { permit, lastHeartbeatAt: nowMs });
    return { ok: true };
  },
});

/**
 * Ends a turn: everything that remains to be written, in one transaction. Only the first settlement
 * of a stream counts; a later one, of a worker believed dead, is refused.
 */
export const settle = internalMutation({
  args: {
    streamId: v.id("streamSessions"),
    firstFrameId: v.number(),
    frames: v.array(v.string()),
    result: Turns.settlement,
  },
  returns: v.object({ settled: v.boolean() }),
  handler: async (ctx, { streamId, firstFrameId, frames, result }) => {
    const session = await ctx.db.get("streamSessions", streamId);
    if (!Turns.isLive(session)) return { settled: false };
    const fresh = frames.slice(Math.max(0, session.nextFrameId - firstFrameId));
    await Turns.settle(ctx, session, { frames: fresh, result, reaper: "waiting" }, Date.now());
    return { settled: true };
  },
});

/**
 * Asks for the end of the answer being streamed into a message. Throws `not_found` for a thread
 * that is not the user's, `invalid_request` for a message that is not the thread's.
 */
export const abort = internalMutation({
  args: { userId: v.string(), threadId: v.string(), messageId: v.string() },
  returns: v.null(),
  handler: async (ctx, { userId, threadId, messageId }) => {
    const thread = await requireThread(ctx, userId, threadId);
    const message = await findMessage(ctx, thread._id, messageId);
    if (message === null)
      throw new AppError("invalid_request", {
        issues: [{ path: "messageId", message: "Not a message of this thread." }],
      });
    if (message.streamId !== undefined && message.streamId === thread.activeStreamId)
      await Threads.stopStream(ctx, thread, Date.now());
    return null;
  },
});

/** Looks at a worker's pulse: ends the stream of a dead one, comes back later for a live one. */
export const reap = internalMutation({
  args: { streamId: v.id("streamSessions") },
  returns: v.null(),
  handler: async (ctx, { streamId }) => {
    const nowMs = Date.now();
    const session = await ctx.db.get("streamSessions", streamId);
    if (!Turns.isLive(session)) return null;
    if (session.lastHeartbeatAt + Streams.WORKER_LEASE_MS > nowMs)
      await Turns.scheduleReaper(ctx, internal.chatTurns.reap, session);
    else await Turns.endOrphan(ctx, session, nowMs);
    return null;
  },
});

/** Stored frames after an id, for a reader that resumes. Throws `not_found` for anyone else's. */
export const read = internalQuery({
  args: { userId: v.string(), streamId: v.string(), afterId: v.number() },
  returns: v.object({
    frames: v.array(v.object({ id: v.number(), data: v.string() })),
    ended: v.boolean(),
    /** The newest id that the stream has given. */
    newestId: v.number(),
  }),
  handler: async (ctx, { userId, streamId, afterId }) => {
    const session = await requireStream(ctx, userId, streamId);
    // Checked at read: how late the cleanup comes must not show.
    if (!Streams.isReadable(session, Date.now())) throw new AppError("not_found");
    const frames = await Streams.framesAfter(ctx, session._id, afterId);
    const lastId = frames.at(-1)?.id ?? afterId;
    const newestId = session.nextFrameId - 1;
    const ended = session.status !== "streaming" && lastId >= newestId;
    return { frames, ended, newestId };
  },
});

/** Deletes streams that ended an hour ago and budgets of past days, in bounded batches. */
export const cleanupExpired = internalMutation({
  args: {},
  returns: v.object({ deleted: v.number() }),
  handler: async (ctx) => {
    const nowMs = Date.now();
    const batch = newBatch();
    const streams = await Streams.deleteExpired(ctx, nowMs, batch);
    const budgets = await Budgets.deletePast(ctx, nowMs, batch);
    if (batch.full) await ctx.scheduler.runAfter(0, internal.chatTurns.cleanupExpired, {});
    return { deleted: streams + budgets };
  },
});
