import * as Histograms from "./histogram";

/** Calls by outcome; what is zero is absent. */
type CallCounts = Readonly<Partial<Record<CallCount, number>>>;
type CallCount = "success" | "failure" | "neutral" | "infrastructure" | "degraded";

/** Calls of one key, as they are stored. */
export interface Calls {
  readonly key: string;
  readonly counts: CallCounts;
  readonly latency: ArrayBuffer;
}

/** Refusals that count as one thing. */
export interface Refusals {
  readonly bucket: string;
  readonly outcome: string;
  readonly reason?: string;
  readonly source?: string;
  readonly count: number;
}

/** The calls of each key added up, in order of key. */
export function addCalls(calls: readonly Calls[]): Calls[] {
  return [...groups(calls, ({ key }) => key)].map(([key, same]) => ({
    key,
    counts: addCounts(same.map(({ counts }) => counts)),
    latency: Histograms.encode(
      Histograms.merge(same.map(({ latency }) => Histograms.decode(latency))),
    ),
  }));
}

/** Keys that one rollup tells apart; there are some twenty routes and providers. */
const KEYS_MAX = 100;
const OTHER_KEY = "other";

/**
 * The calls of the keys that have most, and those of all others under one: a rollup is one document,
 * whatever keys there are, and its totals stay what they were.
 */
export function fewestCalls(calls: readonly Calls[]): Calls[] {
  if (calls.length <= KEYS_MAX) return [...calls];
  const byCount = [...calls].sort((a, b) => countOf(b) - countOf(a));
  const rest = byCount.slice(KEYS_MAX - 1).map((one) => ({ ...one, key: OTHER_KEY }));
  return addCalls([...byCount.slice(0, KEYS_MAX - 1), ...rest]);
}

const countOf = ({ counts }: Calls): number =>
  COUNTS.reduce((sum, name) => sum + (counts[name] ?? 0), 0);

function addCounts(all: readonly CallCounts[]): CallCounts {
  const sum: Partial<Record<CallCount, number>> = {};
  for (const counts of all)
    for (const name of COUNTS) {
      const count = counts[name] ?? 0;
      if (count > 0) sum[name] = (sum[name] ?? 0) + count;
    }
  return sum;
}

const COUNTS: readonly CallCount[] = [
  "success",
  "failure",
  "neutral",
  "infrastructure",
  "degraded",
];

/** Kinds of refusals that one rollup tells apart; there are a few dozen. */
const REFUSAL_KINDS_MAX = 100;
/** Where the others are counted, so that a total stays one. */
const OTHER = { bucket: "other", outcome: "blocked" } as const;

/** The refusals of each kind added up, in order. */
export function addRefusals(refusals: readonly Refusals[]): Refusals[] {
  const kinds = [...groups(refusals, identity)].map(([, same]) => ({
    ...(same[0] ?? OTHER),
    count: same.reduce((sum, { count }) => sum + count, 0),
  }));
  if (kinds.length <= REFUSAL_KINDS_MAX) return kinds;
  const byCount = [...kinds].sort((a, b) => b.count - a.count);
  const rest = byCount.slice(REFUSAL_KINDS_MAX - 1);
  const count = rest.reduce((sum, one) => sum + one.count, 0);
  return [...byCount.slice(0, REFUSAL_KINDS_MAX - 1), { ...OTHER, count }];
}

const identity = ({ bucket, outcome, reason, source }: Refusals): string =>
  JSON.stringify([bucket, outcome, reason ?? null, source ?? null]);

function groups<Item>(
  items: readonly Item[],
  keyOf: (item: Item) => string,
): ReadonlyMap<string, readonly Item[]> {
  const found = new Map<string, Item[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = found.get(key);
    if (group === undefined) found.set(key, [item]);
    else group.push(item);
  }
  return new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)));
}

export interface RefusalSummary {
  readonly total: number;
  /** Parts of each key stand between colons. */
  readonly bySourceBucketOutcome: Record<string, number>;
  readonly byBucketOutcome: Record<string, number>;
  readonly byBucketOutcomeReason: Record<string, number>;
}

/** Refusals in the sums that operators know. */
export function summaryOf(refusals: readonly Refusals[]): RefusalSummary {
  const by = (keyOf: (refusal: Refusals) => string): Record<string, number> => {
    const sums = [...groups(refusals, keyOf)].map(
      ([key, same]) => [key, same.reduce((sum, { count }) => sum + count, 0)] as const,
    );
    return Object.fromEntries(sums);
  };
  return {
    total: refusals.reduce((sum, { count }) => sum + count, 0),
    bySourceBucketOutcome: by(
      ({ bucket, outcome, source = "guard" }) => `${source}:${bucket}:${outcome}`,
    ),
    byBucketOutcome: by(({ bucket, outcome }) => `${bucket}:${outcome}`),
    byBucketOutcomeReason: by(
      ({ bucket, outcome, reason = "none" }) => `${bucket}:${outcome}:${reason}`,
    ),
  };
}

/** What was counted of one key, and what follows from it. */
export interface Measures {
  readonly key: string;
  readonly success: number;
  readonly failure: number;
  readonly neutral: number;
  readonly infrastructure: number;
  readonly degraded: number;
  /** Successes and failures: the others say nothing about who was called. */
  readonly total: number;
  /** Failures among `total`, 0 to 1. */
  readonly errorRatio: number;
  /** Degraded among successes, 0 to 1. */
  readonly degradedRatio: number;
  /** Latencies of `total` in ms, within 5 %; null where there are none. */
  readonly p50Ms: number | null;
  readonly p95Ms: number | null;
  readonly p99Ms: number | null;
}

/** What an operator reads from counts and latencies. */
export function measuresOf({ counts, key, latency }: Calls): Measures {
  const { degraded = 0, failure = 0, infrastructure = 0, neutral = 0, success = 0 } = counts;
  const total = success + failure;
  const histogram = Histograms.decode(latency);
  return {
    key,
    success,
    failure,
    neutral,
    infrastructure,
    degraded,
    total,
    errorRatio: total === 0 ? 0 : failure / total,
    degradedRatio: success === 0 ? 0 : degraded / success,
    p50Ms: Histograms.quantileMs(histogram, 0.5),
    p95Ms: Histograms.quantileMs(histogram, 0.95),
    p99Ms: Histograms.quantileMs(histogram, 0.99),
  };
}
