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
    };

/**
 * Decides whether `weight` requests may pass at `nowMs`. In any interval of length W at most
 * `max + max * W / windowMs` pass. A weight above `max` never passes.
 */
export function decide(
  arrival: Arrival,
  nowMs: number,
  policy: LimitPolicy,
  weight = 1,
): LimitVerdict {
  const emissionMs = policy.windowMs / policy.max;
  // A clock that steps back must not lengthen a refusal beyond one window.
  const startMs = Math.min(Math.max(arrival ?? nowMs, nowMs), nowMs + policy.windowMs);
  const nextMs = startMs + weight * emissionMs;
  const excessMs = nextMs - nowMs - policy.windowMs;
  // Sums of fractions of a window drift by less than a nanosecond; that is not a refusal.
  if (excessMs > ROUNDING_MS)
    return {
      ok: false,
      retryAfterMs: Math.max(1, Math.ceil(excessMs)),
      remaining: remainingAt(startMs, nowMs, policy),
      resetMs: Math.ceil(startMs - nowMs),
    };
  return {
    ok: true,
    arrivalMs: nextMs,
    remaining: remainingAt(nextMs, nowMs, policy),
    resetMs: Math.ceil(nextMs - nowMs),
  };
}

const ROUNDING_MS = 1e-3;

function remainingAt(arrivalMs: number, nowMs: number, policy: LimitPolicy): number {
  const freeMs = policy.windowMs - Math.max(0, arrivalMs - nowMs);
  return Math.max(0, Math.floor((freeMs + ROUNDING_MS) / (policy.windowMs / policy.max)));
}

/** Writes a second that one document bears without conflicts that matter. */
const WRITES_PER_SECOND_PER_SHARD = 4;
export const SHARDS_MAX = 64;

/**
 * Documents to spread a shared key over, from its configured rate: refusals write nothing, so the
 * limit itself bounds the writes. A power of two, and never more than the burst can be split into.
 */
export function shardsFor(policy: LimitPolicy): number {
  const perSecond = (policy.max * 1000) / policy.windowMs;
  const wanted = Math.min(SHARDS_MAX, policy.max, perSecond / WRITES_PER_SECOND_PER_SHARD);
  let shards = 1;
  while (shards < wanted) shards *= 2;
  return Math.min(shards, SHARDS_MAX);
}

/** One shard's part of a policy: the parts add up to exactly the whole burst and rate. */
export function shardPolicy(policy: LimitPolicy, shard: number, shards: number): LimitPolicy {
  const whole = Math.floor(policy.max / shards);
  return { max: whole + (shard < policy.max % shards ? 1 : 0), windowMs: policy.windowMs };
}
