import { v } from "convex/values";
import { env } from "../src/config/env";
import { readKnob } from "../src/config/read";
import { isTimely, rememberUntilMs } from "../src/core/replay";
import { DAY, MINUTE, SECOND } from "../src/core/time";
import { AppError } from "../src/errors/appError";
import { internal } from "./_generated/api";
import { newBatch, takeBatch } from "./model/batch";
import * as Claims from "./model/claims";
import * as Duplicates from "./model/duplicates";
import { internalMutation, internalQuery } from "./model/functionBoundaries";

const LEASE_DEFAULT_MS = MINUTE;
const LIST_MAX = 200;

/** The claim that is there now, this one's or an earlier one's. */
const seen = { keyId: v.id("idempotencyKeys"), firstSeenAt: v.number() };

const claimAnswer = v.union(
  v.object({
    duplicate: v.literal(false),
    state: v.literal("claimed"),
    /** Proof for `completeKey` and `failKey` that it is still this attempt. */
    fence: v.number(),
    ...seen,
  }),
  v.object({
    duplicate: v.literal(true),
    state: v.literal("in_progress"),
    /** Until the attempt may be taken over. */
    retryAfterMs: v.number(),
    ...seen,
  }),
  v.object({
    duplicate: v.literal(true),
    state: v.literal("completed"),
    reply: v.union(v.string(), v.null()),
    ...seen,
  }),
  v.object({
    duplicate: v.literal(true),
    /** The same key with another request. */
    state: v.literal("conflict"),
    ...seen,
  }),
);

/**
 * Claims a key for work whose effect is reported later by `completeKey` or `failKey`; work that is
 * never reported may be taken over after `leaseMs`. A duplicate writes nothing and extends nothing.
 */
export const claimKey = internalMutation({
  args: {
    scope: v.string(),
    key: v.string(),
    /** Default IDEMPOTENCY_TTL_MS; at least a minute. */
    ttlMs: v.optional(v.number()),
    /** Hash of the request: the same key with another one is a conflict. */
    fingerprint: v.optional(v.string()),
    leaseMs: v.optional(v.number()),
  },
  returns: claimAnswer,
  handler: async (ctx, { fingerprint, key, leaseMs, scope, ttlMs }) => {
    const attempt = Claims.bounded({
      scope,
      key,
      ttlMs: ttlMs ?? readKnob(env, "IDEMPOTENCY_TTL_MS"),
      leaseMs: leaseMs ?? LEASE_DEFAULT_MS,
      ...(fingerprint === undefined ? {} : { fingerprint }),
    });
    const { firstSeenAtMs, keyId, verdict } = await Claims.begin(ctx, attempt, Date.now());
    const seen = { keyId, firstSeenAt: firstSeenAtMs };
    switch (verdict.kind) {
      case "claimed":
        return { duplicate: false as const, state: verdict.kind, fence: verdict.fence, ...seen };
      case "in_progress": {
        const { kind: state, retryAfterMs } = verdict;
        return { duplicate: true as const, state, retryAfterMs, ...seen };
      }
      case "completed":
        return { duplicate: true as const, state: verdict.kind, reply: verdict.reply, ...seen };
      case "conflict":
        return { duplicate: true as const, state: verdict.kind, ...seen };
    }
  },
});

const attempt = { scope: v.string(), key: v.string(), fence: v.number() };

/** Stores what a claimed request was answered, up to 16 KiB. Refused for an attempt taken over. */
export const completeKey = internalMutation({
  args: { ...attempt, reply: v.optional(v.string()) },
  returns: v.object({ ok: v.boolean() }),
  handler: async (ctx, { reply, ...claim }) => ({
    ok: await Claims.report(ctx, claim, {
      kind: "completed",
      ...(reply === undefined ? {} : { reply }),
    }),
  }),
});

/** Says that a claimed request had no effect: its key may be used again at once. */
export const failKey = internalMutation({
  args: attempt,
  returns: v.object({ ok: v.boolean() }),
  handler: async (ctx, claim) => ({ ok: await Claims.report(ctx, claim, { kind: "failed" }) }),
});

/** What our clocks may differ by. */
const CLOCK_MARGIN_MS = 2 * SECOND;

/**
 * Accepts the nonce or signature of a signed request once. It is remembered for as long as its
 * timestamp would be accepted, so that no request ever passes twice.
 */
export const claimNonce = internalMutation({
  args: { scope: v.string(), nonce: v.string(), timestampMs: v.number(), skewMs: v.number() },
  returns: v.union(v.literal("accepted"), v.literal("replayed"), v.literal("untimely")),
  handler: async (ctx, { nonce, scope, skewMs, timestampMs }) => {
    Claims.requireKey({ scope, key: nonce });
    if (!(skewMs >= 0 && skewMs <= DAY))
      throw new AppError("invalid_request", { detail: "skewMs is 0 to a day." });
    const nowMs = Date.now();
    const skew = { skewMs, marginMs: CLOCK_MARGIN_MS };
    if (!isTimely(timestampMs, nowMs, skew)) return "untimely";
    const key = { scope, key: nonce };
    if ((await Claims.find(ctx, key, nowMs)) !== null) return "replayed";
    const ttlMs = rememberUntilMs(timestampMs, nowMs, skew) - nowMs;
    await Claims.put(ctx, { ...key, ttlMs }, nowMs);
    return "accepted";
  },
});

/** The newest claims of a scope, at most 200. Replies are not shown. */
export const listRecentByScope = internalQuery({
  args: { scope: v.string(), limit: v.optional(v.number()) },
  returns: v.array(
    v.object({
      key: v.string(),
      state: v.string(),
      firstSeenAt: v.number(),
      expiresAt: v.number(),
    }),
  ),
  handler: async (ctx, { scope, limit }) => {
    const rows = await ctx.db
      .query("idempotencyKeys")
      .withIndex("by_scope_first_seen", (q) => q.eq("scope", scope))
      .order("desc")
      .take(Math.min(LIST_MAX, Math.max(1, Math.floor(limit ?? LIST_MAX) || 1)));
    return rows.map((row) => ({
      key: row.key,
      state: Claims.stateOf(row).kind,
      firstSeenAt: row.firstSeenAt,
      expiresAt: row.expiresAt,
    }));
  },
});

/** Rows that count a scope's duplicates of a minute. For whoever adds one, on a stale snapshot. */
export const duplicateRows = internalQuery({
  args: { scope: v.string(), minuteMs: v.number() },
  returns: v.number(),
  handler: (ctx, minute) => Duplicates.rows(ctx, minute),
});

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
