import { type Infer, v } from "convex/values";
import { KIB } from "../../src/core/bytes";
import * as Histograms from "../../src/core/histogram";
import { measuresOf, type Refusals } from "../../src/core/rollup";
import { countedRate, placeOf, type Rate } from "../../src/core/shardSpread";
import { MINUTE } from "../../src/core/time";
import { internal } from "../_generated/api";
import type { Doc } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { type Batch, newBatch } from "./batch";
import type { outcomeKind } from "./permit";
import * as Rollups from "./rollups";

type Row = Doc<"metrics">;

/** A call that has ended. */
export interface Measured {
  /** `provider:<id>` or `route:<id>`. */
  readonly key: string;
  readonly outcome: Infer<typeof outcomeKind>;
  /** How long it took, in ms. Kept of successes and failures: others end before their time. */
  readonly latencyMs: number;
  /** True where a success served something stale, or less than was asked for. */
  readonly degraded?: boolean;
  readonly nowMs: number;
}

/**
 * Counts a call, in the transaction that settles it. Writes one document, which no other settlement
 * of the moment is likely to touch: the more often a key is settled, the more documents it has.
 */
export async function record(ctx: MutationCtx, measured: Measured): Promise<void> {
  const { key, nowMs } = measured;
  const minuteMs = minuteOf(nowMs);
  const known = await ctx.runQuery(
    internal.metrics.rateOf,
    { minuteMs, key },
    { useStaleSnapshot: true },
  );
  const place = placeOf(known.rate, nowMs, Math.random);
  // A minute starts at its director, so that everybody else learns from it how to spread.
  const shard = known.begun ? place.shard : 0;
  const row = await load(ctx, { minuteMs, key, shard });
  const rate = row?.rate ?? known.rate;
  const fields = {
    minuteMs,
    key,
    shard,
    ...withCall(row, measured),
    ...(shard === 0 ? { rate: countedRate(rate, place.weight, nowMs) } : {}),
  };
  if (!known.begun && place.shard !== 0) await foldSoon(ctx, minuteMs);
  if (row === null) await ctx.db.insert("metrics", fields);
  else await ctx.db.replace("metrics", row._id, fields);
}

/** Documents of a key in a minute are many at a high rate: they are not left lying for five minutes. */
async function foldSoon(ctx: MutationCtx, minuteMs: number): Promise<void> {
  await ctx.scheduler.runAt(minuteMs + FOLDED_AFTER_MS, internal.metrics.fold, {});
}

/** The minute itself, and the time in which it may still be counted in. */
const FOLDED_AFTER_MS = 1.5 * MINUTE;

const minuteOf = (ms: number): number => Math.floor(ms / MINUTE) * MINUTE;

async function load(
  ctx: QueryCtx,
  { key, minuteMs, shard }: Pick<Row, "minuteMs" | "key" | "shard">,
): Promise<Row | null> {
  return await ctx.db
    .query("metrics")
    .withIndex("by_minute_key_shard", (q) =>
      q.eq("minuteMs", minuteMs).eq("key", key).eq("shard", shard),
    )
    .unique();
}

/**
 * How often a key is settled, as its director of this minute knows, or the one of the last minute
 * where this one has none. Meant for a stale snapshot.
 */
export async function rateOf(
  ctx: QueryCtx,
  { key, minuteMs }: Pick<Row, "minuteMs" | "key">,
): Promise<{ readonly begun: boolean; readonly rate: Rate | null }> {
  const director = await load(ctx, { minuteMs, key, shard: 0 });
  if (director !== null) return { begun: true, rate: director.rate ?? null };
  const before = await load(ctx, { minuteMs: minuteMs - MINUTE, key, shard: 0 });
  return { begun: false, rate: before?.rate ?? null };
}

function withCall(
  row: Row | null,
  { degraded = false, latencyMs, outcome }: Measured,
): Pick<Row, "counts" | "latency"> {
  const counts = row?.counts ?? {};
  const latency = row === null ? Histograms.EMPTY : Histograms.decode(row.latency);
  const isTimed = outcome === "success" || outcome === "failure";
  return {
    counts: {
      ...counts,
      [outcome]: (counts[outcome] ?? 0) + 1,
      ...(degraded ? { degraded: (counts.degraded ?? 0) + 1 } : {}),
    },
    latency: Histograms.encode(isTimed ? Histograms.add(latency, latencyMs) : latency),
  };
}

const nullableMs = v.union(v.number(), v.null());

export const readingFields = v.object({
  fromMs: v.number(),
  truncated: v.boolean(),
  keys: v.array(
    v.object({
      key: v.string(),
      success: v.number(),
      failure: v.number(),
      neutral: v.number(),
      infrastructure: v.number(),
      degraded: v.number(),
      total: v.number(),
      errorRatio: v.number(),
      degradedRatio: v.number(),
      p50Ms: nullableMs,
      p95Ms: nullableMs,
      p99Ms: nullableMs,
    }),
  ),
  refusals: v.array(
    v.object({
      bucket: v.string(),
      outcome: v.string(),
      reason: v.optional(v.string()),
      source: v.optional(v.string()),
      count: v.number(),
    }),
  ),
});

/** Documents and bytes of one reading where the caller sets no bounds of its own. */
const READ_ROWS_MAX = 160;
const READ_BYTES_MAX = 256 * KIB;

/**
 * What was counted in the last `minutes`, by key, and the refusals of the same time. Reads a row
 * per minute of the last hour, one per hour before, and those of the minutes that are still open;
 * takes what it reads off `batch`.
 */
export async function read(
  ctx: QueryCtx,
  window: Rollups.Window,
  batch: Batch = { ...newBatch(READ_ROWS_MAX), bytesLeft: READ_BYTES_MAX },
): Promise<Infer<typeof readingFields>> {
  const { calls, fromMs, refusals, truncated } = await Rollups.totals(ctx, window, batch);
  return { fromMs, truncated, keys: calls.map(measuresOf), refusals: refusals.map(plain) };
}

const plain = (refusal: Refusals) => ({ ...refusal });
