/** What was refused, and what was recognised as a duplicate, as a snapshot shows it. */
import type { Refusals } from "../../src/core/rollup";
import type { VerdictInput } from "../../src/slo/reading";
import { LIMITER_RULES } from "./conditions";
import { DUPLICATE } from "./duplicates";
import { type Reading, shownName } from "./snapshotReading";

export interface Refused {
  readonly total: number;
  /** How often, by `bucket:outcome`, and by `bucket:outcome:reason` where there is a reason. */
  readonly byBucketOutcome: Record<string, number>;
  readonly byBucketOutcomeReason: Record<string, number>;
}

const isDuplicate = ({ bucket }: Refusals): boolean => bucket === DUPLICATE.bucket;

/** Refusals of the window by policy and reason. */
export function refused(refusals: readonly Refusals[]): Refused {
  const byBucketOutcome: Record<string, number> = {};
  const byBucketOutcomeReason: Record<string, number> = {};
  const counted = refusals.filter((row) => !isDuplicate(row));
  for (const { bucket, count, outcome, reason } of counted) {
    const key = `${shownName(bucket)}:${shownName(outcome)}`;
    byBucketOutcome[key] = (byBucketOutcome[key] ?? 0) + count;
    if (reason === undefined) continue;
    const withReason = `${key}:${shownName(reason)}`;
    byBucketOutcomeReason[withReason] = (byBucketOutcomeReason[withReason] ?? 0) + count;
  }
  const total = counted.reduce((sum, { count }) => sum + count, 0);
  return { total, byBucketOutcome, byBucketOutcomeReason };
}

/** Duplicates of the window by scope. */
export function duplicateHits(refusals: readonly Refusals[]): ReadonlyMap<string, number> {
  const hits = new Map<string, number>();
  for (const { count, reason = "" } of refusals.filter(isDuplicate))
    hits.set(reason, (hits.get(reason) ?? 0) + count);
  return hits;
}

/** A window as long as this, or shorter, is held to the alert rules as they stand. */
const RULE_WINDOW_MINUTES_MAX = 15;

/**
 * Limits that alert rules watch, as a verdict looks at them: what would have raised an alert is
 * pressure, and a longer window may hold more of it.
 */
export function limiterReadings(
  { byBucketOutcome }: Pick<Refused, "byBucketOutcome">,
  { minutes }: Reading,
): VerdictInput["limiters"] {
  const usual = (bucket: string, outcome: string): number => {
    const rule = LIMITER_RULES.find((one) => one.bucket === bucket && one.outcome === outcome);
    return rule === undefined ? Infinity : fewerThan(rule.threshold, minutes);
  };
  return [...new Set(LIMITER_RULES.map(({ bucket }) => bucket))].map((bucket) => ({
    bucket,
    blocked: byBucketOutcome[`${bucket}:blocked`] ?? 0,
    blockedMax: usual(bucket, "blocked"),
    contended: byBucketOutcome[`${bucket}:contention_fallback`] ?? 0,
    contendedMax: usual(bucket, "contention_fallback"),
  }));
}

/** The most that is below a threshold in a window of some length. */
const fewerThan = (threshold: number, minutes: number): number =>
  Math.ceil(threshold * Math.max(1, minutes / RULE_WINDOW_MINUTES_MAX)) - 1;

/** Refusals by one full pool that are too many, as those of the chat's limit are. */
const POOL_REFUSALS_MIN = 25;

/** What a pool refused: it may have room at this moment and turn most calls away all the same. */
export const poolRefusals = (
  pool: string,
  { byBucketOutcome }: Pick<Refused, "byBucketOutcome">,
  { minutes }: Reading,
): { readonly refused: number; readonly refusedMax: number } => ({
  refused: byBucketOutcome[`${pool}:bulkhead_saturated`] ?? 0,
  refusedMax: fewerThan(POOL_REFUSALS_MIN, minutes),
});
