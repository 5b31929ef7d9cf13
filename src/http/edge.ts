/**
 * The outermost layer of a request: its ids, the choice of its route, one answer whatever happens,
 * and one line in the log.
 */
import type { Env } from "../config/env";
import { readKnob } from "../config/read";
import { AppError, type ErrorData, errorData } from "../errors/appError";
import { log } from "../log/log";
import { corsHeaders, preflightHeaders } from "./cors";
import {
  type CallOf,
  type Incoming,
  passGuards,
  type PipelineCtx,
  type Verifiers,
} from "./pipeline";
import { problemResponse } from "./problem";
import { allowedMethods, answersHead, type RouteId, type RouteRow, routesAt } from "./routes";
import { continueTrace, randomHex, requestIdOf } from "./traceparent";

export type Handlers<Ctx> = {
  readonly [Id in RouteId]: (ctx: Ctx, call: CallOf<Id>) => Promise<Response>;
};

/** A failure that nobody foresaw, for a tracker: the caller has been answered without it. */
export interface UnforeseenFailure {
  readonly error: unknown;
  readonly requestId: string;
  readonly route: string;
}

interface Edge<Ctx> {
  readonly handlers: Handlers<Ctx>;
  readonly verifiers: Verifiers<Ctx>;
  readonly report?: (ctx: Ctx, failure: UnforeseenFailure) => Promise<void>;
  readonly env: Env;
  readonly random: () => number;
}

type Serve<Ctx> = (ctx: Ctx, request: Request, path: string | null) => Promise<Response>;

type Match =
  | { readonly kind: "route"; readonly id: RouteId; readonly row: RouteRow }
  | { readonly kind: "preflight" }
  | { readonly kind: "refused"; readonly code: "not_found" | "method_not_allowed" };

/** How an answer came about, for the log. */
interface Outcome {
  readonly response: Response;
  readonly failure: { readonly data: ErrorData; readonly error: unknown } | null;
}

/** Makes the one function that answers every request. A null path is one that no route has. */
export function edge<Ctx extends PipelineCtx>(parts: Edge<Ctx>): Serve<Ctx> {
  return async (ctx, request, path) => {
    const startedAtMs = Date.now();
    const requestId = requestIdOf(request.headers.get("x-request-id"), randomHex);
    const trace = continueTrace(request.headers.get("traceparent"), randomHex);
    const { traceparent } = trace;
    const url = new URL(request.url);
    const match = matchOf(request.method, path);
    const incoming = { ctx, request, url, env: parts.env, requestId, traceparent };
    const outcome = await answer(parts, match, { ...incoming, nowMs: startedAtMs }, path);
    const response = finish(outcome.response, request, {
      "x-request-id": requestId,
      traceparent,
      ...crossOrigin(path, request, parts.env),
    });
    const route = match.kind === "route" ? match.id : (path ?? "unrouted");
    log.event("http_request", {
      route,
      method: request.method,
      status: response.status,
      code: outcome.failure?.data.code ?? null,
      requestId,
      traceId: trace.traceId,
      durationMs: Date.now() - startedAtMs,
      ...causeOf(outcome),
    });
    await reportUnforeseen(parts, ctx, { outcome, requestId, route });
    return response;
  };
}

function matchOf(method: string, path: string | null): Match {
  if (path === null) return { kind: "refused", code: "not_found" };
  if (method === "OPTIONS") return { kind: "preflight" };
  const found = routesAt(path).find(
    ([, row]) => row.method === method || (method === "HEAD" && answersHead(row)),
  );
  if (found === undefined) return { kind: "refused", code: "method_not_allowed" };
  return { kind: "route", id: found[0], row: found[1] };
}

async function answer<Ctx extends PipelineCtx>(
  parts: Edge<Ctx>,
  match: Match,
  incoming: Incoming<Ctx>,
  path: string | null,
): Promise<Outcome> {
  try {
    const response = await respond(parts, match, incoming, path);
    return { response, failure: null };
  } catch (error) {
    const data = errorData(error);
    const { requestId } = incoming;
    const headers = headersOf(data, incoming.request, path);
    const response = problemResponse(data, { requestId, random: parts.random, headers });
    return { response, failure: { data, error } };
  }
}

