import { v } from "convex/values";
import { AppError } from "../src/errors/appError";
import { PROVIDER_IDS } from "../src/providers/table";
import type { MutationCtx } from "./_generated/server";
import * as Admission from "./model/admission";
import * as Claims from "./model/claims";
import { internalMutation, internalQuery } from "./model/functionBoundaries";
import * as Limits from "./model/limits";
import { outcomeKind, type Permit, permitFields } from "./model/permit";
import * as Refusals from "./model/refusals";

const limit = v.object({
  name: v.string(),
  key: v.string(),
  max: v.number(),
  windowMs: v.number(),
  weight: v.optional(v.number()),
  shared: v.optional(v.boolean()),
});

/** Limits one call may be held to besides its provider's guards. */
const LIMITS_MAX = 8;

/**
 * Limits, breaker and bulkhead of one provider call, in one transaction: all are taken or none. A
 * refusal is a value.
 */
export const admit = internalMutation({
  args: {
    provider: v.string(),
    limits: v.optional(v.array(limit)),
    /** When the caller began to ask: what has lost races for a slot is refused, not failed. */
    askedAtMs: v.optional(v.number()),
  },
  handler: async (ctx, { askedAtMs, provider, limits = [] }) => {
    const nowMs = Date.now();
    const granted = await check(ctx, { provider, limits, askedAtMs }, nowMs);
    if (!granted.ok) return await refuse(ctx, granted, nowMs);
    return { ok: true as const, permit: await take(ctx, granted, nowMs) };
  },
});

/**
 * As `admit`, for a call that must not happen twice: its key is claimed in the same transaction.
 * `settle` gives the key back, or keeps the reply with it. A duplicate writes nothing.
 */
export const admitOnce = internalMutation({
  args: {
    provider: v.string(),
    limits: v.optional(v.array(limit)),
    claim: v.object({
      scope: v.string(),
      key: v.string(),
      fingerprint: v.optional(v.string()),
      ttlMs: v.number(),
      leaseMs: v.number(),
    }),
  },
  handler: async (ctx, { provider, limits = [], ...args }) => {
    const nowMs = Date.now();
    const claim = Claims.bounded(args.claim);
    const known = await Claims.peek(ctx, claim, nowMs);
    if (known.kind !== "claimed") return { ok: false as const, duplicate: known };
    const granted = await check(ctx, { provider, limits }, nowMs);
    if (!granted.ok) return await refuse(ctx, granted, nowMs);
    await Claims.begin(ctx, claim, nowMs);
    const permit = await take(ctx, granted, nowMs);
    return { ok: true as const, permit, fence: known.fence };
  },
});

interface Call {
  readonly askedAtMs?: number | undefined;
  readonly provider: string;
  readonly limits: readonly Limits.LimitRequest[];
}

type Refused =
  | Admission.Refusal
  | {
      readonly ok: false;
      readonly code: "rate_limited";
      readonly provider: string;
      readonly reason: "blocked";
      readonly retryAfterMs: number;
      readonly late: false;
    };

/** All guards of a call, looked at before any is taken. */
async function check(
  ctx: MutationCtx,
  call: Call,
  nowMs: number,
): Promise<Refused | (Admission.Grant & { readonly limits: readonly Limits.LimitDecision[] })> {
  const provider = PROVIDER_IDS.find((id) => id === call.provider);
  if (provider === undefined) throw new Error(`no provider is called ${call.provider}`);
  if (call.limits.length > LIMITS_MAX) throw new Error("a call has at most eight limits");
  const limits: Limits.LimitDecision[] = [];
  for (const request of call.limits) {
    const decision = await Limits.check(ctx, request, nowMs);
    if (!decision.ok) {
      const { retryAfterMs } = decision;
      const { name } = request;
      return {
        ok: false,
        code: "rate_limited",
        provider: name,
        reason: "blocked",
        retryAfterMs,
        late: false,
      };
    }
    limits.push(decision);
  }
  const { askedAtMs } = call;
  const grant = await Admission.checkProvider(ctx, { provider, askedAtMs }, nowMs);
  return grant.ok ? { ...grant, limits } : grant;
}

