import type { Env } from "../../src/config/env";
import type { BreakerPolicy } from "../../src/core/breaker";
import { MINUTE } from "../../src/core/time";
import { readSetting } from "../../src/providers/settings";
import { type ProviderId, providerRow } from "../../src/providers/table";

export interface ProviderPolicy {
  readonly breaker: BreakerPolicy;
  readonly bulkhead: { readonly size: number; readonly leaseMs: number };
}

/** Calls a half-open circuit lets through at once. */
const PROBES_MAX = 1;
/** Longest a probe holds its place; a shorter slot lease ends it earlier. */
const PROBE_LEASE_MAX_MS = MINUTE;

/** Breaker and bulkhead settings of a provider, from its row and the environment. */
export function providerPolicy(env: Env, provider: ProviderId): ProviderPolicy {
  const row = providerRow(provider);
  const leaseMs = readSetting(env, row.bulkhead.leaseMs);
  return {
    breaker: {
      failureThreshold: readSetting(env, row.breaker.threshold),
      cooldownMs: readSetting(env, row.breaker.cooldownMs),
      probesMax: PROBES_MAX,
      probeLeaseMs: Math.min(leaseMs, PROBE_LEASE_MAX_MS),
    },
    bulkhead: { size: readSetting(env, row.bulkhead.maxConcurrent), leaseMs },
  };
}
