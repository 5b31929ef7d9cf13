import { defineTable } from "convex/server";
import { v } from "convex/values";

const attempt = v.object({ atMs: v.number(), code: v.string() });

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

  // When a namespace was cleared last. Written by toolCache:clearNamespace; read by the end of each
  // tool job that would cache its result, which may have been asked for before. Dies after a day.
  toolCacheClears: defineTable({ namespace: v.string(), clearedAt: v.number() })
    .index("by_namespace", ["namespace"])
    .index("by_cleared_at", ["clearedAt"]),

  // What the cache was to tool calls, per five minutes. Written by the settlement of turns that
  // called tools, on a random shard, sampled where hot; read by operators. Dies after two days.
  toolCacheUse: defineTable({
    startMs: v.number(),
    shard: v.number(),
    /** Settlements counted, what each was weighted with included. */
    turns: v.number(),
    use: v.array(cacheUse),
  }).index("by_start_shard", ["startMs", "shard"]),

  // Tool jobs. Written by enqueue, cancel and whoever holds the lease; read by waiting callers,
  // hand-over and operators. Dies after its retention. Short names and two indexes only: each job
  // pays for these bytes about ten times. What is at its default is absent.
  toolJobs: defineTable({
    /** Place: one of PLACE in src/core/queue.ts, or a place in line of its tool. */
    p: v.string(),
    /** Since when it stands there, in epoch ms; of a job that backs off, until when. */
    a: v.number(),
    /** Tool. */
    t: v.string(),
    /** Class. */
    c: v.union(v.literal("r"), v.literal("i"), v.literal("b")),
    /** Source: chat over HTTP, chat action, operator. */
    o: v.union(v.literal("h"), v.literal("a"), v.literal("o")),
    /** Fence: claims so far, each of which was an attempt. The result of an earlier one is refused. */
    f: v.number(),
    /** Claims that do not count as attempts: those before an operator requeued it. */
    b: v.optional(v.number()),
    /** Attempts asked for, where the caller asked. */
    m: v.optional(v.number()),
    /** Key of identical work: joined while it is queued or running, and absent after. */
    k: v.optional(v.string()),
    /** That key of a dead letter, which nobody joins: its own again when it is requeued. */
    q: v.optional(v.string()),
    /** Slot and its fence while running; the slot where it is to be next. */
    l: v.optional(v.id("slots")),
    g: v.optional(v.number()),
    /** What is scheduled for it: the end of its lease, or its next attempt. */
    x: v.optional(v.id("_scheduled_functions")),
    /** Deadline, in epoch ms. */
    d: v.optional(v.number()),
    /** Arguments and result as JSON text, up to 1 KiB each. */
    j: v.optional(v.string()),
    r: v.optional(v.string()),
    /** Whether there is a row of payload as well. */
    v: v.optional(v.boolean()),
    /** Progress its worker reported, from 0 to 1. */
    s: v.optional(v.number()),
    /** Whether it was cancelled while running. */
    y: v.optional(v.boolean()),
    /** Attempts that failed: the last few of them. */
    h: v.optional(v.array(attempt)),
    /** Why it was buried or failed. */
    w: v.optional(v.string()),
    /** Until when and why an operator put it off, and since when it has been a dead letter. */
    u: v.optional(v.object({ untilMs: v.number(), reason: v.string(), sinceMs: v.number() })),
  })
    .index("by_place", ["p", "a"])
    .index("by_work_key", ["k"]),

  // Arguments and results above 1 KiB, apart from the state, so that looking at the state never
  // reads 64 KiB. Written by enqueue and complete; read by the worker and the waiting caller. Dies
  // with its job.
  toolJobPayloads: defineTable({
    jobId: v.id("toolJobs"),
    argsJson: v.optional(v.string()),
    resultJson: v.optional(v.string()),
  }).index("by_job", ["jobId"]),

  // Jobs in line of tool t on stripe z, by class. Written when one joins or leaves the line; read by
  // whoever looks for a place or for the next. Dies with its last job.
  toolJobStripes: defineTable({
    t: v.string(),
    z: v.number(),
    r: v.number(),
    i: v.number(),
    b: v.number(),
  }).index("by_tool_stripe", ["t", "z"]),

  // What slots do not count of the jobs there are, as sums over shards picked at random: dead
  // letters, cancelled and failed ones, and what was deleted of those that slots did count. Written
  // by their rare ends and by cleanup; read by operators. Never deleted.
  toolJobCounts: defineTable({
    t: v.string(),
    z: v.number(),
    completed: v.number(),
    failed: v.number(),
    cancelled: v.number(),
    deadLetters: v.number(),
  }).index("by_tool_shard", ["t", "z"]),
};
