/**
 * What every request goes through, in one order: method, origin, media type, declared length,
 * body bytes, signature over those bytes, JSON, contract, identity, handler. All but the handler is
 * decided here without a call to any function, so a refused request costs nothing but itself.
 */
import type * as z from "zod";
import type { Env } from "../config/env";
import { readKnob } from "../config/read";
import { type Identity, type IdentitySource, requireIdentity } from "../config/signIn";
import { parseJson, readBytes, requireDeclaredLength, requireJson } from "./bodies";
import { type Client, clientOf, UNKNOWN_CLIENT } from "./clientAddress";
import { requireOrigin } from "./cors";
import { type RouteId, type RouteRow, type ROUTES, type Scheme } from "./routes";
import { parseContract, queryObject } from "./validate";

/** What the pipeline needs of an HTTP action's context. */
export interface PipelineCtx {
  readonly auth: IdentitySource;
  readonly meta: { getRequestMetadata(): Promise<{ readonly ip: string | null }> };
}

type Row<Id extends RouteId> = (typeof ROUTES)[Id];
type OutputOf<Contract> = Contract extends z.ZodType ? z.output<Contract> : null;

/** What a handler is given: a request that passed everything its row demands. */
export interface CallOf<Id extends RouteId> {
  readonly request: Request;
  readonly url: URL;
  /** The body as sent; empty where the route takes none. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly body: OutputOf<Row<Id>["body"]>;
  readonly query: OutputOf<Row<Id>["query"]>;
  readonly identity: Row<Id>["auth"]["kind"] extends "user" ? Identity : null;
  readonly requestId: string;
  /** To send on to whatever is called on the caller's behalf. */
  readonly traceparent: string;
  readonly client: Client;
  readonly nowMs: number;
}

/** What a verifier sees: nothing is parsed before it agrees. */
interface Signed {
  readonly headers: Headers;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly url: URL;
  readonly nowMs: number;
}

/** Each throws an `AppError` to refuse. */
export type Verifiers<Ctx> = Readonly<Record<Scheme, (ctx: Ctx, signed: Signed) => Promise<void>>>;

/** A request on its way, with what the edge has settled about it. */
export interface Incoming<Ctx> {
  readonly ctx: Ctx;
  readonly request: Request;
  readonly url: URL;
  readonly env: Env;
  readonly requestId: string;
  readonly traceparent: string;
  readonly nowMs: number;
}

/**
 * Takes a request through the guards of its row. Throws the first refusal as an `AppError`; what a
 * route's type says of body, query and identity holds for what is returned.
 */
export async function passGuards<Ctx extends PipelineCtx, Id extends RouteId>(
  row: RouteRow,
  incoming: Incoming<Ctx>,
  verifiers: Verifiers<Ctx>,
): Promise<CallOf<Id>> {
  const { ctx, request, url, env, requestId, traceparent, nowMs } = incoming;
  const { headers } = request;
  if (row.cors === "allowlist") checkOrigin(headers, env);
  const bytes = await receive(row, request);
  if (row.auth.kind === "signature")
    await verifiers[row.auth.scheme](ctx, { headers, bytes, url, nowMs });
  const json = row.body === null ? null : parseJson(bytes);
  const body = row.body === null ? null : parseContract(row.body, json);
  const query = row.query === null ? null : parseContract(row.query, queryObject(url.searchParams));
  const identity = row.auth.kind === "user" ? await requireIdentity(ctx.auth, env) : null;
  const client = await clientFor(row, incoming);
  const call = {
    request,
    url,
    bytes,
    body,
    query,
    identity,
    requestId,
    traceparent,
    client,
    nowMs,
  };
  // The row is the id's: its contracts made body and query, its auth made the identity.
  return call as CallOf<Id>;
}

function checkOrigin(headers: Headers, env: Env): void {
  const origin = headers.get("origin");
  // Who sends no Origin is no page, and may be anybody's own program.
  if (origin !== null) requireOrigin(origin, readKnob(env, "ALLOWED_ORIGINS"));
}

async function receive(row: RouteRow, request: Request): Promise<Uint8Array<ArrayBuffer>> {
  if (row.body === null) return new Uint8Array();
  requireJson(request.headers);
  requireDeclaredLength(request.headers, row.bodyBytesMax);
  return await readBytes(request.body, row.bodyBytesMax);
}

/** Only a route that limits by address asks for one, and depends on how addresses are read. */
async function clientFor(
  row: RouteRow,
  { ctx, request, env }: Pick<Incoming<PipelineCtx>, "ctx" | "request" | "env">,
): Promise<Client> {
  if (row.guards.every(({ per }) => per !== "address")) return UNKNOWN_CLIENT;
  return clientOf({ ip: await ipOf(ctx), headers: request.headers }, env);
}

/** A platform without request metadata has no address to tell. */
async function ipOf(ctx: PipelineCtx): Promise<string | null> {
  try {
    return (await ctx.meta.getRequestMetadata()).ip;
  } catch {
    return null;
  }
}
