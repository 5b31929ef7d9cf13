/**
 * Rate limiting by the generic cell rate algorithm: the whole state of a key is one number, the
 * theoretical arrival time, so a refusal has nothing to write and a retry time is exact.
 */
export interface LimitPolicy {
  /** Requests admitted at once after a quiet window; also the requests per window. At least 1. */
  readonly max: number;
  /** Window over which `max` requests are replenished evenly, in milliseconds. */
  readonly windowMs: number;
}

/** Theoretical arrival time in epoch milliseconds. A key never seen has none. */
export type Arrival = number | null;

export type LimitVerdict =
  | {
      readonly ok: true;
      /** State to store. */
      readonly arrivalMs: number;
      /** How long the caller has to wait before it goes; 0 unless it reserved ahead. */
      readonly waitMs: number;
      readonly remaining: number;
      /** Until the full burst is available again. */
      readonly resetMs: number;
    }
  | {
      readonly ok: false;
      /** Earliest time a request of the same weight is admitted if nothing else is. */
      readonly retryAfterMs: number;
      readonly remaining: number;
      readonly resetMs: number;
      /** State to store in place of one that this clock and policy cannot have made; else null. */
      readonly mendedMs: number | null;
    };

/** What one request asks of a limit. */
export interface Demand {
  /** How many requests it counts for, a whole number. Default 1. */
  readonly weight?: number;
  /** How long it would wait for its turn, in milliseconds, at most one burst. Default 0. */
  readonly reserveMs?: number;
}

/**
 * Decides whether a request may pass at `nowMs`, a whole number. In any interval of length W at
 * most `max + max * W / windowMs` pass. A weight above `max` never passes without reserving.
 */
export function decide(
  arrival: Arrival,
  nowMs: number,
  policy: LimitPolicy,
  { weight = 1, reserveMs = 0 }: Demand = {},
): LimitVerdict {
  const emissionMs = emissionOf(policy);
  const burstMs = policy.max * emissionMs;
  const mendedMs = mend(arrival, nowMs, burstMs);
  const startMs = Math.max(mendedMs ?? arrival ?? nowMs, nowMs);
  const nextMs = startMs + weight * emissionMs;
  const excessMs = nextMs - nowMs - burstMs;
  const passes = excessMs <= Math.min(reserveMs, burstMs);
  const arrivalMs = passes ? nextMs : startMs;
  const remaining = Math.max(0, Math.floor((burstMs - (arrivalMs - nowMs)) / emissionMs));
  const resetMs = Math.ceil(arrivalMs - nowMs);
  const waitMs = Math.max(0, Math.ceil(excessMs));
  if (passes) return { ok: true, arrivalMs, remaining, resetMs, waitMs };
  return { ok: false, retryAfterMs: waitMs, remaining, resetMs, mendedMs };
}

/**
 * Steps per millisecond that arrival times are kept in. A power of two, so that sums are exact until
 * the year 2109: neither does a long burst drift, nor is a retry early or late.
 */
const STEPS_PER_MS = 2048;

/** Time that one request takes up, rounded up to a step: at most slower than configured. */
function emissionOf({ max, windowMs }: LimitPolicy): number {
  return Math.ceil((windowMs / max) * STEPS_PER_MS) / STEPS_PER_MS;
}

/**
 * An arrival time further ahead than two bursts comes from a clock that has since stepped back, or
 * from a longer window: without mending, the key would be refused until that time comes round. One
 * burst more than a policy can make is left for clocks that merely differ.
 */
function mend(arrival: Arrival, nowMs: number, burstMs: number): number | null {
  return arrival !== null && arrival - nowMs > 2 * burstMs ? nowMs + burstMs : null;
}

/** Whether a request can be decided on, and may ever pass. */
export function isDecidable(policy: LimitPolicy, { weight = 1, reserveMs = 0 }: Demand): boolean {
  const { max, windowMs } = policy;
  const sizes = [max, windowMs, weight].every((size) => Number.isSafeInteger(size) && size >= 1);
  return (
    sizes &&
    reserveMs >= 0 &&
    Number.isFinite(reserveMs) &&
    decide(null, 0, policy, { weight, reserveMs }).ok
  );
}

