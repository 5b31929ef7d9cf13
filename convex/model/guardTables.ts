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

/** Tables of limits, replay protection, breakers and bulkheads. They know nothing of chat, Gmail or WhatsApp. */
export const guardTables = {
  // Rate limits, one number per key: k is `policy:key[#shard]`, t the theoretical arrival time in
  // epoch ms. Written by admissions that pass, and by a refusal that meets the time of another
  // clock; read by admissions of the same key. A row whose time has passed says nothing and is
  // deleted by rateLimit:cleanupExpired.
  limits: defineTable({ k: v.string(), t: v.number() })
    .index("by_key", ["k"])
    .index("by_time", ["t"]),

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

  // Access tokens of providers that hand out client credentials. Written when one is fetched; read
  // by the next call. Never deleted, overwritten in place.
  providerTokens: defineTable({
    name: v.string(),
    token: v.string(),
    expiresAt: v.number(),
  }).index("by_name", ["name"]),
};
