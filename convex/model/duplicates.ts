/** How often requests came again that had been claimed before, told by scope. */
import { MINUTE } from "../../src/core/time";
import { internal } from "../_generated/api";
import type { MutationCtx, QueryCtx } from "../_generated/server";

/** What duplicates are counted under, beside the refusals of limits. */
export const DUPLICATE = { bucket: "replay", outcome: "duplicate" } as const;

/** Rows of one scope and minute, as far as they are known, after which each counts twice as many. */
const ROWS_PER_DOUBLING = 8;

/**
 * Counts a duplicate without ever waiting for another: each is a row of its own, which nobody else
 * writes, and how many there are already is asked of a stale snapshot. A provider that delivers
 * something a hundred times at once is answered a hundred times, at once.
 */
export async function count(ctx: MutationCtx, scope: string, nowMs: number): Promise<void> {
  const minuteMs = Math.floor(nowMs / MINUTE) * MINUTE;
  const known: number = await ctx.runQuery(
    internal.idempotency.duplicateRows,
    { scope, minuteMs },
    { useStaleSnapshot: true },
  );
  // A crowd is sampled, so that whoever repeats one request for ever fills no table.
  const weight = 2 ** Math.floor(known / ROWS_PER_DOUBLING);
  if (Math.random() >= 1 / weight) return;
  await ctx.db.insert("rateLimitEvents", {
    ...DUPLICATE,
    reason: scope,
    minuteMs,
    shard: known,
    count: weight,
  });
}

/** Rows of a scope's minute; as many at least, where some were written at once. */
export async function rows(
  ctx: QueryCtx,
  { minuteMs, scope }: { readonly minuteMs: number; readonly scope: string },
): Promise<number> {
  const { bucket, outcome } = DUPLICATE;
  const last = await ctx.db
    .query("rateLimitEvents")
    .withIndex("by_row", (q) =>
      q
        .eq("minuteMs", minuteMs)
        .eq("bucket", bucket)
        .eq("outcome", outcome)
        .eq("reason", scope)
        .eq("source", undefined),
    )
    .order("desc")
    .first();
  return last === null ? 0 : last.shard + 1;
}
