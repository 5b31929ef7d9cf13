/**
 * Circuit breaker policy, free of I/O. There are no timers: what a state means is derived from its
 * timestamps when it is read, so a breaker works where nothing runs between requests.
 */
import type { TallySum } from "./tally";

export type BreakerState =
  | { readonly kind: "closed" }
  | {
      readonly kind: "open";
      readonly openedAtMs: number;
      /** How often it opened without closing in between. At least 1. */
      readonly openings: number;
      readonly reason: OpenReason;
    }
  /** Set by an operator: nothing passes until it is set back. */
  | { readonly kind: "forced_open" }
  /** Set by an operator: everything passes, whatever the counts say. */
  | { readonly kind: "metrics_only" };

export type OpenReason =
  "consecutive_failures" | "failure_rate" | "slow_call_rate" | "failed_probe";

/** A state with the number of transitions behind it. */
export interface Breaker {
  readonly state: BreakerState;
  /** Grows with each transition: the outcome of a call admitted in an earlier one changes nothing. */
  readonly generation: number;
}

export interface BreakerPolicy {
  /** Failures in a row that open the circuit. At least 1. */
  readonly failureThreshold: number;
  /** Share of failures, 0 to 1, at which the circuit opens once `callsMin` calls are known. */
  readonly failureRate: number;
  /** Share of slow calls, 0 to 1, that opens it. */
  readonly slowCallRate: number;
  /** Calls of the window below which no rate means anything. At least 1. */
  readonly callsMin: number;
  /** Window of the rates, in milliseconds; looked back on between a half and the whole of it. */
  readonly windowMs: number;
  /** From when on a call counts as slow, in milliseconds. */
  readonly slowCallMs: number;
  /** How long the circuit stays open the first time, in milliseconds; doubles with each opening. */
  readonly cooldownMs: number;
  /** Probes admitted while half-open: all of them must succeed. At least 1. */
  readonly probesMax: number;
  /** How long a probe may take before its place is free again, in milliseconds. */
  readonly probeLeaseMs: number;
}

export const CLOSED: Breaker = { state: { kind: "closed" }, generation: 0 };

/** What a breaker means at a moment. Half-open is never stored: it is an open one whose time is over. */
export type Phase =
  | { readonly kind: "closed" }
  | { readonly kind: "half_open" }
  | { readonly kind: "open"; readonly retryAfterMs: number };

/** Longest cooldown, as a multiple of the configured one. */
const COOLDOWN_GROWTH_MAX = 8;

/** What the breaker lets through at `nowMs`. */
export function phaseAt({ state }: Breaker, nowMs: number, policy: BreakerPolicy): Phase {
  switch (state.kind) {
    case "closed":
    case "metrics_only":
      return { kind: "closed" };
    case "forced_open":
      return { kind: "open", retryAfterMs: policy.cooldownMs };
    case "open": {
      const retryAfterMs = (probesFromMs(state, policy) ?? nowMs) - nowMs;
      // Opened by a clock that has since been set back: to wait for that time would be an outage.
      const isOfAnotherClock = retryAfterMs > 2 * cooldownMsOf(state.openings, policy);
      return retryAfterMs > 0 && !isOfAnotherClock
        ? { kind: "open", retryAfterMs }
        : { kind: "half_open" };
    }
  }
}

/** When an open circuit admits its first probes, in epoch milliseconds; null for one not open. */
export function probesFromMs(state: BreakerState, policy: BreakerPolicy): number | null {
  if (state.kind !== "open") return null;
  return state.openedAtMs + cooldownMsOf(state.openings, policy);
}

const cooldownMsOf = (openings: number, { cooldownMs }: BreakerPolicy): number =>
  cooldownMs * Math.min(COOLDOWN_GROWTH_MAX, 2 ** Math.min(openings - 1, 10));

/** One of a half-open circuit's places. Absent ones are free. */
export interface Probe {
  readonly place: number;
  /** When a probe that never reported gives its place up, in epoch milliseconds. */
  readonly expiresAtMs: number;
  readonly succeeded: boolean;
}

export type ProbeVerdict =
  | { readonly admit: true; readonly place: number }
  | { readonly admit: false; readonly retryAfterMs: number };

/** A free place for a probe, or when to come back. Succeeded probes keep their places. */
export function admitProbe(
  probes: readonly Probe[],
  { nowMs, random }: { readonly nowMs: number; readonly random: () => number },
  { probesMax }: Pick<BreakerPolicy, "probesMax">,
): ProbeVerdict {
  const waiting = probes.filter(({ expiresAtMs, succeeded }) => !succeeded && expiresAtMs > nowMs);
  const succeeded = probes.filter((probe) => probe.succeeded);
  if (waiting.length > 0 && waiting.length + succeeded.length >= probesMax) {
    const soonestMs = Math.min(...waiting.map(({ expiresAtMs }) => expiresAtMs));
    return { admit: false, retryAfterMs: soonestMs - nowMs };
  }
  const first = Math.floor(random() * probesMax);
  for (let i = 0; i < probesMax; i++) {
    const place = (first + i) % probesMax;
    if (![...waiting, ...succeeded].some((probe) => probe.place === place))
      return { admit: true, place };
  }
  // As many as are needed have succeeded: their number was lowered meanwhile. One more closes it.
  return { admit: true, place: first };
}

/** Why a closed circuit opens on what its pool counted, or null where it stays closed. */
export function reasonToOpen(counted: TallySum, policy: BreakerPolicy): OpenReason | null {
  if (counted.run >= policy.failureThreshold) return "consecutive_failures";
  if (counted.calls < policy.callsMin) return null;
  if (counted.failures >= counted.calls * policy.failureRate) return "failure_rate";
  return counted.slow >= counted.calls * policy.slowCallRate ? "slow_call_rate" : null;
}

/** The breaker opened: the first time out of closed, once more where a probe failed. */
export function opened(breaker: Breaker, reason: OpenReason, nowMs: number): Breaker {
  const openings = breaker.state.kind === "open" ? breaker.state.openings + 1 : 1;
  return {
    state: { kind: "open", openedAtMs: nowMs, openings, reason },
    generation: breaker.generation + 1,
  };
}

/** The breaker closed again, its probes having all succeeded, or an operator having said so. */
export const closed = ({ generation }: Breaker): Breaker => ({
  state: { kind: "closed" },
  generation: generation + 1,
});

/** The breaker in a state that only an operator sets. */
export const forced = ({ generation }: Breaker, kind: "forced_open" | "metrics_only"): Breaker => ({
  state: { kind },
  generation: generation + 1,
});
