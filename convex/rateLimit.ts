import { type Infer, type ObjectType, v } from "convex/values";
import { summaryOf } from "../src/core/rollup";
import { DAY } from "../src/core/time";
import { AppError } from "../src/errors/appError";
import { internal } from "./_generated/api";
import * as Alerts from "./model/alerts";
import { newBatch, takeBatch } from "./model/batch";
import * as Conditions from "./model/conditions";
import { internalMutation, internalQuery } from "./model/functionBoundaries";
import * as Limits from "./model/limits";
import * as Monitor from "./model/monitor";
import * as Refusals from "./model/refusals";
import * as Rollups from "./model/rollups";

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
  /**
   * Names of limits (what stands before a key's colon) that let through: those of the caller's that
   * are to allow what they lost to contention, on its last try. Default none.
   */
  leaveOut: v.optional(v.array(v.string())),
};

const limitAnswer = v.object({
  allowed: v.boolean(),
  remaining: v.number(),
  /** When to come back; 0 where it was allowed. */
  retryAfterMs: v.number(),
  /** How long to wait before going ahead with a turn that was reserved. */
  waitMs: v.number(),
  /** `degraded` is a limit that was left out: nothing was looked at or taken. */
  source: v.union(v.literal("exact"), v.literal("sharded"), v.literal("degraded")),
});

/**
 * Takes from a limit of `max` requests per `windowMs`, which may also come at once. A refusal writes
 * nothing; a limit that was left out counts a `degraded` event. Throws `invalid_request` for numbers
 * that are no limit, and a weight that never passes.
 */
export const checkAndIncrement = internalMutation({
  args: limitArgs,
  returns: limitAnswer,
  handler: async (ctx, args): Promise<Infer<typeof limitAnswer>> => {
    const decision = await Limits.check(ctx, limitOf(args), Date.now(), args.leaveOut);
    if (decision.ok) await Limits.take(ctx, decision);
    return answerOf(decision);
  },
});

/** What `checkAndIncrement` would answer now, without taking anything. */
export const check = internalMutation({
  args: limitArgs,
  returns: limitAnswer,
  handler: async (ctx, args): Promise<Infer<typeof limitAnswer>> =>
    answerOf(await Limits.check(ctx, limitOf(args), Date.now(), args.leaveOut)),
});

/**
 * Forgets a key, so that its next request finds the whole burst. Throws `invalid_request` for numbers
 * that are no limit: what they are spread over is unknown.
 */
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
  if (key === "" || key.length > KEY_CHARS_MAX)
    throw new AppError("invalid_request", { detail: "Keys have 1 to 256 characters." });
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

const NAME_CHARS_MAX = 64;

/**
 * Counts a refusal that no guard could count itself, such as `contention_fallback`: the admission
 * was lost to contention and wrote nothing. Throws `invalid_request` for names above 64 characters.
 */
export const recordEvent = internalMutation({
  args: {
    source: v.optional(v.string()),
    bucket: v.string(),
    outcome: v.string(),
    reason: v.optional(v.string()),
  },
  returns: v.null(),
  handler: async (ctx, event) => {
    if (Object.values(event).some((name) => name.length > NAME_CHARS_MAX))
      throw new AppError("invalid_request", { detail: "Names have at most 64 characters." });
    await Refusals.count(ctx, event, Date.now());
    return null;
  },
});

/** Rows that a refusal of a minute may be counted on. For counting, on a stale snapshot. */
export const refusalRows = internalQuery({
  args: {
    bucket: v.string(),
    outcome: v.string(),
    reason: v.optional(v.string()),
    source: v.optional(v.string()),
    minuteMs: v.number(),
  },
  returns: v.array(v.id("rateLimitEvents")),
  handler: async (ctx, { reason, source, ...refusal }) =>
    await Refusals.rowsOf(ctx, {
      ...refusal,
      ...(reason === undefined ? {} : { reason }),
      ...(source === undefined ? {} : { source }),
    }),
});

const MINUTES_MAX = 1_440;
const MINUTES_DEFAULT = 15;
const LIST_MAX = 200;
const counts = v.record(v.string(), v.number());

/**
 * Refusals of the last `minutes` (1 to 1,440, default 15), sampled and weighted, so that sums are
 * right on average. Keys are their parts between colons; `guard` is the source of what a guard
 * counted itself, `none` stands for no reason. Windows above an hour begin at a whole hour.
 */
export const getEventSummary = internalQuery({
  args: { minutes: v.optional(v.number()) },
  returns: v.object({
    total: v.number(),
    windowMinutes: v.number(),
    fromMs: v.number(),
    truncated: v.boolean(),
    bySourceBucketOutcome: counts,
    byBucketOutcome: counts,
    byBucketOutcomeReason: counts,
  }),
  handler: async (ctx, args) => {
    const minutes = within(args.minutes ?? MINUTES_DEFAULT, MINUTES_MAX);
    const window = { nowMs: Date.now(), minutes };
    const { fromMs, refusals, truncated } = await Rollups.refusalTotals(ctx, window, newBatch());
    return { ...summaryOf(refusals), windowMinutes: minutes, fromMs, truncated };
  },
});

