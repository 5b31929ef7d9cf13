import { defineTable } from "convex/server";
import { v } from "convex/values";

export const toolJobStatus = v.union(
  v.literal("queued"),
  v.literal("running"),
  v.literal("completed"),
  v.literal("failed"),
  v.literal("dead_letter"),
  v.literal("cancelled"),
);

/** What the cache was to the tool calls of one turn, or of many. Each call counts once. */
export const cacheUse = v.object({
  namespace: v.string(),
  hits: v.number(),
  misses: v.number(),
  stale: v.number(),
  degraded: v.number(),
  negative: v.number(),
});

/** Tables of the tool cache and the tool job queue. */
export const toolTables = {
  // One document per piece of work: its last answer, or that asking failed a moment ago. Written by
  // the end of a tool job; read by turns. Freshness is judged at read; dies by cleanup.
  toolResultCache: defineTable({
    namespace: v.string(),
    key: v.string(),
    /** JSON text; null where there never was an answer, only a failure. */
    value: v.union(v.string(), v.null()),
    createdAt: v.number(),
    /** The answer is fresh before this moment. */
    expiresAt: v.number(),
    /** No window reaches further: what cleanup deletes by. */
    goneAt: v.number(),
    /** The last attempt to have or to renew the answer failed, and is not repeated before `until`. */
    failure: v.optional(v.object({ code: v.string(), until: v.number() })),
  })
    .index("by_namespace_key", ["namespace", "key"])
    .index("by_gone_at", ["goneAt"]),

  // Answers stored per namespace, on shards of which one is picked at random. Written where an
  // answer appears under a new key or is deleted, never by its renewal; read by operators, who add
  // up. Dies with its namespace.
  toolCacheCounts: defineTable({
    namespace: v.string(),
    shard: v.number(),
    /** Below zero where answers were counted on one shard and taken off on this one. */
    answers: v.number(),
  }).index("by_namespace_shard", ["namespace", "shard"]),

  // What the cache was to tool calls, per five minutes. Written by the settlement of turns that
  // called tools, on a random shard, sampled where hot; read by operators. Dies after two days.
  toolCacheUse: defineTable({
    startMs: v.number(),
    shard: v.number(),
    /** Settlements counted, what each was weighted with included. */
    turns: v.number(),
    use: v.array(cacheUse),
  }).index("by_start_shard", ["startMs", "shard"]),

  // Tool jobs without their payloads. Written by enqueue and by whoever holds the lease; read by
  // waiting callers, hand-over and the snapshot. Dies after its retention.
  toolJobs: defineTable({
    source: v.union(v.literal("chat_action"), v.literal("chat_http"), v.literal("operator")),
    toolName: v.string(),
    qosClass: v.string(),
    status: toolJobStatus,
    /** Key of identical work: joined while it is queued or running. */
    workKey: v.optional(v.string()),
    attempts: v.number(),
    maxAttempts: v.number(),
    availableAt: v.number(),
    /** Grows with each claim: the result of an earlier one is refused. */
    fence: v.number(),
    slot: v.optional(v.object({ slotId: v.id("slots"), fence: v.number() })),
    leaseExpiresAt: v.optional(v.number()),
    /** Scheduled `expireLease`, cancelled by the completion. */
    leaseTimerId: v.optional(v.id("_scheduled_functions")),
    lastErrorCode: v.optional(v.string()),
    deadLetterReason: v.optional(v.string()),
    deadLetterAt: v.optional(v.number()),
    createdAt: v.number(),
    updatedAt: v.number(),
    completedAt: v.optional(v.number()),
    expiresAt: v.number(),
  })
    .index("by_tool_status_available", ["toolName", "status", "availableAt"])
    .index("by_status_available", ["status", "availableAt"])
    .index("by_status_updated", ["status", "updatedAt"])
    .index("by_work_key", ["workKey", "status"])
    .index("by_expires_at", ["expiresAt"]),

  // Arguments and result of a tool job, apart from its state so that looking at the state never
  // reads 64 KiB. Written by enqueue and complete; read by the worker and the waiting caller. Dies
  // with its job.
  toolJobPayloads: defineTable({
    jobId: v.id("toolJobs"),
    argsJson: v.string(),
    resultJson: v.optional(v.string()),
  }).index("by_job", ["jobId"]),
};
