import { type Infer, v } from "convex/values";
import { env } from "../../src/config/env";
import { readKnob } from "../../src/config/read";
import type { MutationCtx } from "../_generated/server";
import * as Limits from "./limits";
import * as Metrics from "./metrics";
import * as Refusals from "./refusals";

const rateLimitInfo = v.object({
  name: v.string(),
  limit: v.number(),
  windowMs: v.number(),
  remaining: v.number(),
  resetMs: v.number(),
  unit: v.optional(v.union(v.literal("requests"), v.literal("concurrent-requests"))),
});

const refusal = v.object({
  kind: v.literal("refused"),
  code: v.literal("rate_limited"),
  retryAfterMs: v.number(),
  limit: rateLimitInfo,
});

const taken = v.object({ kind: v.literal("accepted"), limits: v.array(rateLimitInfo) });

/** What an accept mutation answers. */
export const acceptance = v.union(taken, v.object({ kind: v.literal("duplicate") }), refusal);
export type Acceptance = Infer<typeof acceptance>;

export interface Delivery {
  readonly route: keyof typeof ROUTE_LIMITS;
  /** Bounded key of the sender's address; absent where the address is only a claim. */
  readonly addressKey: string | undefined;
  /** Limits to go without: declared to let through what they lost, on the last try of a delivery. */
  readonly leaveOut: readonly string[] | undefined;
}

const ROUTE_LIMITS = {
  whatsapp_webhook: { max: "RATE_LIMIT_WHATSAPP_MAX", windowMs: "RATE_LIMIT_WHATSAPP_WINDOW_MS" },
  gmail_push: { max: "RATE_LIMIT_GMAIL_PUSH_MAX", windowMs: "RATE_LIMIT_GMAIL_PUSH_WINDOW_MS" },
} as const;

/**
 * Takes the limits of a webhook delivery: all of them and what is left, or none and the refusal. Looks at both
 * before it takes one, so that a refused delivery debits nothing.
 */
export async function takeLimits(
  ctx: MutationCtx,
  delivery: Delivery,
  nowMs: number,
): Promise<Infer<typeof refusal> | Infer<typeof taken>> {
  const granted: Limits.LimitDecision[] = [];
  for (const request of limitsOf(delivery)) {
    const decision = await Limits.check(ctx, request, nowMs, delivery.leaveOut);
    if (!decision.ok) {
      await Refusals.count(ctx, { bucket: request.name, outcome: "blocked" }, nowMs);
      const { info: limit, retryAfterMs } = decision;
      return { kind: "refused", code: "rate_limited", retryAfterMs, limit };
    }
    granted.push(decision);
  }
  for (const decision of granted) await Limits.take(ctx, decision);
  return { kind: "accepted", limits: granted.map(({ info }) => info) };
}

/** Counts a delivery that is stored, and how long that took since it came in. */
export async function countAccepted(
  ctx: MutationCtx,
  {
    route,
    receivedAtMs = Date.now(),
  }: { route: Delivery["route"]; receivedAtMs?: number | undefined },
): Promise<void> {
  const nowMs = Date.now();
  const latencyMs = Math.max(0, nowMs - receivedAtMs);
  await Metrics.record(ctx, { key: METRICS[route], outcome: "success", latencyMs, nowMs });
}

const METRICS = {
  whatsapp_webhook: "route:whatsappReceive",
  gmail_push: "route:gmailPush",
} as const;

/** The route's limit is one sender's; who cannot be told apart is held by the backstop alone. */
function limitsOf({ route, addressKey }: Delivery): Limits.LimitRequest[] {
  const global = {
    name: "global",
    key: "all",
    max: readKnob(env, "RATE_LIMIT_GLOBAL_MAX"),
    windowMs: readKnob(env, "RATE_LIMIT_GLOBAL_WINDOW_MS"),
    shared: true,
  };
  if (addressKey === undefined) return [global];
  const { max, windowMs } = ROUTE_LIMITS[route];
  const own = {
    name: route,
    key: addressKey,
    max: readKnob(env, max),
    windowMs: readKnob(env, windowMs),
    // A provider delivers from few addresses at a high rate.
    shared: true,
  };
  return [own, global];
}