/** Refusals by minute or hour, the newest first. `limit` is 1 to 200, default 50. */
export const listRecentEvents = internalQuery({
  args: { limit: v.optional(v.number()), bucket: v.optional(v.string()) },
  returns: v.array(
    v.object({
      /** When the minute or hour began in which they were counted. */
      fromMs: v.number(),
      source: v.union(v.string(), v.null()),
      bucket: v.string(),
      outcome: v.string(),
      reason: v.union(v.string(), v.null()),
      count: v.number(),
    }),
  ),
  handler: async (ctx, { bucket, limit = 50 }) => {
    const rows = await Rollups.refusalsByTime(ctx, Date.now(), newBatch());
    return rows
      .filter((row) => bucket === undefined || row.bucket === bucket)
      .slice(0, within(limit, LIST_MAX))
      .map((row) => ({ ...row, source: row.source ?? null, reason: row.reason ?? null }));
  },
});

const within = (value: number, max: number): number =>
  Math.min(max, Math.max(1, Math.floor(value) || 1));

/**
 * Tells operators of a limit that refused `observed` requests, where that is `threshold` or more.
 * Throws `invalid_request` for what is no count, and for names above 64 characters.
 */
export const raiseAlertIfNeeded = internalMutation({
  args: {
    bucket: v.string(),
    outcome: v.union(v.literal("blocked"), v.literal("contention_fallback")),
    threshold: v.number(),
    observed: v.number(),
  },
  returns: v.object({ created: v.boolean(), alertId: v.optional(v.id("alerts")) }),
  handler: async (ctx, { observed, ...rule }) => {
    const figures = [observed, rule.threshold];
    if (rule.bucket.length > NAME_CHARS_MAX || !figures.every((one) => one >= 0 && one < Infinity))
      throw new AppError("invalid_request", {
        detail: "Names have at most 64 characters; threshold and observed are counts.",
      });
    if (observed < rule.threshold) return { created: false };
    const condition = Conditions.limiter(rule, observed);
    const { alertId, change } = await Alerts.applyRaise(ctx, condition, Date.now());
    return { created: change === "created", ...(alertId === null ? {} : { alertId }) };
  },
});

/** Alerts about limits, the newest first. `limit` is 1 to 200, default 50. */
export const listRecentAlerts = internalQuery({
  args: { limit: v.optional(v.number()) },
  returns: v.array(Alerts.shownFields),
  handler: async (ctx, { limit = 50 }) => {
    const rows = await Alerts.recent(ctx, { kinds: ["limiter"], limit: within(limit, LIST_MAX) });
    return rows.map(Alerts.shown);
  },
});

/**
 * Looks at the refusals of the last minutes, at circuits and pools, and raises and clears their
 * alerts; sends what a delivery that died left unsent. Writes nothing where nothing changed.
 */
export const monitorAndAlert = internalMutation({
  args: {},
  returns: v.object({
    createdAlerts: v.number(),
    recoveredAlerts: v.number(),
    overdue: v.number(),
    windowMinutes: v.number(),
  }),
  handler: async (ctx): Promise<Monitor.Found & { windowMinutes: number }> => {
    const windowMinutes = Conditions.LIMITER_WINDOW_MINUTES;
    // Of the moment this began: depending on rows that every refusal writes, it would never commit.
    const seen = await ctx.runQuery(
      internal.rateLimit.getEventSummary,
      { minutes: windowMinutes },
      { useStaleSnapshot: true },
    );
    return { ...(await Monitor.look(ctx, seen, Date.now())), windowMinutes };
  },
});

const EVENTS_KEPT_MS = 7 * DAY;
const ALERTS_KEPT_MS = 30 * DAY;

/**
 * Deletes limits whose burst is whole again, which say nothing, refusals that were never added to a
 * rollup for a week, and alerts that are over for 30 days. Bounded batches, until nothing is left.
 */
export const cleanupExpired = internalMutation({
  args: { after: v.optional(v.number()) },
  returns: v.object({
    deleted: v.number(),
    /** Limits. */
    deletedWindows: v.number(),
    deletedEvents: v.number(),
    deletedAlerts: v.number(),
  }),
  handler: async (ctx, { after = 0 }) => {
    const nowMs = Date.now();
    const batch = newBatch();
    const limits = await takeBatch(
      ctx.db.query("limits").withIndex("by_creation_time", (q) => q.gt("_creationTime", after)),
      batch,
    );
    const past = limits.filter(({ t }) => t < nowMs);
    for (const { _id } of past) await ctx.db.delete("limits", _id);
    const events = await takeBatch(
      ctx.db
        .query("rateLimitEvents")
        .withIndex("by_row", (q) => q.lt("minuteMs", nowMs - EVENTS_KEPT_MS)),
      batch,
    );
    for (const { _id } of events) await ctx.db.delete("rateLimitEvents", _id);
    const alerts = await takeBatch(
      ctx.db
        .query("alerts")
        .withIndex("by_updated", (q) => q.lt("updatedAt", nowMs - ALERTS_KEPT_MS)),
      batch,
    );
    for (const { _id } of alerts) await ctx.db.delete("alerts", _id);
    if (batch.full)
      await ctx.scheduler.runAfter(0, internal.rateLimit.cleanupExpired, {
        after: limits.at(-1)?._creationTime ?? after,
      });
    return {
      deleted: past.length + events.length + alerts.length,
      deletedWindows: past.length,
      deletedEvents: events.length,
      deletedAlerts: alerts.length,
    };
  },
});
