import type { Infer } from "convex/values";
import { env } from "../../src/config/env";
import * as BreakerPolicy from "../../src/core/breaker";
import * as Tallies from "../../src/core/tally";
import type { ErrorCode } from "../../src/errors/table";
import {
  PROVIDER_IDS,
  type ProviderId,
  RETRY_BUDGET_FLOOR,
  RETRY_BUDGET_RATIO,
} from "../../src/providers/table";
import { internal } from "../_generated/api";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import * as Breakers from "./breakers";
import * as Metrics from "./metrics";
import { outcomeKind, type Permit } from "./permit";
import { type ProviderPolicy, providerPolicy } from "./providerPolicy";
import * as Slots from "./slots";

export interface Refusal {
  readonly ok: false;
  readonly provider: ProviderId;
  readonly code: ErrorCode;
  readonly retryAfterMs: number;
  readonly reason: "circuit_open" | "bulkhead_saturated";
  /** Whether the caller has lost races already: counting it is not to lose another. */
  readonly late: boolean;
}

interface Asked {
  readonly provider: ProviderId;
  readonly holder?: string;
  /** When the caller began to ask, in epoch milliseconds. */
  readonly askedAtMs?: number | undefined;
}

/** A provider checked and found available, with what taking it will write. */
export interface Grant {
  readonly ok: true;
  readonly provider: ProviderId;
  readonly breaker: Breakers.Loaded;
  /** The place of a probe, where the circuit is half-open. */
  readonly probe: { readonly place: number; readonly expiresAtMs: number } | null;
  readonly slot: Slots.FreeSlot;
}

/** Retry hint for a full pool: slots are held for seconds, and the next caller may be luckier. */
const SATURATED_RETRY_MS = 1_000;

/** Breaker and bulkhead of one provider, decided together and without writing. */
export async function checkProvider(
  ctx: MutationCtx,
  { provider, holder, askedAtMs }: Asked,
  nowMs: number,
): Promise<Grant | Refusal> {
  const policy = providerPolicy(env, provider);
  const breaker = await Breakers.load(ctx, provider);
  const gate = await checkBreaker(ctx, breaker, policy.breaker, nowMs);
  if (!gate.ok)
    return {
      ok: false,
      provider,
      code: "upstream_unavailable",
      retryAfterMs: gate.retryAfterMs,
      reason: "circuit_open",
      late: false,
    };
  const { size, leaseMs } = policy.bulkhead;
  const request = {
    pool: provider,
    size,
    leaseMs,
    ...(holder === undefined ? {} : { holder }),
    ...(askedAtMs === undefined ? {} : { askedAtMs }),
  };
  const slot = await Slots.findFree(ctx, request, nowMs);
  if (slot === null)
    return {
      ok: false,
      provider,
      code: "overloaded",
      retryAfterMs: SATURATED_RETRY_MS,
      reason: "bulkhead_saturated",
      late: Slots.isLate(request, nowMs),
    };
  return { ok: true, provider, breaker, probe: gate.probe, slot };
}

type GateVerdict =
  | { readonly ok: true; readonly probe: Grant["probe"] }
  | { readonly ok: false; readonly retryAfterMs: number };

/** What a breaker lets through. Depends on its one document, and on its probes where it has any. */
export async function checkBreaker(
  ctx: QueryCtx,
  breaker: Breakers.Loaded,
  policy: BreakerPolicy.BreakerPolicy,
  nowMs: number,
): Promise<GateVerdict> {
  const phase = BreakerPolicy.phaseAt(breaker, nowMs, policy);
  if (phase.kind === "closed") return { ok: true, probe: null };
  if (phase.kind === "open") return { ok: false, retryAfterMs: phase.retryAfterMs };
  const probes = await Breakers.probes(ctx, breaker);
  const verdict = BreakerPolicy.admitProbe(probes, { nowMs, random: Math.random }, policy);
  if (!verdict.admit) return { ok: false, retryAfterMs: verdict.retryAfterMs };
  const expiresAtMs = nowMs + policy.probeLeaseMs;
  return { ok: true, probe: { place: verdict.place, expiresAtMs } };
}

/** Takes what `checkProvider` granted, in the same transaction, after every other guard agreed. */
export async function takeProvider(
  ctx: MutationCtx,
  { breaker, probe, provider, slot }: Grant,
  nowMs: number,
): Promise<Permit> {
  const probeId = probe === null ? null : await Breakers.takeProbe(ctx, breaker, probe);
  const lease = await Slots.take(ctx, slot, nowMs);
  return {
    provider,
    generation: breaker.generation,
    ...lease,
    admittedAtMs: nowMs,
    ...(probeId === null ? {} : { probeId }),
  };
}

export interface Settled {
  readonly outcome: Infer<typeof outcomeKind>;
  /** Requests sent under the permit, retries included. */
  readonly attempts: number;
  /** How long the provider took, in milliseconds; for a stream, until its first token. */
  readonly latencyMs: number;
}

/**
 * Releases the slot and folds the outcome into the breaker. A permit settled before, or whose lease
 * another call has taken since, changes nothing: settling twice is safe. Contention and our own
 * faults (`infrastructure`) never count against a provider.
 */
