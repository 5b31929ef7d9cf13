/** What was refused, and what was recognised as a duplicate, as a snapshot shows it. */
import { MINUTE } from "../../src/core/time";
import type { QueryCtx } from "../_generated/server";
import { type Reading, shownName, takeRows } from "./snapshotReading";

const EVENT_ROWS_MAX = 60;

export interface Refused {
  /** How often, by `bucket:outcome`. */
  readonly byBucketOutcome: Readonly<Record<string, number>>;
  readonly total: number;
}

/** Refusals of the window by policy and reason. */
export async function refused(ctx: QueryCtx, reading: Reading): Promise<Refused> {
  const { minutes, nowMs } = reading;
  const rows = await takeRows(
    reading,
    ctx.db
      .query("rateLimitEvents")
      .withIndex("by_row", (q) => q.gte("minuteMs", Math.floor(nowMs / MINUTE - minutes) * MINUTE))
      .order("desc"),
    { section: "rateLimitPressure", rowsMax: EVENT_ROWS_MAX },
  );
  const byBucketOutcome: Record<string, number> = {};
  for (const { bucket, count, outcome } of rows) {
    const key = `${shownName(bucket)}:${shownName(outcome)}`;
    byBucketOutcome[key] = (byBucketOutcome[key] ?? 0) + count;
  }
  return { byBucketOutcome, total: rows.reduce((sum, { count }) => sum + count, 0) };
}
