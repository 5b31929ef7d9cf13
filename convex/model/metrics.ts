import type { Infer } from "convex/values";
import * as Histograms from "../../src/core/histogram";
import { countedRate, perSecondAt, placeOf, type Rate } from "../../src/core/shardSpread";
import { MINUTE } from "../../src/core/time";
import type { Doc } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import type { outcomeKind } from "./permit";

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
  const director = await load(ctx, { minuteMs, key, shard: 0 });
  const rate = director === null ? await rateBefore(ctx, key, minuteMs) : (director.rate ?? null);
  const place = placeOf(perSecondAt(rate, nowMs), Math.random);
  // A minute starts at its director, so that everybody else learns from it how to spread.
  const shard = director === null ? 0 : place.shard;
  const row = shard === 0 ? director : await load(ctx, { minuteMs, key, shard });
  const fields = {
    minuteMs,
    key,
    shard,
    ...withCall(row, measured),
    ...(shard === 0 ? { rate: countedRate(rate, place.weight, nowMs) } : {}),
  };
  if (row === null) await ctx.db.insert("metrics", fields);
  else await ctx.db.replace("metrics", row._id, fields);
}

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

async function rateBefore(ctx: QueryCtx, key: string, minuteMs: number): Promise<Rate | null> {
  const before = await load(ctx, { minuteMs: minuteMs - MINUTE, key, shard: 0 });
  return before?.rate ?? null;
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