export async function settleProvider(
  ctx: MutationCtx,
  permit: Permit,
  settled: Settled,
  nowMs: number,
): Promise<{ readonly released: boolean }> {
  const row = await Slots.loadHeld(ctx, permit);
  const provider = PROVIDER_IDS.find((id) => id === permit.provider);
  // A slot of another pool proves nothing: its outcome would be told of the wrong provider.
  if (provider === undefined || row?.p !== provider) return { released: false };
  const policy = providerPolicy(env, provider);
  const breaker = await Breakers.load(ctx, provider);
  const tally = tallied(row, permit, settled, { nowMs, policy, breaker });
  await Slots.release(ctx, row, nowMs, { t: Slots.storedTally(tally) });
  const { latencyMs, outcome } = settled;
  await Metrics.record(ctx, { key: `provider:${provider}`, outcome, latencyMs, nowMs });
  const next = await nextBreaker(ctx, { breaker, permit, settled, row, tally, policy }, nowMs);
  if (next !== null) await Breakers.save(ctx, breaker, next, nowMs);
  return { released: true };
}

interface Around {
  readonly nowMs: number;
  readonly policy: ProviderPolicy;
  readonly breaker: Breakers.Loaded;
}

const probeOutcome = ({ outcome }: Settled): Breakers.ProbeOutcome =>
  outcome === "infrastructure" ? "neutral" : outcome;

const isSlow = ({ latencyMs, outcome }: Settled, policy: ProviderPolicy): boolean =>
  (outcome === "success" || outcome === "failure") && latencyMs >= policy.breaker.slowCallMs;

/** The slot's tally with this call in it; a call of an earlier generation is not in it. */
function tallied(
  row: Doc<"slots">,
  { generation }: Permit,
  settled: Settled,
  { breaker, nowMs, policy }: Around,
): Tallies.Tally {
  const { windowMs } = policy.breaker;
  const current = generation === breaker.generation;
  return Tallies.count(
    Slots.tallyOf(row),
    {
      outcome: current ? probeOutcome(settled) : "neutral",
      slow: current && isSlow(settled, policy),
      retries: Math.max(0, settled.attempts - 1),
      generation: breaker.generation,
    },
    { nowMs, windowMs },
  );
}

interface Verdict {
  readonly breaker: Breakers.Loaded;
  readonly permit: Permit;
  readonly settled: Settled;
  readonly row: Doc<"slots">;
  readonly tally: Tallies.Tally;
  readonly policy: ProviderPolicy;
}

/** The state the breaker changes to, or null: a healthy call reads no more than its own slot. */
async function nextBreaker(
  ctx: MutationCtx,
  { breaker, permit, policy, row, settled, tally }: Verdict,
  nowMs: number,
): Promise<BreakerPolicy.Breaker | null> {
  if (permit.generation !== breaker.generation) return null;
  if (permit.probeId !== undefined)
    return await Breakers.settleProbe(
      ctx,
      breaker,
      { probeId: permit.probeId, outcome: probeOutcome(settled) },
      { nowMs, policy: policy.breaker },
    );
  const failing = settled.outcome === "failure" || isSlow(settled, policy);
  if (!failing || breaker.state.kind !== "closed") return null;
  const others = await ctx.runQuery(
    internal.circuitBreaker.poolTallies,
    { provider: permit.provider, except: row._id },
    { useStaleSnapshot: true },
  );
  const { generation } = breaker;
  const { windowMs } = policy.breaker;
  const counted = Tallies.sum([...others, tally], { generation, nowMs, windowMs });
  const reason = BreakerPolicy.reasonToOpen(counted, policy.breaker);
  return reason === null ? null : BreakerPolicy.opened(breaker, reason, nowMs);
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
 * of the last minutes, so that a provider in trouble is not buried under them. Retries are counted
 * once their calls are settled, so what is left is for those in flight, in the order of their slots,
 * all of whom are taken to have used what this one has. A call that knows no slot draws its place.
 * Where the circuit is not closed none may: a probe is one request, and an open one lets none through.
 */
export async function mayRetry(
  ctx: QueryCtx,
  { attempts, provider, slotId }: Retry,
  nowMs: number,
): Promise<boolean> {
  const policy = providerPolicy(env, provider).breaker;
  const { kind } = BreakerPolicy.phaseAt(await Breakers.load(ctx, provider), nowMs, policy);
  if (kind !== "closed") return false;
  const { windowMs } = policy;
  const slots = await Slots.ofPool(ctx, provider);
  const known = slots.map(Slots.tallyOf).filter((tally) => tally !== null);
  const sums = [...new Set(known.map(({ generation }) => generation))].map((generation) =>
    Tallies.sum(known, { generation, nowMs, windowMs }),
  );
  const calls = sums.reduce((total, sum) => total + sum.calls, 0);
  const retries = sums.reduce((total, sum) => total + sum.retries, 0);
  const inFlight = slots.filter(({ e }) => e > nowMs);
  const own = inFlight.findIndex(({ _id }) => _id === slotId);
  const before = own === -1 ? Math.floor(Math.random() * inFlight.length) : own;
  const used = retries + (attempts - 1) * inFlight.length + before;
  return used + 1 <= Math.max(RETRY_BUDGET_FLOOR, calls * RETRY_BUDGET_RATIO);
}

interface Retry {
  readonly provider: ProviderId;
  /** The slot that the call holds, where it knows. */
  readonly slotId: Id<"slots"> | null;
  /** How often the call asked the provider so far. At least 1. */
  readonly attempts: number;
}
