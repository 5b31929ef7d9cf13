/**
 * How much the tool cache holds, and what it was good for. Kept apart from the entries: counting
 * those would read values of up to 64 KiB each.
 */
import { COUNTER_SHARDS, sampledIncrement } from "../../src/core/sampling";
import { DAY, MINUTE } from "../../src/core/time";
import { type CacheUse, sumUse } from "../../src/tools/cacheUse";
import type { Doc } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { type Batch, takeBatch } from "./batch";

/** Length of one row of use. Short enough for a window of minutes, long enough to be few rows. */
const USE_ROW_MS = 5 * MINUTE;
const USE_KEPT_MS = 2 * DAY;

/** Counts answers that appeared under new keys, or were deleted. */
export async function add(ctx: MutationCtx, namespace: string, answers: number): Promise<void> {
  const shard = randomShard();
  const row = await ctx.db
    .query("toolCacheCounts")
    .withIndex("by_namespace_shard", (q) => q.eq("namespace", namespace).eq("shard", shard))
    .unique();
  if (row === null) await ctx.db.insert("toolCacheCounts", { namespace, shard, answers });
  else await ctx.db.patch("toolCacheCounts", row._id, { answers: row.answers + answers });
}

export interface Held {
  /** Answers held, fresh ones and those kept for a failure. Exact unless `truncated`. */
  readonly byNamespace: Readonly<Record<string, number>>;
  readonly truncated: boolean;
}

/** Answers held by namespace, from at most `rowsMax` narrow rows; namespaces without any are left out. */
export async function held(ctx: QueryCtx, rowsMax: number): Promise<Held> {
  const rows = await ctx.db.query("toolCacheCounts").take(rowsMax + 1);
  const sums = totals(rows.slice(0, rowsMax));
  return {
    byNamespace: Object.fromEntries([...sums].filter(([, answers]) => answers > 0)),
    truncated: rows.length > rowsMax,
  };
}

/** Counts what the cache was to the tool calls of a turn. */
export async function recordUse(
  ctx: MutationCtx,
  use: readonly CacheUse[],
  nowMs: number,
): Promise<void> {
  if (use.length === 0) return;
  const startMs = Math.floor(nowMs / USE_ROW_MS) * USE_ROW_MS;
  const shard = randomShard();
  const row = await ctx.db
    .query("toolCacheUse")
    .withIndex("by_start_shard", (q) => q.eq("startMs", startMs).eq("shard", shard))
    .unique();
  if (row === null) {
    await ctx.db.insert("toolCacheUse", { startMs, shard, turns: 1, use: [...use] });
    return;
  }
  const weight = sampledIncrement(row.turns, Math.random);
  if (weight > 0)
    await ctx.db.patch("toolCacheUse", row._id, {
      turns: row.turns + weight,
      use: sumUse(row.use, use, weight),
    });
}

export interface Used {
  readonly use: readonly CacheUse[];
  /** Start of the first row that was read, in epoch milliseconds; null where there is none. */
  readonly fromMs: number | null;
  /** Whether earlier rows of the window were left out. */
  readonly truncated: boolean;
}

/** What the cache was good for since a moment, from at most `rowsMax` rows, the latest first. */
export async function used(ctx: QueryCtx, sinceMs: number, rowsMax: number): Promise<Used> {
  const rows = await ctx.db
    .query("toolCacheUse")
    .withIndex("by_start_shard", (q) => q.gt("startMs", sinceMs - USE_ROW_MS))
    .order("desc")
    .take(rowsMax + 1);
  const read = rows.slice(0, rowsMax);
  return {
    use: read.reduce<CacheUse[]>((sum, row) => sumUse(sum, row.use), []),
    fromMs: read.at(-1)?.startMs ?? null,
    truncated: rows.length > rowsMax,
  };
}

/** Deletes old rows of use, as much as the batch takes. */
export async function deletePast(ctx: MutationCtx, nowMs: number, batch: Batch): Promise<number> {
  const past = await takeBatch(
    ctx.db
      .query("toolCacheUse")
      .withIndex("by_start_shard", (q) => q.lt("startMs", nowMs - USE_KEPT_MS)),
    batch,
  );
  for (const { _id } of past) await ctx.db.delete("toolCacheUse", _id);
  return past.length;
}

/**
 * Deletes the counters of namespaces that hold nothing, such as those of an earlier version, from a
 * namespace on and as far as the batch goes. Returns where to go on, or null.
 */
export async function deleteEmpty(
  ctx: MutationCtx,
  from: string,
  batch: Batch,
): Promise<string | null> {
  const rows = await takeBatch(
    ctx.db
      .query("toolCacheCounts")
      .withIndex("by_namespace_shard", (q) => q.gte("namespace", from)),
    batch,
  );
  // The last namespace read may go on behind the batch; what is not whole is not judged.
  const cut = batch.full ? (rows.at(-1)?.namespace ?? from) : null;
  const sums = totals(rows);
  for (const { _id, namespace } of rows)
    if (namespace !== cut && sums.get(namespace) === 0) await ctx.db.delete("toolCacheCounts", _id);
  return cut;
}

function totals(rows: readonly Doc<"toolCacheCounts">[]): Map<string, number> {
  const sums = new Map<string, number>();
  for (const { namespace, answers } of rows)
    sums.set(namespace, (sums.get(namespace) ?? 0) + answers);
  return sums;
}

const randomShard = (): number => Math.floor(Math.random() * COUNTER_SHARDS);
