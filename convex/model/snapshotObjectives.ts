/** Live objectives of routes and providers, and how much of what they answered was degraded. */
import type { Infer } from "convex/values";
import * as Histograms from "../../src/core/histogram";
import { MINUTE } from "../../src/core/time";
import { BASELINE, judge, objectivesOf, type SloResult } from "../../src/slo/objectives";
import type { Doc } from "../_generated/dataModel";
import type { QueryCtx } from "../_generated/server";
import { type Reading, takeRows } from "./snapshotReading";
import type { degradedRow, objectiveRow } from "./snapshotShape";

const METRIC_ROWS_MAX = 100;

/** What was counted of one route or provider in the window. */
export interface Measured {
  readonly total: number;
  readonly failed: number;
  /** Of `total`: what was answered, and of that, stale or in part. */
  readonly served: number;
  readonly degraded: number;
  readonly p95Ms: number | null;
}

/** Counts of the window by key: `route:<id>` and `provider:<id>`. */
export async function measured(
  ctx: QueryCtx,
  reading: Reading,
): Promise<ReadonlyMap<string, Measured>> {
  const { minutes, nowMs } = reading;
  const rows = await takeRows(
    reading,
    ctx.db
      .query("metrics")
      .withIndex("by_minute_key_shard", (q) => q.gt("minuteMs", nowMs - (minutes + 1) * MINUTE))
      .order("desc"),
    { section: "slo", rowsMax: METRIC_ROWS_MAX },
  );
  const keys = [...new Set(rows.map(({ key }) => key))];
  return new Map(keys.map((key) => [key, measuredOf(rows.filter((row) => row.key === key))]));
}

function measuredOf(rows: readonly Doc<"metrics">[]): Measured {
  const sum = (outcome: keyof Doc<"metrics">["counts"]): number =>
    rows.reduce((total, { counts }) => total + (counts[outcome] ?? 0), 0);
  const latency = Histograms.merge(rows.map((row) => Histograms.decode(row.latency)));
  const [success, failure] = [sum("success"), sum("failure")];
  return {
    // Neutral outcomes and our own contention say nothing about who was called.
    total: success + failure,
    failed: failure,
    served: success,
    degraded: sum("degraded"),
    p95Ms: Histograms.quantileMs(latency, 0.95),
  };
}

const NOTHING: Measured = { total: 0, failed: 0, served: 0, degraded: 0, p95Ms: null };

/** Every objective of the baseline, judged by the window. */
export const objectives = (
  counted: ReadonlyMap<string, Measured>,
  { minutes }: Reading,
): SloResult[] =>
  objectivesOf(BASELINE).map((objective) =>
    judge(objective, { windowMs: minutes * MINUTE, ...(counted.get(objective.key) ?? NOTHING) }),
  );

/** Objectives as they are shown; every figure but the breaches that a verdict looks at. */
export const shownObjectives = (results: readonly SloResult[]): Infer<typeof objectiveRow>[] =>
  results.map(({ breaches, ...result }) => ({
    ...result,
    breaches: breaches.map(({ actual, limit, promise }) => ({ promise, actual, limit })),
  }));

/** Answers by route, provider and cache namespace of which some were stale or partial. */
export const degradedServe = (
  served: readonly { readonly key: string; readonly served: number; readonly degraded: number }[],
): Infer<typeof degradedRow>[] =>
  served
    .filter(({ degraded }) => degraded > 0)
    .map((row) => ({ ...row, ratio: row.served === 0 ? 0 : row.degraded / row.served }));
