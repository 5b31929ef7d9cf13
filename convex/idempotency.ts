import { v } from "convex/values";
import { internal } from "./_generated/api";
import { internalMutation } from "./_generated/server";

const DELETED_PER_BATCH = 200;

/** Deletes expired claims in bounded batches, until none is left. */
export const cleanupExpired = internalMutation({
  args: {},
  returns: v.object({ deleted: v.number() }),
  handler: async (ctx) => {
    const expired = await ctx.db
      .query("idempotencyKeys")
      .withIndex("by_expires_at", (q) => q.lte("expiresAt", Date.now()))
      .take(DELETED_PER_BATCH);
    for (const { _id } of expired) await ctx.db.delete("idempotencyKeys", _id);
    if (expired.length === DELETED_PER_BATCH)
      await ctx.scheduler.runAfter(0, internal.idempotency.cleanupExpired, {});
    return { deleted: expired.length };
  },
});
