import { v } from "convex/values";
import { DAY } from "../src/core/time";
import { internal } from "./_generated/api";
import { internalMutation } from "./_generated/server";
import { newBatch, takeBatch } from "./model/batch";

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
