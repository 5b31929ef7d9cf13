import { v } from "convex/values";
import { PROVIDER_IDS } from "../src/providers/table";
import { internalMutation, internalQuery } from "./_generated/server";
import * as Admission from "./model/admission";
import { outcomeKind, permitFields } from "./model/permit";
import * as Refusals from "./model/refusals";

/** Breaker and bulkhead of one provider call, in one transaction. A refusal is a value. */
export const admit = internalMutation({
  args: { provider: v.string() },
  handler: async (ctx, args) => {
    const nowMs = Date.now();
    const provider = PROVIDER_IDS.find((id) => id === args.provider);
    if (provider === undefined) throw new Error(`no provider is called ${args.provider}`);
    const grant = await Admission.checkProvider(ctx, { provider }, nowMs);
    if (!grant.ok) {
      await Refusals.count(ctx, { bucket: provider, outcome: grant.reason }, nowMs);
      return { ok: false as const, code: grant.code, retryAfterMs: grant.retryAfterMs };
    }
    return { ok: true as const, permit: await Admission.takeProvider(ctx, grant, nowMs) };
  },
});

/** Releases what `admit` took and counts the outcome. Settling twice changes nothing. */
export const settle = internalMutation({
  args: {
    permit: permitFields,
    outcome: outcomeKind,
    attempts: v.number(),
    latencyMs: v.number(),
  },
  returns: v.object({ released: v.boolean() }),
  handler: async (ctx, { permit, ...settled }) =>
    await Admission.settleProvider(ctx, permit, settled, Date.now()),
});

/** Whether a provider's retry budget bears one more call. */
export const mayRetry = internalQuery({
  args: { provider: v.string() },
  returns: v.boolean(),
  handler: async (ctx, args) => {
    const provider = PROVIDER_IDS.find((id) => id === args.provider);
    return provider !== undefined && (await Admission.mayRetry(ctx, provider, Date.now()));
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
