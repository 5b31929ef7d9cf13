import { defineTable } from "convex/server";
import { v } from "convex/values";

export const breakerState = v.union(
  v.object({ kind: v.literal("closed"), failures: v.number() }),
  v.object({
    kind: v.literal("open"),
    openedAtMs: v.number(),
    /** How often it opened without closing in between: the cooldown grows with it. */
    openings: v.number(),
  }),
  v.object({
    kind: v.literal("half_open"),
    openings: v.number(),
    /** Expiry of each probe in flight: a lost probe frees its place by itself. */
    probeLeasesMs: v.array(v.number()),
  }),
);

export const toolJobStatus = v.union(
  v.literal("queued"),
  v.literal("running"),
  v.literal("completed"),
  v.literal("failed"),
  v.literal("dead_letter"),
  v.literal("cancelled"),
);

/** Tables of the reliability primitives. They know nothing of chat, Gmail or WhatsApp. */
export const reliabilityTables = {
  // Rate limits, one number per key: k is `policy:key[#shard]`, t the theoretical arrival time in
  // epoch ms. Written by admissions that pass, and by a refusal that meets the time of another
  // clock; read by admissions of the same key. A row whose time has passed says nothing and is
  // deleted by rateLimit:cleanupExpired.
  limits: defineTable({ k: v.string(), t: v.number() })
    .index("by_key", ["k"])
    .index("by_time", ["t"]),

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

  // Claims on requests and deliveries. Written in the transaction of the effect they guard; read
  // by the next request with that key. An expired row is absent at read; dies by cleanup.
  idempotencyKeys: defineTable({
    scope: v.string(),
    key: v.string(),
    fingerprint: v.optional(v.string()),
    reference: v.optional(v.string()),
    firstSeenAt: v.number(),
    expiresAt: v.number(),
  })
    .index("by_scope_key", ["scope", "key"])
    .index("by_expires_at", ["expiresAt"])
    .index("by_first_seen", ["firstSeenAt"]),

  // Circuit breakers, one row per provider that ever failed (absent means closed). Written on
  // failures and transitions only; read by every admission to the provider. Never deleted.
  circuitBreakers: defineTable({
    provider: v.string(),
    state: breakerState,
    /** Grows with each transition: an outcome of an earlier generation changes nothing. */
    generation: v.number(),
    updatedAt: v.number(),
  }).index("by_provider", ["provider"]),

  // Bulkhead slots: slot i of pool p is the row (p, i); absent or expired means free. Written by
  // whoever takes, renews or releases it; read by the same and by the snapshot. Never deleted, so
  // that a fence never repeats.
  slots: defineTable({
    pool: v.string(),
    index: v.number(),
    holder: v.union(v.string(), v.null()),
    /** Grows with each taking: a late holder's release frees nothing. */
    fence: v.number(),
    expiresAt: v.number(),
    /** Calls and retries settled through this slot since `countedFromMs`: the retry budget. */
    countedFromMs: v.number(),
    calls: v.number(),
    retries: v.number(),
  })
    .index("by_pool_index", ["pool", "index"])
    .index("by_expires_at", ["expiresAt"]),

  // Results of tools. Written by the completion of a tool job; read by turns. Expiry is checked
  // at read; dies by cleanup.
  toolResultCache: defineTable({
    namespace: v.string(),
    key: v.string(),
    value: v.string(),
    createdAt: v.number(),
    expiresAt: v.number(),
  })
    .index("by_namespace_key", ["namespace", "key"])
    .index("by_expires_at", ["expiresAt"]),

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
    slot: v.optional(v.object({ pool: v.string(), index: v.number(), fence: v.number() })),
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

  // Access tokens of providers that hand out client credentials. Written when one is fetched; read
  // by the next call. Never deleted, overwritten in place.
  providerTokens: defineTable({
    name: v.string(),
    token: v.string(),
    expiresAt: v.number(),
  }).index("by_name", ["name"]),
};
