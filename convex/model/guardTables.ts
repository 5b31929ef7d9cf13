import { defineTable } from "convex/server";
import { v } from "convex/values";

export const openReason = v.union(
  v.literal("consecutive_failures"),
  v.literal("failure_rate"),
  v.literal("slow_call_rate"),
  v.literal("failed_probe"),
);

export const breakerState = v.union(
  v.object({ kind: v.literal("closed") }),
  v.object({
    kind: v.literal("open"),
    openedAtMs: v.number(),
    /** How often it opened without closing in between: the cooldown grows with it. */
    openings: v.number(),
    reason: openReason,
  }),
  v.object({ kind: v.literal("forced_open") }),
  v.object({ kind: v.literal("metrics_only") }),
);

export const claimState = v.union(
  v.object({ kind: v.literal("in_progress"), leaseExpiresAt: v.number() }),
  v.object({ kind: v.literal("completed"), reply: v.optional(v.string()) }),
  v.object({ kind: v.literal("failed") }),
);

/** Calls, failures, slow calls and retries of half a window; what is zero is absent. */
const counts = {
  c: v.optional(v.number()),
  f: v.optional(v.number()),
  s: v.optional(v.number()),
  r: v.optional(v.number()),
};

/** Tables of limits, replay protection, breakers and bulkheads. They know nothing of chat, Gmail or WhatsApp. */
export const guardTables = {
  // Rate limits, one number per key: k is `policy:key[#shard]`, t the theoretical arrival time in
  // epoch ms. Written by admissions that pass, and by a refusal that meets the time of another
  // clock; read by admissions of the same key. A row whose time has passed says nothing and is
  // deleted by rateLimit:cleanupExpired. One index only: bytes of each are paid on every request.
  limits: defineTable({ k: v.string(), t: v.number() }).index("by_key", ["k"]),

  // Claims on requests and deliveries. Written in the transaction of the effect they guard; read
  // by the next request with that key. An expired row is absent at read; dies by cleanup.
  idempotencyKeys: defineTable({
    scope: v.string(),
    key: v.string(),
    fingerprint: v.optional(v.string()),
    reference: v.optional(v.string()),
    firstSeenAt: v.number(),
    expiresAt: v.number(),
    /** Absent where claim and effect were one transaction: then it is completed. */
    state: v.optional(claimState),
    /** Grows with each attempt: the report of an earlier one is refused. Absent means 1. */
    fence: v.optional(v.number()),
  })
    .index("by_scope_key", ["scope", "key"])
    .index("by_expires_at", ["expiresAt"])
    .index("by_scope_first_seen", ["scope", "firstSeenAt"])
    .index("by_first_seen", ["firstSeenAt"]),

  // Circuit breakers, one row per provider that ever opened (absent means closed). Written on
  // transitions only; read by every admission to the provider. Never deleted.
  circuitBreakers: defineTable({
    provider: v.string(),
    state: breakerState,
    /** Grows with each transition: an outcome of an earlier generation changes nothing. */
    generation: v.number(),
    updatedAt: v.number(),
  }).index("by_provider", ["provider"]),

  // Probes of half-open breakers, one row per place. Written by the admission of a probe and its
  // settlement; read by both. Deleted when the breaker leaves that generation.
  breakerProbes: defineTable({
    provider: v.string(),
    generation: v.number(),
    place: v.number(),
    /** A probe that never reports gives its place up then. */
    expiresAt: v.number(),
    succeeded: v.boolean(),
  }).index("by_provider_generation", ["provider", "generation"]),

  // Bulkhead slots: slot i of pool p; absent or expired means free. Written by whoever takes,
  // renews or releases it, read by the same and by the snapshot. Never deleted, so that a fence
  // never repeats. Short names: every call pays for these bytes five times.
  slots: defineTable({
    /** Pool. */
    p: v.string(),
    /** Index in the pool, from 0. Indexes at or above the pool's size drain. */
    i: v.number(),
    /** When the lease expires, in epoch ms. A release sets it to now: from then on it is free. */
    e: v.number(),
    /** Fence: grows with each taking and release, so that a late holder's release frees nothing. */
    f: v.number(),
    /** Holder, where somebody looks for it: a lease id or a job. */
    h: v.optional(v.string()),
    /** The job that runs here next. */
    n: v.optional(v.string()),
    /** Jobs completed, and buried, through this slot, ever. */
    d: v.optional(v.number()),
    q: v.optional(v.number()),
    /** Tally of the provider calls settled here: see src/core/tally.ts. */
    t: v.optional(
      v.object({
        /** Generation. */
        g: v.number(),
        /** Start of the current half window. */
        w: v.number(),
        /** Counts of this half, and of the one before. */
        c: v.object(counts),
        p: v.optional(v.object(counts)),
        /** Last success. */
        l: v.optional(v.number()),
        /** Times of the failures since. */
        x: v.optional(v.array(v.number())),
      }),
    ),
  }).index("by_pool_index", ["p", "i"]),

  // Access tokens of providers that hand out client credentials. Written when one is fetched; read
  // by the next call. Never deleted, overwritten in place.
  providerTokens: defineTable({
    name: v.string(),
    token: v.string(),
    expiresAt: v.number(),
  }).index("by_name", ["name"]),
};
