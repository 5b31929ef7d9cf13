import type { Doc } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";

/** Longest key; builders of keys hash longer ones. */
export const KEY_CHARS_MAX = 512;
/** Largest value. A larger one is refused, never cut: half a JSON text is worse than none. */
export const VALUE_BYTES_MAX = 64 * 1024;

export interface CacheKey {
  readonly namespace: string;
  readonly key: string;
}

/** The key as stored: trimmed and lower-cased, so that spelling does not miss. */
export const canonicalKey = (key: string): string => key.trim().toLowerCase();

/** The live entry, or null. An expired one is absent, whether or not it was cleaned up. */
export async function find(
  ctx: QueryCtx,
  at: CacheKey,
  nowMs: number,
): Promise<Doc<"toolResultCache"> | null> {
  const row = await load(ctx, at);
  return row === null || row.expiresAt <= nowMs ? null : row;
}

/** Stores a value for `ttlMs`. False when it is too large to be stored whole. */
export async function store(
  ctx: MutationCtx,
  entry: CacheKey & { readonly value: string; readonly ttlMs: number },
  nowMs: number,
): Promise<boolean> {
  const { namespace, value, ttlMs } = entry;
  const key = canonicalKey(entry.key);
  if (key.length > KEY_CHARS_MAX) return false;
  if (new TextEncoder().encode(value).byteLength > VALUE_BYTES_MAX) return false;
  const fields = { namespace, key, value, createdAt: nowMs, expiresAt: nowMs + ttlMs };
  const row = await load(ctx, { namespace, key });
  if (row === null) await ctx.db.insert("toolResultCache", fields);
  else await ctx.db.replace("toolResultCache", row._id, fields);
  return true;
}

async function load(
  ctx: QueryCtx,
  { namespace, key }: CacheKey,
): Promise<Doc<"toolResultCache"> | null> {
  return await ctx.db
    .query("toolResultCache")
    .withIndex("by_namespace_key", (q) => q.eq("namespace", namespace).eq("key", canonicalKey(key)))
    .unique();
}
