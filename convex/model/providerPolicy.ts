import type { Env } from "../../src/config/env";
import { readKnob } from "../../src/config/read";
import type { BreakerPolicy } from "../../src/core/breaker";
import { MINUTE } from "../../src/core/time";
import { readSetting } from "../../src/providers/settings";
import { type ProviderId, providerRow } from "../../src/providers/table";

export interface ProviderPolicy {
  readonly breaker: BreakerPolicy;
  readonly bulkhead: { readonly size: number; readonly leaseMs: number };
}

/** Longest a probe holds its place; a shorter slot lease ends it earlier. */
const PROBE_LEASE_MAX_MS = MINUTE;
/** From which share of its deadline on a call counts as slow. */
const SLOW_SHARE = 0.8;

/** Breaker and bulkhead settings of a provider, from its row and the environment. */
export function providerPolicy(env: Env, provider: ProviderId): ProviderPolicy {
  const row = providerRow(provider);
  const leaseMs = readSetting(env, row.bulkhead.leaseMs);
  return {
    breaker: {
      failureThreshold: readSetting(env, row.breaker.threshold),
      failureRate: readKnob(env, "CIRCUIT_FAILURE_RATE_PCT") / 100,
      slowCallRate: readKnob(env, "CIRCUIT_SLOW_RATE_PCT") / 100,
      callsMin: readKnob(env, "CIRCUIT_CALLS_MIN"),
      windowMs: readKnob(env, "CIRCUIT_WINDOW_MS"),
      slowCallMs: readSetting(env, row.deadlineMs) * SLOW_SHARE,
      cooldownMs: readSetting(env, row.breaker.cooldownMs),
      probesMax: readKnob(env, "CIRCUIT_PROBES"),
      probeLeaseMs: Math.min(leaseMs, PROBE_LEASE_MAX_MS),
    },
    bulkhead: { size: readSetting(env, row.bulkhead.maxConcurrent), leaseMs },
  };
}
