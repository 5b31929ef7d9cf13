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

/** Refusals that count as one thing. */
const refusalFields = {
  /** Name of the limit or of the provider that refused. */
  bucket: v.string(),
  /** `blocked`, `contention_fallback`, `degraded`, or the guard's own word, such as `circuit_open`. */
  outcome: v.string(),
  reason: v.optional(v.string()),
  /** Absent where the guard counted itself. */
  source: v.optional(v.string()),
  count: v.number(),
};

export const alertKind = v.union(
  v.literal("limiter"),
  v.literal("circuit_open"),
  v.literal("bulkhead_saturated"),
  v.literal("queued_depth"),
  v.literal("oldest_queued_age"),
  v.literal("oldest_running_age"),
  v.literal("dead_letter_depth"),
);

/** What an alert says, all of it figures and names of ours: no user text, payload or secret. */
export const alertFields = {
  /** Alerts of one key are about the same thing, and one at a time is open. */
  alertKey: v.string(),
  kind: alertKind,
  severity: v.union(v.literal("warning"), v.literal("critical")),
  summary: v.string(),
  observed: v.number(),
  threshold: v.number(),
  windowMinutes: v.number(),
};

/** Tables of what is counted and told to operators. */
export const telemetryTables = {
  // Refusals per minute, policy and reason. Written, sampled, by refused admissions; read by whoever
  // reports the open minutes. Dies within minutes, when metrics:fold adds it to the minute's rollup.
  rateLimitEvents: defineTable({
    ...refusalFields,
    minuteMs: v.number(),
    /** How many rows were known when it was made: those of a crowd may share one. */
    shard: v.number(),
  }).index("by_row", ["minuteMs", "bucket", "outcome", "reason", "source", "shard"]),

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

  // Everything that was counted in a minute of the last hour or so, or in an hour before. Written by
  // metrics:fold, which adds minutes to their hour as they grow old; read by reports. An hour dies
  // after 30 days.
  rollups: defineTable({
    span: v.union(v.literal("minute"), v.literal("hour")),
    startMs: v.number(),
    calls: v.array(v.object({ key: v.string(), counts: metricCounts, latency: v.bytes() })),
    refusals: v.array(v.object(refusalFields)),
  }).index("by_span_start", ["span", "startMs"]),

  // Alerts and their outbox, one row from raising to recovery. Written by monitors, and by
  // alerts:raise and alerts:clear, which transitions schedule; delivered by sentry:deliver; read by
  // the snapshot. Dies 30 days after its last change.
  alerts: defineTable({
    ...alertFields,
    /** Whether what it is about still holds. */
    status: v.union(v.literal("active"), v.literal("resolved")),
    /** What was or is to be told. */
    notice: v.union(v.literal("raised"), v.literal("recovered")),
    delivery: v.union(
      v.literal("pending"),
      v.literal("sent"),
      /** Over before its time came: it was raised again too soon after the last one. */
      v.literal("suppressed"),
      /** Given up on. */
      v.literal("dead"),
      v.literal("not_configured"),
    ),
    attempts: v.number(),
    /** When it is to be sent, where it is pending. */
    dueAt: v.number(),
    /** When it was last told that this was raised. */
    raisedSentAt: v.optional(v.number()),
    /** What went wrong at the last attempt, as a code. */
    lastFailure: v.optional(v.string()),
    createdAt: v.number(),
    resolvedAt: v.optional(v.number()),
    updatedAt: v.number(),
  })
    .index("by_alert_key", ["alertKey", "createdAt"])
    .index("by_kind_created", ["kind", "createdAt"])
    .index("by_status_created", ["status", "createdAt"])
    .index("by_delivery_due", ["delivery", "dueAt"])
    .index("by_updated", ["updatedAt"]),
};
