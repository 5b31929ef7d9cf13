import { v } from "convex/values";
import { internal } from "./_generated/api";
import { internalMutation } from "./_generated/server";
import { newBatch, takeBatch } from "./model/batch";

/** Deletes expired claims in bounded batches, until none is left. */
export const cleanupExpired = internalMutation({
  args: {},
  returns: v.object({ deleted: v.number() }),
  handler: async (ctx) => {
    const batch = newBatch();
    const nowMs = Date.now();
    const expired = await takeBatch(
      ctx.db.query("idempotencyKeys").withIndex("by_expires_at", (q) => q.lte("expiresAt", nowMs)),
      batch,
    );
    for (const { _id } of expired) await ctx.db.delete("idempotencyKeys", _id);
    if (batch.full) await ctx.scheduler.runAfter(0, internal.idempotency.cleanupExpired, {});
    return { deleted: expired.length };
  },
});
