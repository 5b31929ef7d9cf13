import { makeFunctionReference, mutationGeneric } from "convex/server";
import { v, type Value } from "convex/values";
import { isObject } from "../../../src/host/json";
import { MINUTE } from "../../../src/core/time";
import { ContentionError, type Backend } from "../engine/backend";

export const PROVIDER = "serper_search";
const MANY = 1_000_000;

/** The pool's size, and a lease no simulated call outlives. */
export function guardVariables(slots: number): Record<string, string> {
  return {
    BULKHEAD_SERPER_MAX_CONCURRENT: String(slots),
    BULKHEAD_SERPER_LEASE_TTL_MS: "60000",
  };
}

const checkAndIncrement = makeFunctionReference<"mutation">("rateLimit:checkAndIncrement");
const admit = makeFunctionReference<"mutation">("outbound:admit");

/** Limit, breaker and bulkhead in the one transaction of a caller that wants all three. */
export const admitLimited = mutationGeneric({
  args: { key: v.string() },
  returns: v.any(),
  handler: async (ctx, { key }): Promise<unknown> => {
    const limit: unknown = await ctx.runMutation(checkAndIncrement, allowing(key));
    const allowed = isObject(limit) && limit["allowed"] === true;
    return allowed ? await ctx.runMutation(admit, { provider: PROVIDER }) : { ok: false };
  },
});

/** A limit that never refuses. */
export const allowing = (key: string) => ({ key, max: MANY, windowMs: MINUTE });

/** A limit that is used up after one request. */
export const refusing = (key: string) => ({ key, max: 1, windowMs: MINUTE });

/** One provider call: admitted, its work a pause, settled. False where it was refused. */
export async function protectedCall(
  backend: Backend,
  options: { readonly holdMs: number; readonly admitPath: string; readonly key?: string },
  watch: { admitted(): void; settled(): void } = {
    admitted: () => undefined,
    settled: () => undefined,
  },
): Promise<boolean> {
  const { admitPath, holdMs, key } = options;
  // As the call path asks: with the moment it began to, so that lost races end in a refusal.
  const args = key === undefined ? { provider: PROVIDER, askedAtMs: backend.clock.nowMs } : { key };
  const result = await backend.mutation(admitPath, args);
  if (!isGranted(result)) return false;
  const { permit } = result;
  watch.admitted();
  if (holdMs > 0) await backend.clock.sleep(holdMs);
  const settlement = { permit, outcome: "success", attempts: 1, latencyMs: holdMs };
  try {
    await backend.mutation("outbound:settle", settlement);
  } catch (error) {
    if (!(error instanceof ContentionError)) throw error;
    await backend.scheduled("outbound:settle", settlement);
  }
  watch.settled();
  return true;
}

const isGranted = (result: unknown): result is { readonly permit: Value } =>
  isObject(result) && isObject(result["permit"] ?? null);