/** Writes a second that one document bears without conflicts that matter. */
const WRITES_PER_SECOND_PER_SHARD = 4;
/** Requests at once that one document bears: a burst may use a whole limit up in a moment. */
const BURST_PER_SHARD = 16;
export const SHARDS_MAX = 64;

/**
 * Documents to spread a shared key over, from its configured rate and burst: refusals write nothing,
 * so the limit itself bounds the writes. A power of two, and never more than the burst can be split
 * into.
 */
export function shardsFor(policy: LimitPolicy): number {
  const perSecond = (policy.max * 1000) / policy.windowMs;
  const needed = Math.max(perSecond / WRITES_PER_SECOND_PER_SHARD, policy.max / BURST_PER_SHARD);
  const wanted = Math.min(SHARDS_MAX, policy.max, needed);
  let shards = 1;
  while (shards < wanted && shards * 2 <= policy.max) shards *= 2;
  return shards;
}

/** One shard's part of a policy: the parts add up to exactly the whole burst and rate. */
export function shardPolicy(policy: LimitPolicy, shard: number, shards: number): LimitPolicy {
  const whole = Math.floor(policy.max / shards);
  return { max: whole + (shard < policy.max % shards ? 1 : 0), windowMs: policy.windowMs };
}

type Passed = Extract<LimitVerdict, { readonly ok: true }>;
type Refused = Extract<LimitVerdict, { readonly ok: false }>;

export type SpreadVerdict =
  /** `arrivals` are states to store, by shard. */
  | (Omit<Passed, "arrivalMs"> & { readonly arrivals: ReadonlyMap<number, number> })
  | Omit<Refused, "mendedMs">;

/**
 * Decides on a request that weighs more than one shard's part, on all shards together: each gives
 * what it has, those with the most first. Exact, and never more than the limit allows; a weight above
 * `max` never passes.
 */
export function decideSpread(
  arrivals: readonly Arrival[],
  nowMs: number,
  policy: LimitPolicy,
  { weight = 1, reserveMs = 0 }: Demand = {},
): SpreadVerdict {
  const parts = arrivals.map((stored, shard) => {
    const part = shardPolicy(policy, shard, arrivals.length);
    const arrival = mend(stored, nowMs, part.max * emissionOf(part)) ?? stored;
    const untouchedAt = (ms: number) => decide(arrival, ms, part, { weight: 0 });
    return { arrival, part, shard, untouchedAt };
  });
  const leftAt = (ms: number): number =>
    parts.reduce((sum, { untouchedAt }) => sum + untouchedAt(ms).remaining, 0);
  const left = leftAt(nowMs);
  const resetMs = Math.max(...parts.map(({ untouchedAt }) => untouchedAt(nowMs).resetMs));
  const waitMs = firstMs(resetMs, (ms) => leftAt(nowMs + ms) >= weight);
  if (waitMs > Math.min(reserveMs, policy.windowMs) || weight > policy.max)
    return { ok: false, retryAfterMs: waitMs, remaining: left, resetMs };
  const taken = new Map<number, number>();
  let rest = weight;
  const turnMs = nowMs + waitMs;
  const fullest = parts
    .map((one) => ({ ...one, left: one.untouchedAt(turnMs).remaining }))
    .sort((a, b) => b.left - a.left);
  for (const { arrival, left: has, part, shard } of fullest) {
    const gives = Math.min(has, rest);
    // As of its turn: a shard that is idle until then would fill up again meanwhile.
    const verdict = decide(arrival, turnMs, part, { weight: gives });
    if (gives > 0 && verdict.ok) taken.set(shard, verdict.arrivalMs);
    rest -= gives;
  }
  return { ok: true, arrivals: taken, waitMs, remaining: Math.max(0, left - weight), resetMs };
}

/** The first of 0 to `max` that holds, of which all that follow hold as well; `max` where none does. */
function firstMs(max: number, holds: (ms: number) => boolean): number {
  let [low, high] = [0, max];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (holds(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}
