import { defineTable } from "convex/server";
import { v } from "convex/values";

/** Calls by outcome; what is zero is absent. `degraded` are successes that served something stale. */
export const metricCounts = v.object({
  success: v.optional(v.number()),
  failure: v.optional(v.number()),
  neutral: v.optional(v.number()),
  infrastructure: v.optional(v.number()),
  degraded: v.optional(v.number()),
});

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

  // Calls of one provider or route in one minute. Written by settlements; read by whoever reports
  // the open minutes. Dies within minutes, when metrics:fold adds it to the minute's rollup.
  metrics: defineTable({
    minuteMs: v.number(),
    /** `provider:<id>` or `route:<id>`. */
    key: v.string(),
    /** 0, and more where the key is settled often: see src/core/shardSpread.ts. */
    shard: v.number(),
    counts: metricCounts,
    /** Of successes and failures: see src/core/histogram.ts. */
    latency: v.bytes(),
    /** How often the key is settled; known to shard 0. */
    rate: v.optional(v.object({ perSecond: v.number(), atMs: v.number() })),
  }).index("by_minute_key_shard", ["minuteMs", "key", "shard"]),
};
