import { sampledIncrement } from "../../src/core/sampling";
import { MINUTE } from "../../src/core/time";
import type { ErrorData } from "../../src/errors/appError";
import { internal } from "../_generated/api";
import type { Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";

export interface Refusal {
  /** Name of the limit or of the provider that refused. */
  readonly bucket: string;
  /**
   * `blocked`, `contention_fallback`, `degraded` (let through without the limit, as it is declared),
   * or the guard's own word, such as `circuit_open`.
   */
  readonly outcome: string;
  readonly reason?: string;
  /** Who tells, where it is not the guard itself. */
  readonly source?: string;
}

/** What a guard refuses with, and what that is counted as. */
export interface Refused {
  readonly ok: false;
  readonly error: ErrorData;
  readonly counted: Pick<Refusal, "bucket" | "outcome">;
}

/** Rows of one refusal and minute that are made before any of them is counted up. */
const ROWS_MIN = 8;
/** Rows of them that are known to whoever counts. */
const ROWS_KNOWN_MAX = 32;
/** One in so many of those that must not lose another race is counted, for all of them. */
const LATE_WEIGHT = 4;

/**
 * Counts a refusal: the only thing a refused request writes. The first ones of a minute are a row
 * each, which nobody else writes, so that a crowd that is refused at once is refused at once; later
 * ones count a known row up, sampled when it is hot.
 */
export async function count(ctx: MutationCtx, refusal: Refusal, nowMs: number): Promise<void> {
  const { known, row } = await look(ctx, refusal, nowMs);
  if (known.length >= ROWS_MIN) {
    await countUp(ctx, known);
    return;
  }
  await ctx.db.insert("rateLimitEvents", { ...row, shard: known.length, count: 1 });
  if (known.length === 0) await tell(ctx, refusal);
}

/**
 * Counts a refusal of somebody who has lost races already, on a row of its own: counting a known row
 * up might lose another.
 */
export async function countLate(ctx: MutationCtx, refusal: Refusal, nowMs: number): Promise<void> {
  if (Math.random() >= 1 / LATE_WEIGHT) return;
  const { known, row } = await look(ctx, refusal, nowMs);
  await ctx.db.insert("rateLimitEvents", { ...row, shard: ROWS_KNOWN_MAX, count: LATE_WEIGHT });
  if (known.length === 0) await tell(ctx, refusal);
}

/** The row that a refusal makes, and those there are of its minute. */
async function look(ctx: MutationCtx, { bucket, outcome, reason, source }: Refusal, nowMs: number) {
  const row = {
    bucket,
    outcome,
    ...(reason === undefined ? {} : { reason }),
    ...(source === undefined ? {} : { source }),
    minuteMs: Math.floor(nowMs / MINUTE) * MINUTE,
  };
  const known: Id<"rateLimitEvents">[] = await ctx.runQuery(internal.rateLimit.refusalRows, row, {
    useStaleSnapshot: true,
  });
  return { known, row };
}

/**
 * Has somebody look at the provider. Once a minute, and in a transaction of its own, which nothing
 * here waits for or fails with: operators are told within seconds, and a crowd of refusals does not
 * ask again and again.
 */
async function tell(ctx: MutationCtx, { bucket, outcome }: Refusal): Promise<void> {
  if (outcome === "bulkhead_saturated" || outcome === "circuit_open")
    await ctx.scheduler.runAfter(0, internal.alerts.lookAtProvider, { provider: bucket, outcome });
}

async function countUp(ctx: MutationCtx, known: readonly Id<"rateLimitEvents">[]): Promise<void> {
  const id = known[Math.floor(Math.random() * known.length)];
  const row = id === undefined ? null : await ctx.db.get("rateLimitEvents", id);
  const added = row === null ? 0 : sampledIncrement(row.count, Math.random);
  if (row !== null && added > 0)
    await ctx.db.patch("rateLimitEvents", row._id, { count: row.count + added });
}

/** Rows that a refusal of a minute may be counted on. For counting, on a stale snapshot. */
export async function rowsOf(
  ctx: QueryCtx,
  { bucket, minuteMs, outcome, reason, source }: Refusal & { readonly minuteMs: number },
): Promise<Id<"rateLimitEvents">[]> {
  const rows = await ctx.db
    .query("rateLimitEvents")
    .withIndex("by_row", (q) =>
      q
        .eq("minuteMs", minuteMs)
        .eq("bucket", bucket)
        .eq("outcome", outcome)
        .eq("reason", reason)
        .eq("source", source),
    )
    .take(ROWS_KNOWN_MAX);
  return rows.map(({ _id }) => _id);
}
