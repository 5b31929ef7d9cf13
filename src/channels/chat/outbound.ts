import type { Gate } from "../../providers/call";
import type { TokenStore } from "../../providers/ebay";
import type { CallPermit, Ctx, OutboundFunctions } from "./functions";

/** The gate of provider calls made by an action. Settlement carries the permit admission gave. */
export function gateOf(ctx: Ctx, functions: OutboundFunctions): Gate {
  return {
    admit: async (provider) =>
      await ctx.runMutation(functions.admitCall, { provider, askedAtMs: Date.now() }),
    lost: async (provider) => {
      const event = { source: "outbound", bucket: provider, outcome: "contention_fallback" };
      await ctx.scheduler.runAfter(0, functions.countLost, event);
    },
    mayRetry: async (permit, attempts) => {
      const { probeId, provider, slotId } = own(permit);
      // A half-open circuit lets so many requests through and no more: a probe is one request.
      if (probeId !== undefined) return false;
      return await ctx.runQuery(functions.mayRetry, { provider, slotId, attempts });
    },
    settle: async (permit, { attempts, kind: outcome, latencyMs }) => {
      const args = { permit: own(permit), outcome, attempts, latencyMs };
      try {
        await ctx.runMutation(functions.settleCall, args);
      } catch {
        // Lost to contention: the scheduler tries without end, and the permit's fence keeps a late
        // one from freeing what is no longer its own.
        await ctx.scheduler.runAfter(0, functions.settleCall, args);
      }
    },
  };
}

/** The call path hands back what this gate gave it, and looks inside no permit. */
const own = (permit: unknown): CallPermit => permit as CallPermit;

/** Provider tokens kept in a table: the platform starts every action afresh. */
export function tokenStoreOf(ctx: Ctx, functions: OutboundFunctions): TokenStore {
  return {
    load: async (name) => {
      const stored = await ctx.runQuery(functions.loadToken, { name });
      return stored === null || stored.expiresAtMs <= Date.now() ? null : stored.token;
    },
    store: async (name, token, expiresAtMs) => {
      await ctx.runMutation(functions.storeToken, { name, token, expiresAtMs });
    },
  };
}
