import { COUNTER_SHARDS, sampledIncrement } from "../../src/core/sampling";
import { MINUTE } from "../../src/core/time";
import type { MutationCtx } from "../_generated/server";

/**
 * Counts a refusal: the only thing a refused request writes. Sampled when refusals come in crowds,
 * so that counting them is never what is contended.
 */
export async function count(
  ctx: MutationCtx,
  { bucket, outcome }: { readonly bucket: string; readonly outcome: string },
  nowMs: number,
): Promise<void> {
  const minuteMs = Math.floor(nowMs / MINUTE) * MINUTE;
  const shard = Math.floor(Math.random() * COUNTER_SHARDS);
  const row = await ctx.db
    .query("rateLimitEvents")
    .withIndex("by_row", (q) =>
      q.eq("minuteMs", minuteMs).eq("bucket", bucket).eq("outcome", outcome).eq("shard", shard),
    )
    .unique();
  if (row === null) {
    await ctx.db.insert("rateLimitEvents", { bucket, outcome, minuteMs, shard, count: 1 });
    return;
  }
  const added = sampledIncrement(row.count, Math.random);
  if (added > 0) await ctx.db.patch("rateLimitEvents", row._id, { count: row.count + added });
}
