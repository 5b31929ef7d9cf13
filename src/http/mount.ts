/**
 * Binds handlers to the route table. In `convex/http.ts`:
 *
 * ```ts
 * const http = httpRouter();
 * mount({
 *   router: http,
 *   httpAction,
 *   handlers: { chatPost, chatStream, chatAbort, health: healthHandler(VERSION), … },
 *   verifiers: { "hub-256": verifyWhatsappSignature, "google-push": googlePushVerifier(gateOf) },
 * });
 * export default http;
 * ```
 */
import type { HttpRouter, PublicHttpAction, RoutableMethod } from "convex/server";
import { type Env, env as deploymentEnv } from "../config/env";
import { edge, type Handlers, type UnforeseenFailure } from "./edge";
import type { PipelineCtx, Verifiers } from "./pipeline";
import { paths } from "./routes";

export interface Mounting<Ctx extends PipelineCtx> {
  readonly router: Pick<HttpRouter, "route">;
  readonly httpAction: (
    handler: (ctx: Ctx, request: Request) => Promise<Response>,
  ) => PublicHttpAction;
  /** One per route; a missing one does not compile. */
  readonly handlers: Handlers<Ctx>;
  readonly verifiers: Verifiers<Ctx>;
  /** Called after an answer of `internal_error` is decided; what it throws is dropped. */
  readonly report?: (ctx: Ctx, failure: UnforeseenFailure) => Promise<void>;
  /** The deployment's variables; default its own. */
  readonly env?: Env;
  /** Uniform in [0, 1). Default Math.random. */
  readonly random?: () => number;
}

/** All that a router knows; HEAD is served by GET. */
export const METHODS: readonly RoutableMethod[] = [
  "GET",
  "POST",
  "PUT",
  "PATCH",
  "DELETE",
  "OPTIONS",
];

/**
 * Registers every path for every method, and everything else below `/`: the platform's own answers
 * to an unknown path or method are plain text, and ours are problems with a request id.
 */
export function mount<Ctx extends PipelineCtx>(mounting: Mounting<Ctx>): void {
  const { router, httpAction } = mounting;
  const serve = edge({
    ...mounting,
    env: mounting.env ?? deploymentEnv,
    random: mounting.random ?? Math.random,
  });
  for (const path of paths()) {
    const handler = httpAction((ctx, request) => serve(ctx, request, path));
    for (const method of METHODS) router.route({ path, method, handler });
  }
  const unrouted = httpAction((ctx, request) => serve(ctx, request, null));
  for (const method of METHODS) router.route({ pathPrefix: "/", method, handler: unrouted });
}