async function respond<Ctx extends PipelineCtx>(
  parts: Edge<Ctx>,
  match: Match,
  incoming: Incoming<Ctx>,
  path: string | null,
): Promise<Response> {
  switch (match.kind) {
    case "refused":
      throw new AppError(match.code);
    case "preflight": {
      const allow = path === null ? [] : allowedMethods(path);
      // Read so that a list that is not valid is an error here too, and no silent refusal.
      if (isCrossOrigin(path)) readKnob(parts.env, "ALLOWED_ORIGINS");
      return new Response(null, { status: 204, headers: { allow: allow.join(", ") } });
    }
    case "route":
      return await handle(parts, match, incoming);
  }
}

async function handle<Ctx extends PipelineCtx>(
  parts: Edge<Ctx>,
  { id, row }: { readonly id: RouteId; readonly row: RouteRow },
  incoming: Incoming<Ctx>,
): Promise<Response> {
  const call = await passGuards(row, incoming, parts.verifiers);
  // The call was made by this row, so it is the one that this id's handler takes.
  return await parts.handlers[id](incoming.ctx, call as never);
}

/** Headers that a code demands besides the problem's own. */
function headersOf(
  { code }: ErrorData,
  request: Request,
  path: string | null,
): Record<string, string> {
  if (code === "method_not_allowed" && path !== null)
    return { allow: allowedMethods(path).join(", ") };
  if (code === "unauthorized")
    return {
      "www-authenticate": request.headers.has("authorization")
        ? 'Bearer error="invalid_token"'
        : "Bearer",
    };
  return {};
}

const isCrossOrigin = (path: string | null): boolean =>
  path !== null && routesAt(path).some(([, row]) => row.cors === "allowlist");

function crossOrigin(path: string | null, request: Request, env: Env): Record<string, string> {
  if (!isCrossOrigin(path)) return {};
  const headersFor = request.method === "OPTIONS" ? preflightHeaders : corsHeaders;
  return headersFor(request.headers.get("origin"), allowedOrigins(env));
}

/** A list that is not valid allows nobody. */
function allowedOrigins(env: Env): readonly string[] {
  try {
    return readKnob(env, "ALLOWED_ORIGINS");
  } catch {
    return [];
  }
}

/** The handler's answer with what every answer carries. */
function finish(
  response: Response,
  request: Request,
  headers: Readonly<Record<string, string>>,
): Response {
  const all = new Headers(response.headers);
  for (const [name, value] of Object.entries(headers)) all.set(name, value);
  if (!all.has("x-content-type-options")) all.set("x-content-type-options", "nosniff");
  const { status } = response;
  return new Response(request.method === "HEAD" ? null : response.body, { status, headers: all });
}

const CAUSE_LENGTH_MAX = 500;

/** What an operator needs of a failure that the caller is not told about. */
function causeOf({ failure }: Outcome): Record<string, string> {
  if (failure === null) return {};
  const { data, error } = failure;
  if (data.code === "misconfigured")
    return data.detail === undefined ? {} : { detail: data.detail };
  if (data.code !== "internal_error") return {};
  const cause = error instanceof Error ? `${error.name}: ${error.message}` : typeof error;
  return { cause: cause.slice(0, CAUSE_LENGTH_MAX) };
}

interface Finished {
  readonly outcome: Outcome;
  readonly requestId: string;
  readonly route: string;
}

async function reportUnforeseen<Ctx>(
  { report }: Edge<Ctx>,
  ctx: Ctx,
  { outcome: { failure }, requestId, route }: Finished,
): Promise<void> {
  if (report === undefined || failure?.data.code !== "internal_error") return;
  try {
    await report(ctx, { error: failure.error, requestId, route });
  } catch {
    // The caller's answer must not depend on a tracker.
    log.event("http_report_failed", { requestId });
  }
}
