import { type Infer, v } from "convex/values";
import { env } from "../../src/config/env";
import { readKnob } from "../../src/config/read";
import { utf8Bytes } from "../../src/core/bytes";
import { type CacheState, freshnessAt, goneAtMs } from "../../src/core/freshness";
import { DAY } from "../../src/core/time";
import { canonicalKey } from "../../src/tools/keys";
import { cacheWindows } from "../../src/tools/policy";
import type { Doc } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { type Batch, takeBatch } from "./batch";
import * as Counts from "./toolCacheCounts";

type Entry = Doc<"toolResultCache">;

/** Largest value. A larger one is refused, never cut: half a JSON text is worse than none. */
export const VALUE_BYTES_MAX = 64 * 1024;

export interface CacheKey {
  readonly namespace: string;
  readonly key: string;
}

/** What a caller finds, with what it needs to act on it. Times are epoch milliseconds. */
export const found = v.union(
  v.object({
    freshness: v.union(v.literal("fresh"), v.literal("stale"), v.literal("error_only")),
    value: v.string(),
    createdAt: v.number(),
    /** Asking again failed: no use in it before this moment. */
    askFromMs: v.union(v.number(), v.null()),
  }),
  v.object({ freshness: v.literal("negative"), code: v.string(), askFromMs: v.number() }),
);
export type Found = Infer<typeof found>;

/** What an entry is good for now; null where there is none, or nothing in it is of use any more. */
export async function find(ctx: QueryCtx, at: CacheKey, nowMs: number): Promise<Found | null> {
  const entry = await load(ctx, at);
  if (entry === null) return null;
  const { createdAt, value } = entry;
  const freshness = freshnessAt(stateOf(entry), cacheWindows(env), nowMs);
  switch (freshness.kind) {
    case "gone":
      return null;
    case "negative": {
      const { askFromMs, kind } = freshness;
      return { freshness: kind, code: entry.failure?.code ?? "", askFromMs };
    }
    case "fresh":
      return { freshness: "fresh", value: value ?? "", createdAt, askFromMs: null };
    case "stale":
    case "error_only": {
      const { askFromMs, kind } = freshness;
      return { freshness: kind, value: value ?? "", createdAt, askFromMs };
    }
  }
}

/** The answer while it is fresh, else null, whether or not it was cleaned up. */
export async function findFresh(
  ctx: QueryCtx,
  at: CacheKey,
  nowMs: number,
): Promise<string | null> {
  const entry = await load(ctx, at);
  return entry === null || entry.expiresAt <= nowMs ? null : entry.value;
}

/** How asking ended for someone else a moment ago, who need not be asked again. */
type Ended =
  | { readonly kind: "cached"; readonly value: string }
  | { readonly kind: "negative"; readonly retryAfterMs: number };

/** A fresh answer or a failure that is remembered; null where there is use in asking. */
export async function findEnded(ctx: QueryCtx, at: CacheKey, nowMs: number): Promise<Ended | null> {
  const entry = await find(ctx, at, nowMs);
  if (entry?.freshness === "fresh") return { kind: "cached", value: entry.value };
  const askFromMs = entry?.askFromMs ?? nowMs;
  return askFromMs > nowMs ? { kind: "negative", retryAfterMs: askFromMs - nowMs } : null;
}

/**
 * Whether a namespace was cleared since something was asked for it: what came from before is what the
 * operator wanted to be rid of.
 */
export async function isClearedSince(
  ctx: QueryCtx,
  namespace: string,
  askedAtMs: number,
): Promise<boolean> {
  const cleared = await loadClear(ctx, namespace);
  return cleared !== null && cleared.clearedAt >= askedAtMs;
}

/**
 * Stores an answer, fresh for `ttlMs`, and forgets a failure before it. Null when it is too large to
 * be stored whole.
 */
export async function store(
  ctx: MutationCtx,
  entry: CacheKey & { readonly value: string; readonly ttlMs: number },
  nowMs: number,
): Promise<{ readonly key: string; readonly expiresAt: number } | null> {
  const { namespace, value, ttlMs } = entry;
  if (utf8Bytes(value) > VALUE_BYTES_MAX) return null;
  const key = await canonicalKey(entry.key);
  const expiresAt = nowMs + ttlMs;
  const goneAt = goneAtMs(expiresAt, cacheWindows(env));
  const fields = { namespace, key, value, createdAt: nowMs, expiresAt, goneAt };
  const row = await load(ctx, { namespace, key });
  if (row === null) await ctx.db.insert("toolResultCache", fields);
  else await ctx.db.replace("toolResultCache", row._id, fields);
  if ((row?.value ?? null) === null) await Counts.add(ctx, namespace, 1);
  return { key, expiresAt };
}

