/** Live objectives of routes and providers, and how much of what they answered was degraded. */
import type { Infer } from "convex/values";
import { KIB } from "../../src/core/bytes";
import type { Measures, Refusals } from "../../src/core/rollup";
import { MINUTE } from "../../src/core/time";
import {
  BASELINE,
  judge,
  type Measured,
  objectivesOf,
  type SloResult,
} from "../../src/slo/objectives";
import type { VerdictInput } from "../../src/slo/reading";
import type { QueryCtx } from "../_generated/server";
import * as Metrics from "./metrics";
import { type Reading, shareOf, shownKey } from "./snapshotReading";
import type { degradedRow, objectiveRow } from "./snapshotShape";

/** Rows and bytes of the minutes and hours, at least; and what the sections after them need. */
const METRIC_ROWS_MIN = 80;
const METRIC_BYTES_MIN = 64 * KIB;
const LATER_ROWS = 150;
const LATER_BYTES = 40 * KIB;

export interface Counted {
  /** By route and provider. */
  readonly calls: readonly Measures[];
  readonly refusals: readonly Refusals[];
}

/** What was counted in the window. */
export async function counted(ctx: QueryCtx, reading: Reading): Promise<Counted> {
  const { bytesLeft, rowsLeft } = reading.left;
  const share = shareOf(reading, {
    rowsMax: Math.max(METRIC_ROWS_MIN, rowsLeft - LATER_ROWS),
    bytesMax: Math.max(METRIC_BYTES_MIN, bytesLeft - LATER_BYTES),
  });
  const { keys, refusals, truncated } = await Metrics.read(ctx, reading, share.batch);
  share.close();
  if (truncated) {
    reading.truncated.add("slo");
    reading.truncated.add("rateLimitPressure");
  }
  return { calls: keys, refusals };
}

/** Every objective of the baseline, judged by the window. */
export const objectives = (calls: readonly Measures[], { minutes }: Reading): SloResult[] =>
  objectivesOf(BASELINE).map((objective) => {
    const found = calls.find(({ key }) => key === objective.key);
    return judge(objective, { windowMs: minutes * MINUTE, ...measured(found) });
  });

const measured = (of: Measures | undefined): Omit<Measured, "windowMs"> =>
  of === undefined
    ? { total: 0, failed: 0, degraded: 0, p95Ms: null }
    : { total: of.total, failed: of.failure, degraded: of.degraded, p95Ms: of.p95Ms };

/** Objectives as they are shown: a breach says what was promised and what came of it. */
export const shownObjectives = (results: readonly SloResult[]): Infer<typeof objectiveRow>[] =>
  results.map(({ breaches, ...result }) => ({
    ...result,
    breaches: breaches.map(({ actual, limit, promise }) => ({ promise, actual, limit })),
  }));

/** Answers of routes and providers, as a verdict looks at them. */
export const servedCalls = (calls: readonly Measures[]): VerdictInput["served"] =>
  calls.map(({ degraded, key, success }) => ({ key: shownKey(key), served: success, degraded }));

/** What was answered stale or in part, by route, provider and cache namespace. */
export const degradedServe = (served: VerdictInput["served"]): Infer<typeof degradedRow>[] =>
  served
    .filter(({ degraded }) => degraded > 0)
    .map(({ degraded, key, served: total }) => ({
      key,
      served: total,
      degraded,
      ratio: total === 0 ? 0 : degraded / total,
    }));
