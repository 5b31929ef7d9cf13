/**
 * Circuit breaker policy, free of I/O. There are no timers: what a state means is derived from its
 * timestamps when it is read, so a breaker works where nothing runs between requests.
 */
export type BreakerState =
  | { readonly kind: "closed"; readonly failures: number }
  | {
      readonly kind: "open";
      readonly openedAtMs: number;
      /** How often it opened without closing in between. At least 1. */
      readonly openings: number;
    }
  | {
      readonly kind: "half_open";
      readonly openings: number;
      /** Expiry of each probe in flight, in epoch milliseconds. */
      readonly probeLeasesMs: readonly number[];
    };

/** A state with the number of transitions behind it. */
export interface Breaker {
  readonly state: BreakerState;
  readonly generation: number;
}

export interface BreakerPolicy {
  /** Consecutive failures that open the circuit. At least 1. */
  readonly failureThreshold: number;
  /** How long the circuit stays open the first time, in milliseconds; doubles with each opening. */
  readonly cooldownMs: number;
  /** Probes admitted at once while half-open. At least 1. */
  readonly probesMax: number;
  /** How long a probe may take before its place is free again, in milliseconds. */
  readonly probeLeaseMs: number;
}

export type BreakerVerdict =
  | { readonly admit: true; readonly next: Breaker }
  | { readonly admit: false; readonly retryAfterMs: number };

export const CLOSED: Breaker = { state: { kind: "closed", failures: 0 }, generation: 0 };

/** Longest cooldown, as a multiple of the configured one. */
const COOLDOWN_GROWTH_MAX = 8;

/** Decides whether one call may go out. `next` equals the argument where there is nothing to store. */
export function admit(breaker: Breaker, nowMs: number, policy: BreakerPolicy): BreakerVerdict {
  const { state, generation } = breaker;
  switch (state.kind) {
    case "closed":
      return { admit: true, next: breaker };
    case "open": {
      const waitMs = state.openedAtMs + cooldownMs(state.openings, policy) - nowMs;
      if (waitMs > 0) return { admit: false, retryAfterMs: waitMs };
      const probeLeasesMs = [nowMs + policy.probeLeaseMs];
      return {
        admit: true,
        next: {
          state: { kind: "half_open", openings: state.openings, probeLeasesMs },
          generation: generation + 1,
        },
      };
    }
    case "half_open": {
      const live = state.probeLeasesMs.filter((expiresAtMs) => expiresAtMs > nowMs);
      if (live.length >= policy.probesMax)
        return { admit: false, retryAfterMs: Math.max(1, Math.min(...live) - nowMs) };
      const probeLeasesMs = [...live, nowMs + policy.probeLeaseMs];
      return { admit: true, next: { state: { ...state, probeLeasesMs }, generation } };
    }
  }
}

interface Settled {
  readonly outcome: "success" | "failure" | "neutral";
  /** Generation under which the call was admitted. */
  readonly generation: number;
  readonly admittedAtMs: number;
}

/** Folds one outcome into the breaker. The same object comes back where nothing changes. */
export function settle(
  breaker: Breaker,
  { outcome, generation, admittedAtMs }: Settled,
  nowMs: number,
  policy: BreakerPolicy,
): Breaker {
  const { state } = breaker;
  // A call admitted before a transition says nothing about the state after it.
  if (generation !== breaker.generation) return breaker;
  switch (state.kind) {
    case "open":
      return breaker;
    case "closed":
      if (outcome === "neutral") return breaker;
      if (outcome === "success")
        return state.failures === 0 ? breaker : { state: CLOSED.state, generation };
      return state.failures + 1 >= policy.failureThreshold
        ? opened(nowMs, 1, generation)
        : { state: { kind: "closed", failures: state.failures + 1 }, generation };
    case "half_open":
      if (outcome === "success") return { state: CLOSED.state, generation: generation + 1 };
      if (outcome === "failure") return opened(nowMs, state.openings + 1, generation);
      return freed(breaker, state, admittedAtMs + policy.probeLeaseMs);
  }
}

/**
 * A neutral probe proved nothing: its place is free for the next one. Its own place only: where its
 * lease has run out, another probe may have taken that over.
 */
function freed(
  breaker: Breaker,
  state: Extract<BreakerState, { kind: "half_open" }>,
  leaseMs: number,
): Breaker {
  const at = state.probeLeasesMs.indexOf(leaseMs);
  if (at < 0) return breaker;
  const probeLeasesMs = state.probeLeasesMs.filter((_, i) => i !== at);
  return { state: { ...state, probeLeasesMs }, generation: breaker.generation };
}

function opened(nowMs: number, openings: number, generation: number): Breaker {
  return { state: { kind: "open", openedAtMs: nowMs, openings }, generation: generation + 1 };
}

function cooldownMs(openings: number, policy: BreakerPolicy): number {
  return policy.cooldownMs * Math.min(COOLDOWN_GROWTH_MAX, 2 ** Math.min(openings - 1, 10));
}

/** When an open circuit admits its first probe, in epoch milliseconds; null for one not open. */
export function retryAtMs(state: BreakerState, policy: BreakerPolicy): number | null {
  return state.kind === "open" ? state.openedAtMs + cooldownMs(state.openings, policy) : null;
}
