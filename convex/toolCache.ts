import { v } from "convex/values";
import { DAY, HOUR, SECOND } from "../src/core/time";
import { internal } from "./_generated/api";
import { newBatch } from "./model/batch";
import { internalMutation, internalQuery } from "./model/functionBoundaries";
import * as Counts from "./model/toolCacheCounts";
import * as ToolResults from "./model/toolResults";
import { cacheUse } from "./model/toolTables";

const TTL_MIN_MS = 5 * SECOND;
const TTL_MAX_MS = DAY;
const CLEARED_DEFAULT = 10_000;
const STATS_ROWS = { default: 5_000, min: 100, max: 20_000 };

/** A cached value, or null where there is none or it is no longer fresh. */
export const get = internalQuery({
  args: { namespace: v.string(), key: v.string() },
  returns: v.union(v.string(), v.null()),
  // A query may be answered from the platform's cache, but an entry's expiry ends that too late
  // only by the time to live it was stored with; callers bound it again where it matters.
  handler: async (ctx, at) => await ToolResults.findFresh(ctx, at, Date.now()),
});

/**
 * What an entry is good for: `fresh`, `stale` (serve it and renew it in the background),
 * `error_only` (serve it where asking fails), or `negative` (asking failed a moment ago: do not ask
 * before `askFromMs`). Null is a miss. Reads one document.
 */
export const lookup = internalQuery({
  args: { namespace: v.string(), key: v.string() },
  returns: v.union(ToolResults.found, v.null()),
  handler: async (ctx, at) => await ToolResults.find(ctx, at, Date.now()),
});

/** Stores a value; null when it is too large to be stored whole. The time to live is clamped. */
export const set = internalMutation({
  args: { namespace: v.string(), key: v.string(), value: v.string(), ttlMs: v.number() },
  returns: v.union(v.object({ key: v.string(), expiresAt: v.number() }), v.null()),
  handler: async (ctx, entry) => {
    // What is no number lives shortest: an expiry that never comes would never be cleaned up.
    const ttlMs = clamp(entry.ttlMs || 0, TTL_MIN_MS, TTL_MAX_MS);
    return await ToolResults.store(ctx, { ...entry, ttlMs }, Date.now());
  },
});

/**
 * Deletes what no window reaches any more in bounded batches, until none is left; then the counters
 * of namespaces that hold nothing, of which `countersFrom` says how far that came.
 */
export const cleanupExpired = internalMutation({
  args: { countersFrom: v.optional(v.string()) },
  returns: v.object({ deleted: v.number() }),
  handler: async (ctx, { countersFrom = "" }) => {
    const batch = newBatch();
    const nowMs = Date.now();
    const deleted = await ToolResults.deleteGone(ctx, nowMs, batch);
    await Counts.deletePast(ctx, nowMs, batch);
    await ToolResults.deletePastClears(ctx, nowMs, batch);
    const next = batch.full ? countersFrom : await Counts.deleteEmpty(ctx, countersFrom, batch);
    if (next !== null)
      await ctx.scheduler.runAfter(0, internal.toolCache.cleanupExpired, { countersFrom: next });
    return { deleted };
  },
});

/**
 * Answers held by namespace: fresh ones, and older ones kept to be served when a search fails. They
 * are counted as they come and go, so the numbers are exact whatever their size, and no value is
 * read; `truncated` says where more than `limit` (100 to 20,000) counters would have had to be. With
 * what the cache was to tool calls by namespace since `useFromMs`, about an hour ago; null where
 * there were none.
 */
export const listNamespaceStats = internalQuery({
  args: { limit: v.optional(v.number()) },
  returns: v.object({
    sampledActiveEntries: v.number(),
    byNamespace: v.record(v.string(), v.number()),
    use: v.array(cacheUse),
    useFromMs: v.union(v.number(), v.null()),
    truncated: v.boolean(),
  }),
  handler: async (ctx, { limit = STATS_ROWS.default }) => {
    const rowsMax = clamp(Math.floor(limit) || STATS_ROWS.default, STATS_ROWS.min, STATS_ROWS.max);
    const { byNamespace, truncated } = await Counts.held(ctx, rowsMax);
    const used = await Counts.used(ctx, Date.now() - HOUR, rowsMax);
    return {
      sampledActiveEntries: Object.values(byNamespace).reduce((sum, n) => sum + n, 0),
      byNamespace: { ...byNamespace },
      use: [...used.use],
      useFromMs: used.fromMs,
      truncated: truncated || used.truncated,
    };
  },
});

/**
 * Deletes a namespace's entries, at most `maxDeletes` in all: one batch now, and others by itself.
 * What tool jobs asked for before is given to those who wait for it, but not stored any more.
 * `hasMore` says whether the namespace held more than this batch.
 */
export const clearNamespace = internalMutation({
  args: { namespace: v.string(), maxDeletes: v.optional(v.number()) },
  returns: v.object({ deleted: v.number(), hasMore: v.boolean() }),
  handler: async (ctx, { namespace, maxDeletes = CLEARED_DEFAULT }) => {
    // What is no number deletes nothing: it is not known to be wanted.
    const most = Math.max(0, Math.floor(maxDeletes) || 0);
    const batch = newBatch(most);
    const deleted = await ToolResults.clear(ctx, namespace, { batch, nowMs: Date.now() });
    const left = most - deleted;
    if (batch.full && left > 0)
      await ctx.scheduler.runAfter(0, internal.toolCache.clearNamespace, {
        namespace,
        maxDeletes: left,
      });
    return { deleted, hasMore: batch.full };
  },
});

const clamp = (value: number, min: number, max: number): number =>
  Math.min(max, Math.max(min, value));
