import { v } from "convex/values";
import { DAY, SECOND } from "../src/core/time";
import { internal } from "./_generated/api";
import { internalMutation, internalQuery } from "./_generated/server";
import { newBatch, takeBatch } from "./model/batch";
import * as ToolResults from "./model/toolResults";

const TTL_MIN_MS = 5 * SECOND;
const TTL_MAX_MS = DAY;
const CLEARED_DEFAULT = 10_000;

/** A cached value, or null where there is none or it has expired. */
export const get = internalQuery({
  args: { namespace: v.string(), key: v.string() },
  returns: v.union(v.string(), v.null()),
  handler: async (ctx, at) => {
    // A query may be answered from the platform's cache, but an entry's expiry ends that too late
    // only by the time to live it was stored with; callers bound it again where it matters.
    const entry = await ToolResults.find(ctx, at, Date.now());
    return entry?.value ?? null;
  },
});

/** Stores a value; null when it is too large to be stored whole. The time to live is clamped. */
export const set = internalMutation({
  args: { namespace: v.string(), key: v.string(), value: v.string(), ttlMs: v.number() },
  returns: v.union(v.object({ key: v.string(), expiresAt: v.number() }), v.null()),
  handler: async (ctx, entry) => {
    const nowMs = Date.now();
    // What is no number lives shortest: an expiry that never comes would never be cleaned up.
    const ttlMs = Math.min(TTL_MAX_MS, Math.max(TTL_MIN_MS, entry.ttlMs || 0));
    const stored = await ToolResults.store(ctx, { ...entry, ttlMs }, nowMs);
    return stored ? { key: ToolResults.canonicalKey(entry.key), expiresAt: nowMs + ttlMs } : null;
  },
});

/** Deletes expired entries in bounded batches, until none is left. */
export const cleanupExpired = internalMutation({
  args: {},
  returns: v.object({ deleted: v.number() }),
  handler: async (ctx) => {
    const batch = newBatch();
    const nowMs = Date.now();
    const expired = await takeBatch(
      ctx.db.query("toolResultCache").withIndex("by_expires_at", (q) => q.lte("expiresAt", nowMs)),
      batch,
    );
    for (const { _id } of expired) await ctx.db.delete("toolResultCache", _id);
    if (batch.full) await ctx.scheduler.runAfter(0, internal.toolCache.cleanupExpired, {});
    return { deleted: expired.length };
  },
});

/**
 * Deletes a namespace's entries, at most `maxDeletes` in all: one batch now, and others by itself.
 * `hasMore` says whether the namespace held more than this batch.
 */
export const clearNamespace = internalMutation({
  args: { namespace: v.string(), maxDeletes: v.optional(v.number()) },
  returns: v.object({ deleted: v.number(), hasMore: v.boolean() }),
  handler: async (ctx, { namespace, maxDeletes = CLEARED_DEFAULT }) => {
    const batch = newBatch(Math.floor(maxDeletes));
    const entries = await takeBatch(
      ctx.db
        .query("toolResultCache")
        .withIndex("by_namespace_key", (q) => q.eq("namespace", namespace)),
      batch,
    );
    for (const { _id } of entries) await ctx.db.delete("toolResultCache", _id);
    const left = Math.floor(maxDeletes) - entries.length;
    if (batch.full && left > 0)
      await ctx.scheduler.runAfter(0, internal.toolCache.clearNamespace, {
        namespace,
        maxDeletes: left,
      });
    return { deleted: entries.length, hasMore: batch.full };
  },
});
