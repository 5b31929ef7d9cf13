/** Which provider answers a turn. */
import { type Infer, v } from "convex/values";
import type { MutationCtx } from "../_generated/server";
import * as Admission from "./admission";
import { modelClass } from "./chatTables";
import type { Refused } from "./refusals";

export const chatRoute = v.object({
  providerId: v.union(v.literal("openrouter_chat_primary"), v.literal("openrouter_chat_secondary")),
  routeId: v.union(v.literal("primary"), v.literal("secondary")),
  modelClass,
  modelId: v.string(),
});
export type ChatRoute = Infer<typeof chatRoute>;

/** The models of a class, by route. */
export type Model = Pick<ChatRoute, "modelClass"> & {
  readonly primary: string;
  readonly secondary: string;
};

/** A class, one of the allowed models, or nothing for the default class. */
export type RouteVerdict =
  | {
      readonly ok: true;
      readonly route: ChatRoute;
      readonly fallback: ChatRoute | null;
      readonly grant: Admission.Grant;
    }
  | Refused;

/** The primary route, or the secondary where the primary's circuit is open or its pool full. */
export async function checkRoute(
  ctx: MutationCtx,
  model: Model,
  holder: string,
  nowMs: number,
): Promise<RouteVerdict> {
  const routes = (["primary", "secondary"] as const).map((routeId): ChatRoute => {
    const providerId = PROVIDER_OF[routeId];
    return { providerId, routeId, modelClass: model.modelClass, modelId: model[routeId] };
  });
  let soonest: Admission.Refusal | null = null;
  for (const [i, route] of routes.entries()) {
    const grant = await Admission.checkProvider(ctx, { provider: route.providerId, holder }, nowMs);
    if (grant.ok) return { ok: true, route, fallback: routes[i + 1] ?? null, grant };
    if (soonest === null || grant.retryAfterMs < soonest.retryAfterMs) soonest = grant;
  }
  if (soonest === null) throw new Error("a chat has at least one route");
  const { code, provider, reason, retryAfterMs } = soonest;
  return {
    ok: false,
    error: { code, retryAfterMs },
    counted: { bucket: provider, outcome: reason },
  };
}

export const PROVIDER_OF = {
  primary: "openrouter_chat_primary",
  secondary: "openrouter_chat_secondary",
} as const;
