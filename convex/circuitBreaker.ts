import { v } from "convex/values";
import { env } from "../src/config/env";
import * as BreakerPolicy from "../src/core/breaker";
import type { Tally } from "../src/core/tally";
import * as Tallies from "../src/core/tally";
import { AppError } from "../src/errors/appError";
import { PROVIDER_IDS, type ProviderId } from "../src/providers/table";
import { internal } from "./_generated/api";
import type { MutationCtx, QueryCtx } from "./_generated/server";
import * as Admission from "./model/admission";
import * as Breakers from "./model/breakers";
import { internalMutation, internalQuery } from "./model/functionBoundaries";
import { type Permit, permitFields } from "./model/permit";
import { providerPolicy } from "./model/providerPolicy";
import * as Slots from "./model/slots";

const phase = v.union(
  v.literal("closed"),
  v.literal("open"),
  v.literal("half_open"),
  v.literal("forced_open"),
  v.literal("metrics_only"),
);

/**
 * Asks for one call to a provider: breaker and bulkhead in one transaction. What is allowed comes
 * with a permit, which `recordSuccess` or `recordFailure` gives back; a permit that is not given
 * back ends with its lease.
 */
export const checkGate = internalMutation({
  args: { provider: v.string() },
  returns: v.object({
    allowed: v.boolean(),
    state: phase,
    retryAfterMs: v.number(),
    permit: v.optional(permitFields),
  }),
  handler: async (ctx, args) => {
    const nowMs = Date.now();
    const provider = requireProvider(args.provider);
    const grant = await Admission.checkProvider(ctx, { provider }, nowMs);
    const state = shownPhase(await Breakers.load(ctx, provider), provider, nowMs);
    if (!grant.ok) return { allowed: false, state, retryAfterMs: grant.retryAfterMs };
    const permit = await Admission.takeProvider(ctx, grant, nowMs);
    return { allowed: true, state, retryAfterMs: 0, permit };
  },
});

const settledArgs = {
  permit: permitFields,
  /** Whose call it was, as a check: the permit says so itself. */
  provider: v.optional(v.string()),
  latencyMs: v.optional(v.number()),
};

/** The provider of a permit. Throws `invalid_request` where it is not the one that is named. */
function providerOf({ provider }: Permit, named: string | undefined): ProviderId {
  if (named !== undefined && named !== provider)
    throw new AppError("invalid_request", { detail: "The permit is another provider's." });
  return requireProvider(provider);
}

/** Ends a call well. A permit settled before, or whose lease was lost, changes nothing. */
export const recordSuccess = internalMutation({
  args: settledArgs,
  returns: v.object({ released: v.boolean(), state: phase }),
  handler: async (ctx, { latencyMs = 0, permit, ...named }) => {
    const nowMs = Date.now();
    const provider = providerOf(permit, named.provider);
    const settled = { outcome: "success", attempts: 1, latencyMs } as const;
    const { released } = await Admission.settleProvider(ctx, permit, settled, nowMs);
    return { released, ...(await shown(ctx, provider, nowMs)) };
  },
});

/** Ends a call badly. Threshold and cooldown are the provider's knobs. */
export const recordFailure = internalMutation({
  args: settledArgs,
  returns: v.object({
    released: v.boolean(),
    opened: v.boolean(),
    state: phase,
    failureCount: v.number(),
    cooldownUntil: v.union(v.number(), v.null()),
  }),
  handler: async (ctx, { latencyMs = 0, permit, ...named }) => {
    const nowMs = Date.now();
    const provider = providerOf(permit, named.provider);
    const before = await Breakers.load(ctx, provider);
    const settled = { outcome: "failure", attempts: 1, latencyMs } as const;
    const { released } = await Admission.settleProvider(ctx, permit, settled, nowMs);
    const after = await Breakers.load(ctx, provider);
    const failureCount = await failuresInARow(ctx, permit, after.generation, nowMs);
    return {
      released,
      opened: after.state.kind === "open" && after.generation !== before.generation,
      failureCount,
      ...(await shown(ctx, provider, nowMs)),
      cooldownUntil: BreakerPolicy.probesFromMs(after.state, providerPolicy(env, provider).breaker),
    };
  },
});

const status = v.object({
  provider: v.string(),
  state: phase,
  reason: v.union(v.string(), v.null()),
  /** Failures since the last success. */
  failureCount: v.number(),
  /** Within the window, as all that follow. */
  callCount: v.number(),
  failedCount: v.number(),
  slowCount: v.number(),
  retryCount: v.number(),
  cooldownUntil: v.union(v.number(), v.null()),
  generation: v.number(),
  updatedAt: v.union(v.number(), v.null()),
});

