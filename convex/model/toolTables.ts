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

/** Tables of the tool cache and the tool job queue. */
export const toolTables = {
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