/**
 * Remembers for a short time that asking failed. What there is of an answer stays; where it is
 * fresh, somebody else had it meanwhile and nothing is written.
 */
export async function storeFailure(
  ctx: MutationCtx,
  { namespace, code, ...at }: CacheKey & { readonly code: string },
  nowMs: number,
): Promise<void> {
  const until = nowMs + readKnob(env, "TOOL_CACHE_NEGATIVE_MS");
  if (until <= nowMs) return;
  const key = await canonicalKey(at.key);
  const failure = { code, until };
  const row = await load(ctx, { namespace, key });
  if (row === null) {
    const never = { value: null, createdAt: nowMs, expiresAt: nowMs, goneAt: until };
    await ctx.db.insert("toolResultCache", { namespace, key, ...never, failure });
  } else if (row.value === null || row.expiresAt <= nowMs)
    await ctx.db.patch("toolResultCache", row._id, {
      failure,
      goneAt: Math.max(row.goneAt, until),
    });
}

/** Deletes what no window reaches any more, as much as the batch takes. */
export async function deleteGone(ctx: MutationCtx, nowMs: number, batch: Batch): Promise<number> {
  const gone = await takeBatch(
    ctx.db.query("toolResultCache").withIndex("by_gone_at", (q) => q.lte("goneAt", nowMs)),
    batch,
  );
  return await deleteAll(ctx, gone);
}

/**
 * Deletes a namespace's entries, as much as the batch takes, and notes when, for what is being asked
 * at this moment.
 */
export async function clear(
  ctx: MutationCtx,
  namespace: string,
  { batch, nowMs }: { readonly batch: Batch; readonly nowMs: number },
): Promise<number> {
  // Who deletes nothing wants to be rid of nothing.
  if (batch.rowsLeft > 0) await noteClear(ctx, namespace, nowMs);
  const entries = await takeBatch(
    ctx.db
      .query("toolResultCache")
      .withIndex("by_namespace_key", (q) => q.eq("namespace", namespace)),
    batch,
  );
  return await deleteAll(ctx, entries);
}

/** Forgets clearings that nothing asked before them can still follow, as much as the batch takes. */
export async function deletePastClears(
  ctx: MutationCtx,
  nowMs: number,
  batch: Batch,
): Promise<void> {
  const past = await takeBatch(
    ctx.db
      .query("toolCacheClears")
      .withIndex("by_cleared_at", (q) => q.lt("clearedAt", nowMs - CLEARS_KEPT_MS)),
    batch,
  );
  for (const { _id } of past) await ctx.db.delete("toolCacheClears", _id);
}

/** Longer than any attempt lasts. */
const CLEARS_KEPT_MS = DAY;

async function noteClear(ctx: MutationCtx, namespace: string, clearedAt: number): Promise<void> {
  const known = await loadClear(ctx, namespace);
  if (known === null) await ctx.db.insert("toolCacheClears", { namespace, clearedAt });
  else await ctx.db.patch("toolCacheClears", known._id, { clearedAt });
}

async function loadClear(ctx: QueryCtx, namespace: string): Promise<Doc<"toolCacheClears"> | null> {
  return await ctx.db
    .query("toolCacheClears")
    .withIndex("by_namespace", (q) => q.eq("namespace", namespace))
    .unique();
}

async function deleteAll(ctx: MutationCtx, entries: readonly Entry[]): Promise<number> {
  const answers = new Map<string, number>();
  for (const { _id, namespace, value } of entries) {
    await ctx.db.delete("toolResultCache", _id);
    if (value !== null) answers.set(namespace, (answers.get(namespace) ?? 0) + 1);
  }
  for (const [namespace, count] of answers) await Counts.add(ctx, namespace, -count);
  return entries.length;
}

const stateOf = ({ expiresAt, failure, value }: Entry): CacheState =>
  value === null
    ? { kind: "failure", failedUntilMs: failure?.until ?? 0 }
    : { kind: "answer", freshUntilMs: expiresAt, failedUntilMs: failure?.until ?? null };

async function load(ctx: QueryCtx, at: CacheKey): Promise<Entry | null> {
  const key = await canonicalKey(at.key);
  return await ctx.db
    .query("toolResultCache")
    .withIndex("by_namespace_key", (q) => q.eq("namespace", at.namespace).eq("key", key))
    .unique();
}
