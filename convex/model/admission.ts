import type { Infer } from "convex/values";
import { env } from "../../src/config/env";
import * as BreakerPolicy from "../../src/core/breaker";
import type { ErrorCode } from "../../src/errors/table";
import { outcomeKind, type Permit } from "./permit";
import { providerPolicy } from "./providerPolicy";
import {
  PROVIDER_IDS,
  type ProviderId,
  RETRY_BUDGET_FLOOR,
  RETRY_BUDGET_RATIO,
} from "../../src/providers/table";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import * as Breakers from "./breakers";
import * as Slots from "./slots";

export interface Refusal {
  readonly ok: false;
  readonly provider: ProviderId;
  readonly code: ErrorCode;
  readonly retryAfterMs: number;
  readonly reason: "circuit_open" | "bulkhead_saturated";
}

/** A provider checked and found available, with what taking it will write. */
export interface Grant {
  readonly ok: true;
  readonly provider: ProviderId;
  readonly breaker: Breakers.Loaded;
  readonly nextBreaker: BreakerPolicy.Breaker;
  readonly slot: Slots.FreeSlot;
}

/** Retry hint for a full pool: slots are held for seconds, and the next caller may be luckier. */
const SATURATED_RETRY_MS = 1_000;

/** Breaker and bulkhead of one provider, decided together and without writing. */
export async function checkProvider(
  ctx: MutationCtx,
  { provider, holder }: { readonly provider: ProviderId; readonly holder: string },
  nowMs: number,
): Promise<Grant | Refusal> {
  const policy = providerPolicy(env, provider);
  const breaker = await Breakers.load(ctx, provider);
  const verdict = BreakerPolicy.admit(breaker, nowMs, policy.breaker);
  if (!verdict.admit)
    return {
      ok: false,
      provider,
      code: "upstream_unavailable",
      retryAfterMs: verdict.retryAfterMs,
      reason: "circuit_open",
    };
  const { size, leaseMs } = policy.bulkhead;
  const slot = await Slots.findFree(ctx, { pool: provider, size, leaseMs, holder }, nowMs);
  if (slot === null)
    return {
      ok: false,
      provider,
      code: "overloaded",
      retryAfterMs: SATURATED_RETRY_MS,
      reason: "bulkhead_saturated",
    };
  return { ok: true, provider, breaker, nextBreaker: verdict.next, slot };
}

/** Takes what `checkProvider` granted, in the same transaction, after every other guard agreed. */
export async function takeProvider(ctx: MutationCtx, grant: Grant, nowMs: number): Promise<Permit> {
  await Breakers.save(ctx, grant.breaker, grant.nextBreaker, nowMs);
  const lease = await Slots.take(ctx, grant.slot, nowMs);
  return {
    provider: grant.provider,
    generation: grant.nextBreaker.generation,
    ...lease,
    admittedAtMs: nowMs,
  };
}

interface Settled {
  readonly outcome: Infer<typeof outcomeKind>;
  /** Requests sent under the permit, retries included. */
  readonly attempts: number;
}

/**
 * Releases the slot and folds the outcome into the breaker. A permit settled before, or whose lease
 * another call has taken since, changes nothing: settling twice is safe. Contention and our own
 * faults (`infrastructure`) never count against a provider.
 */
export async function settleProvider(
  ctx: MutationCtx,
  permit: Permit,
  { outcome, attempts }: Settled,
  nowMs: number,
): Promise<{ readonly released: boolean }> {
  const released = await Slots.release(ctx, permit, { attempts, nowMs });
  const provider = PROVIDER_IDS.find((id) => id === permit.provider);
  if (!released || provider === undefined) return { released: false };
  const breaker = await Breakers.load(ctx, provider);
  const next = BreakerPolicy.settle(
    breaker,
    {
      outcome: outcome === "infrastructure" ? "neutral" : outcome,
      generation: permit.generation,
      admittedAtMs: permit.admittedAtMs,
    },
    nowMs,
    providerPolicy(env, provider).breaker,
  );
  await Breakers.save(ctx, breaker, next, nowMs);
  return { released: true };
}

/** Keeps a permit alive while its call runs on. Writes only when half of the lease has passed. */
export async function renewProvider(
  ctx: MutationCtx,
  permit: Permit,
  nowMs: number,
): Promise<void> {
  const provider = PROVIDER_IDS.find((id) => id === permit.provider);
  if (provider === undefined) return;
  const { leaseMs } = providerPolicy(env, provider).bulkhead;
  await Slots.renew(ctx, permit, { nowMs, leaseMs });
}

/**
 * Whether the provider's retry budget bears one more call: retries stay a small share of the calls
 * of the last minutes, so that a provider in trouble is not buried under them.
 */
export async function mayRetry(
  ctx: QueryCtx,
  provider: ProviderId,
  nowMs: number,
): Promise<boolean> {
  const { calls, retries } = await Slots.traffic(ctx, provider, nowMs);
  return calls < RETRY_BUDGET_FLOOR || retries + 1 <= calls * RETRY_BUDGET_RATIO;
}
