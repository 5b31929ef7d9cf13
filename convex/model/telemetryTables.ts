import { defineTable } from "convex/server";
import { v } from "convex/values";

/** Tables of what is counted and told to operators. */
export const telemetryTables = {
  // Refusals per minute, policy and reason. Written, sampled, by refused admissions; read by the
  // snapshot. Dies after a week.
  rateLimitEvents: defineTable({
    bucket: v.string(),
    outcome: v.string(),
    minuteMs: v.number(),
    /** Random 0 to 7: refusals come in crowds, and one row would be contended. */
    shard: v.number(),
    count: v.number(),
  }).index("by_row", ["minuteMs", "bucket", "outcome", "shard"]),
};
