import { type Infer, type ObjectType, v } from "convex/values";
import { DAY } from "../src/core/time";
import { AppError } from "../src/errors/appError";
import { internal } from "./_generated/api";
import { internalMutation, internalQuery } from "./_generated/server";
import { newBatch, takeBatch } from "./model/batch";
import * as Limits from "./model/limits";

const limitArgs = {
  key: v.string(),
  max: v.number(),
  windowMs: v.number(),
  /** How many requests this one counts for. Default 1. */
  weight: v.optional(v.number()),
  /** How long the caller would wait for its turn, in milliseconds, at most one burst. Default 0. */
  reserveMs: v.optional(v.number()),
  /** True for a key that many callers share at once: spread over documents by its rate. */
  shared: v.optional(v.boolean()),
};

const limitAnswer = v.object({
  allowed: v.boolean(),
  remaining: v.number(),
  /** When to come back; 0 where it was allowed. */
  retryAfterMs: v.number(),
  /** How long to wait before going ahead with a turn that was reserved. */
  waitMs: v.number(),
  source: v.union(v.literal("exact"), v.literal("sharded")),
});

/**
 * Takes from a limit of `max` requests per `windowMs`, which may also come at once. A refusal writes
 * nothing. Throws `invalid_request` for numbers that are no limit.
 */
export const checkAndIncrement = internalMutation({
  args: limitArgs,
  returns: limitAnswer,
  handler: async (ctx, args): Promise<Infer<typeof limitAnswer>> => {
    const decision = await Limits.check(ctx, limitOf(args), Date.now());
    if (decision.ok) await Limits.take(ctx, decision);
    return answerOf(decision);
  },
});

/** What `checkAndIncrement` would answer now, without taking anything. */
export const check = internalMutation({
  args: limitArgs,
  returns: limitAnswer,
  handler: async (ctx, args): Promise<Infer<typeof limitAnswer>> =>
    answerOf(await Limits.check(ctx, limitOf(args), Date.now())),
});

/** Forgets a key, so that its next request finds the whole burst. */
export const reset = internalMutation({
  args: { key: v.string(), max: v.number(), windowMs: v.number(), shared: v.optional(v.boolean()) },
  returns: v.null(),
  handler: async (ctx, args) => {
    await Limits.reset(ctx, limitOf(args));
    return null;
  },
});

/** Which of some shards of a key has the most left. For a decision, on a stale snapshot. */
export const pickShard = internalQuery({
  args: { key: v.string(), shards: v.array(v.number()) },
  returns: v.number(),
  handler: async (ctx, args) => await Limits.emptiest(ctx, args),
});

const KEY_CHARS_MAX = 256;

function limitOf({
  key,
  max,
  reserveMs,
  shared,
  weight,
  windowMs,
}: LimitArgs): Limits.LimitRequest {
  const sizes = [max, windowMs, weight ?? 1].every((size) => Number.isInteger(size) && size >= 1);
  const waits = reserveMs === undefined || (Number.isFinite(reserveMs) && reserveMs >= 0);
  if (!sizes || !waits || key.length > KEY_CHARS_MAX)
    throw new AppError("invalid_request", {
      detail: "max, windowMs and weight are whole numbers from 1, keys at most 256 characters.",
    });
  const colon = key.indexOf(":");
  return {
    name: colon < 0 ? key : key.slice(0, colon),
    key: colon < 0 ? "" : key.slice(colon + 1),
    max,
    windowMs,
    ...(weight === undefined ? {} : { weight }),
    ...(reserveMs === undefined ? {} : { reserveMs }),
    ...(shared === undefined ? {} : { shared }),
  };
}

type LimitArgs = ObjectType<typeof limitArgs>;

const answerOf = (decision: Limits.LimitDecision): Infer<typeof limitAnswer> => ({
  allowed: decision.ok,
  remaining: decision.info.remaining,
  retryAfterMs: decision.ok ? 0 : decision.retryAfterMs,
  waitMs: decision.ok ? decision.waitMs : 0,
  source: decision.source,
});

const EVENTS_KEPT_MS = 7 * DAY;

/**
 * Deletes limits whose burst is whole again, which say nothing, and counts of refusals older than a
 * week. Bounded batches, until nothing is left.
 */
export const cleanupExpired = internalMutation({
  args: { after: v.optional(v.number()) },
  returns: v.object({ deletedLimits: v.number(), deletedEvents: v.number() }),
  handler: async (ctx, { after = 0 }) => {
    const nowMs = Date.now();
    const batch = newBatch();
    const limits = await takeBatch(
      ctx.db.query("limits").withIndex("by_creation_time", (q) => q.gt("_creationTime", after)),
      batch,
    );
    for (const { _id, t } of limits) if (t < nowMs) await ctx.db.delete("limits", _id);
    const events = await takeBatch(
      ctx.db
        .query("rateLimitEvents")
        .withIndex("by_row", (q) => q.lt("minuteMs", nowMs - EVENTS_KEPT_MS)),
      batch,
    );
    for (const { _id } of events) await ctx.db.delete("rateLimitEvents", _id);
    if (batch.full)
      await ctx.scheduler.runAfter(0, internal.rateLimit.cleanupExpired, {
        after: limits.at(-1)?._creationTime ?? after,
      });
    return {
      deletedLimits: limits.filter(({ t }) => t < nowMs).length,
      deletedEvents: events.length,
    };
  },
});