async function take(
  ctx: MutationCtx,
  { limits, ...grant }: Admission.Grant & { readonly limits: readonly Limits.LimitDecision[] },
  nowMs: number,
): Promise<Permit> {
  for (const decision of limits) await Limits.take(ctx, decision);
  return await Admission.takeProvider(ctx, grant, nowMs);
}

async function refuse(
  ctx: MutationCtx,
  { code, late, provider, reason, retryAfterMs }: Refused,
  nowMs: number,
) {
  const refusal = { bucket: provider, outcome: reason };
  await (late ? Refusals.countLate(ctx, refusal, nowMs) : Refusals.count(ctx, refusal, nowMs));
  return { ok: false as const, code, retryAfterMs };
}

const settled = {
  permit: permitFields,
  outcome: outcomeKind,
  attempts: v.number(),
  /** How long the provider took, in milliseconds. */
  latencyMs: v.number(),
};

/**
 * Releases what `admit` took and counts the outcome. Settling twice changes nothing. With `claim`
 * it also ends what `admitOnce` claimed: a reply completes the key, none gives it back.
 */
export const settle = internalMutation({
  args: {
    ...settled,
    claim: v.optional(
      v.object({
        scope: v.string(),
        key: v.string(),
        fence: v.number(),
        reply: v.optional(v.string()),
      }),
    ),
  },
  returns: v.object({ released: v.boolean() }),
  handler: async (ctx, { claim, permit, ...outcome }) => {
    // A latency is a difference of clocks and may be anything; a number of attempts may not.
    if (!(Number.isSafeInteger(outcome.attempts) && outcome.attempts >= 0))
      throw new AppError("invalid_request", { detail: "attempts is a whole number from 0." });
    if (claim !== undefined) {
      const { reply, ...attempt } = claim;
      const ended =
        reply === undefined
          ? ({ kind: "failed" } as const)
          : ({ kind: "completed", reply } as const);
      await Claims.report(ctx, attempt, ended);
    }
    return await Admission.settleProvider(ctx, permit, outcome, Date.now());
  },
});

/**
 * Whether a provider's retry budget bears one more call. With the slot that the call holds, and how
 * often it asked the provider so far, the answer accounts for all that may retry at this moment.
 */
export const mayRetry = internalQuery({
  args: {
    provider: v.string(),
    slotId: v.optional(v.id("slots")),
    attempts: v.optional(v.number()),
  },
  returns: v.boolean(),
  handler: async (ctx, { attempts = 1, slotId = null, ...args }) => {
    const provider = PROVIDER_IDS.find((id) => id === args.provider);
    if (provider === undefined) return false;
    return await Admission.mayRetry(ctx, { provider, slotId, attempts }, Date.now());
  },
});

/** A provider's access token that is still good, or null. */
export const loadToken = internalQuery({
  args: { name: v.string() },
  returns: v.union(v.object({ token: v.string(), expiresAtMs: v.number() }), v.null()),
  handler: async (ctx, { name }) => {
    const row = await ctx.db
      .query("providerTokens")
      .withIndex("by_name", (q) => q.eq("name", name))
      .unique();
    if (row === null || row.expiresAt <= Date.now()) return null;
    return { token: row.token, expiresAtMs: row.expiresAt };
  },
});

/** Keeps a provider's access token for the next calls. */
export const storeToken = internalMutation({
  args: { name: v.string(), token: v.string(), expiresAtMs: v.number() },
  returns: v.null(),
  handler: async (ctx, { name, token, expiresAtMs }) => {
    const row = await ctx.db
      .query("providerTokens")
      .withIndex("by_name", (q) => q.eq("name", name))
      .unique();
    const fields = { name, token, expiresAt: expiresAtMs };
    if (row === null) await ctx.db.insert("providerTokens", fields);
    else await ctx.db.replace("providerTokens", row._id, fields);
    return null;
  },
});
