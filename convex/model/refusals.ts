import { COUNTER_SHARDS, sampledIncrement } from "../../src/core/sampling";
import { MINUTE } from "../../src/core/time";
import { internal } from "../_generated/api";
import type { MutationCtx } from "../_generated/server";

export interface Refusal {
  /** Name of the limit or of the provider that refused. */
  readonly bucket: string;
  /** `blocked`, `contention_fallback`, or the guard's own word, such as `circuit_open`. */
  readonly outcome: string;
  readonly reason?: string;
  /** Who tells, where it is not the guard itself. */
  readonly source?: string;
}

/**
 * Counts a refusal: the only thing a refused request writes. Sampled when refusals come in crowds,
 * so that counting them is never what is contended.
 */
export async function count(ctx: MutationCtx, refusal: Refusal, nowMs: number): Promise<void> {
  const minuteMs = Math.floor(nowMs / MINUTE) * MINUTE;
  const shard = Math.floor(Math.random() * COUNTER_SHARDS);
  const { bucket, outcome, reason, source } = refusal;
  const row = await ctx.db
    .query("rateLimitEvents")
    .withIndex("by_row", (q) =>
      q
        .eq("minuteMs", minuteMs)
        .eq("bucket", bucket)
        .eq("outcome", outcome)
        .eq("reason", reason)
        .eq("source", source)
        .eq("shard", shard),
    )
    .unique();
  if (row !== null) {
    const added = sampledIncrement(row.count, Math.random);
    if (added > 0) await ctx.db.patch("rateLimitEvents", row._id, { count: row.count + added });
    return;
  }
  await ctx.db.insert("rateLimitEvents", {
    bucket,
    outcome,
    ...(reason === undefined ? {} : { reason }),
    ...(source === undefined ? {} : { source }),
    minuteMs,
    shard,
    count: 1,
  });
  // Once per row: operators are told within seconds, and a crowd of refusals does not ask again and
  // again. In a transaction of its own, which nothing here waits for or fails with.
  if (outcome === "bulkhead_saturated" || outcome === "circuit_open")
    await ctx.scheduler.runAfter(0, internal.alerts.lookAtProvider, { provider: bucket, outcome });
}