/** Every provider's circuit, the open ones first. `limit` is 1 to 100. */
export const listStatuses = internalQuery({
  args: { limit: v.optional(v.number()) },
  returns: v.array(status),
  handler: async (ctx, { limit = LIST_MAX }) => {
    const nowMs = Date.now();
    const all = [];
    for (const provider of PROVIDER_IDS) all.push(await statusOf(ctx, provider, nowMs));
    const isClosed = (state: string): number => (state === "closed" ? 1 : 0);
    return all
      .sort((a, b) => isClosed(a.state) - isClosed(b.state))
      .slice(0, Math.min(LIST_MAX, Math.max(1, Math.floor(limit) || 1)));
  },
});

const LIST_MAX = 100;

/**
 * Sets a provider's circuit by hand: `forced_open` lets nothing through, `metrics_only` everything,
 * `closed` gives it back to its own judgement with nothing counted yet.
 */
export const setState = internalMutation({
  args: {
    provider: v.string(),
    state: v.union(v.literal("closed"), v.literal("forced_open"), v.literal("metrics_only")),
  },
  returns: v.object({ state: phase, generation: v.number() }),
  handler: async (ctx, args) => {
    const nowMs = Date.now();
    const provider = requireProvider(args.provider);
    const breaker = await Breakers.load(ctx, provider);
    const next =
      args.state === "closed"
        ? BreakerPolicy.closed(breaker)
        : BreakerPolicy.forced(breaker, args.state);
    await Breakers.save(ctx, breaker, next, nowMs);
    return { state: args.state, generation: next.generation };
  },
});

const counts = v.object({
  calls: v.number(),
  failures: v.number(),
  slow: v.number(),
  retries: v.number(),
});

/** What the other slots of a provider have counted. For a settlement, on a stale snapshot. */
export const poolTallies = internalQuery({
  args: { provider: v.string(), except: v.id("slots") },
  returns: v.array(
    v.object({
      generation: v.number(),
      halfFromMs: v.number(),
      current: counts,
      previous: counts,
      lastSuccessMs: v.number(),
      runMs: v.array(v.number()),
    }),
  ),
  handler: async (ctx, { provider, except }) => {
    const rows = await Slots.ofPool(ctx, provider);
    const tallies = rows.filter(({ _id }) => _id !== except).map(Slots.tallyOf);
    return tallies
      .filter((tally): tally is Tally => tally !== null)
      .map((tally) => ({ ...tally, runMs: [...tally.runMs] }));
  },
});

/**
 * Failures since the last success, as a settlement knows them: its own slot as it is now, the others
 * as they were when it began, so that failures at the same time do not wait for each other.
 */
async function failuresInARow(
  ctx: MutationCtx,
  { provider, slotId }: Permit,
  generation: number,
  nowMs: number,
): Promise<number> {
  const others = await ctx.runQuery(
    internal.circuitBreaker.poolTallies,
    { provider, except: slotId },
    { useStaleSnapshot: true },
  );
  const row = await ctx.db.get("slots", slotId);
  const own = row === null ? null : Slots.tallyOf(row);
  const { windowMs } = providerPolicy(env, requireProvider(provider)).breaker;
  const known = own === null ? others : [...others, own];
  return Tallies.sum(known, { generation, nowMs, windowMs }).run;
}

async function counted(
  ctx: QueryCtx,
  provider: ProviderId,
  generation: number,
  nowMs: number,
): Promise<Tallies.TallySum> {
  const tallies = (await Slots.ofPool(ctx, provider)).map(Slots.tallyOf);
  const { windowMs } = providerPolicy(env, provider).breaker;
  const known = tallies.filter((tally) => tally !== null);
  return Tallies.sum(known, { generation, nowMs, windowMs });
}

async function statusOf(ctx: QueryCtx, provider: ProviderId, nowMs: number) {
  const breaker = await Breakers.load(ctx, provider);
  const { generation, id, state } = breaker;
  const { calls, failures, retries, run, slow } = await counted(ctx, provider, generation, nowMs);
  const row = id === null ? null : await ctx.db.get("circuitBreakers", id);
  return {
    provider,
    state: shownPhase(breaker, provider, nowMs),
    reason: state.kind === "open" ? state.reason : null,
    failureCount: run,
    callCount: calls,
    failedCount: failures,
    slowCount: slow,
    retryCount: retries,
    cooldownUntil: BreakerPolicy.probesFromMs(state, providerPolicy(env, provider).breaker),
    generation,
    updatedAt: row?.updatedAt ?? null,
  };
}

async function shown(ctx: QueryCtx, provider: ProviderId, nowMs: number) {
  return { state: shownPhase(await Breakers.load(ctx, provider), provider, nowMs) };
}

function shownPhase(breaker: Breakers.Loaded, provider: ProviderId, nowMs: number) {
  const { kind } = breaker.state;
  if (kind === "forced_open" || kind === "metrics_only") return kind;
  return BreakerPolicy.phaseAt(breaker, nowMs, providerPolicy(env, provider).breaker).kind;
}

function requireProvider(name: string): ProviderId {
  const provider = PROVIDER_IDS.find((id) => id === name);
  if (provider === undefined)
    throw new AppError("invalid_request", { detail: "There is no provider of this name." });
  return provider;
}
