import { v } from "convex/values";
import { internal } from "./_generated/api";
import { newBatch } from "./model/batch";
import { internalMutation, internalQuery } from "./model/functionBoundaries";
import * as Metrics from "./model/metrics";
import * as Rollups from "./model/rollups";

/**
 * Adds what was counted in closed minutes to one row per minute, minutes older than an hour to one
 * row per hour, and deletes hours older than 30 days. Goes on by itself until nothing is left.
 */
export const fold = internalMutation({
  args: {},
  returns: v.object({ folded: v.number(), expired: v.number() }),
  handler: async (ctx) => {
    const batch = newBatch();
    const folded = await Rollups.fold(ctx, batch, Date.now());
    if (batch.full) await ctx.scheduler.runAfter(0, internal.metrics.fold, {});
    return folded;
  },
});

/** How often a key is settled. For counting, on a stale snapshot. */
export const rateOf = internalQuery({
  args: { key: v.string(), minuteMs: v.number() },
  returns: v.object({
    begun: v.boolean(),
    rate: v.union(v.null(), v.object({ perSecond: v.number(), atMs: v.number() })),
  }),
  handler: async (ctx, minute) => await Metrics.rateOf(ctx, minute),
});

const MINUTES_MAX = 4 * 24 * 60;
const MINUTES_DEFAULT = 15;

/**
 * Calls of every route and provider in the last `minutes` (1 to 5,760, default 15): counts by
 * outcome, error and degraded ratio, latency percentiles within 5 %. Windows above an hour begin
 * at a whole hour. `truncated` where there was more than one reading may take.
 */
export const read = internalQuery({
  args: { minutes: v.optional(v.number()) },
  returns: Metrics.readingFields,
  handler: async (ctx, { minutes = MINUTES_DEFAULT }) => {
    const asked = Math.min(MINUTES_MAX, Math.max(1, Math.floor(minutes) || 1));
    return await Metrics.read(ctx, { nowMs: Date.now(), minutes: asked });
  },
});
