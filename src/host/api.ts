import { timingSafeEqual } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Authenticator } from "./auth";
import type { Environment, EnvironmentChange } from "./env";
import { FunctionError, PlatformError, messageOf } from "./errors";
import type { CallOptions, CallResult, Runtime } from "./functions";
import type { Caller, Claims, Identity } from "./invocation";
import { readText, requestInfo, sendJson } from "./wire";

export interface ApiOptions {
  readonly runtime: Runtime;
  readonly authenticator: Authenticator;
  readonly environment: Environment;
  readonly adminKey: string;
  readonly instanceName: string;
  readonly version: string;
  readonly trustedProxies: readonly string[];
  readonly print: (line: string) => void;
}

const BODY_BYTES_MAX = 20 * 1024 * 1024;
const PREFLIGHT_SECONDS = 86_400;

type Format = "json" | "convex_encoded_json";

interface CallBody {
  readonly path: string;
  readonly args: unknown;
  readonly format: Format;
  readonly ts?: string;
}

/** Answers the cloud port: the protocol of `ConvexHttpClient` and of the Convex command line. */
export function apiHandler(
  options: ApiOptions,
): (request: IncomingMessage, response: ServerResponse) => Promise<void> {
  return async (request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://host");
    try {
      if (request.method === "OPTIONS") preflight(request, response);
      else if (!answerPlain(options, pathname, response))
        await dispatch(options, pathname, { request, response });
    } catch (error) {
      sendError(options, response, error);
    }
  };
}

interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

function preflight(request: IncomingMessage, response: ServerResponse): void {
  response.writeHead(200, {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, POST, PUT, DELETE, PATCH, OPTIONS",
    "access-control-allow-headers": request.headers["access-control-request-headers"] ?? "*",
    "access-control-max-age": `${PREFLIGHT_SECONDS}`,
  });
  response.end();
}

function answerPlain(options: ApiOptions, path: string, response: ServerResponse): boolean {
  const plain: Readonly<Record<string, string>> = {
    "/version": options.version,
    "/instance_version": options.version,
    "/instance_name": options.instanceName,
  };
  const text = plain[path];
  if (text === undefined) return false;
  response.writeHead(200, { "content-type": "text/plain", "access-control-allow-origin": "*" });
  response.end(text);
  return true;
}

async function dispatch(
  options: ApiOptions,
  path: string,
  { request, response }: Exchange,
): Promise<void> {
  const text = request.method === "GET" ? "" : await readText(request, BODY_BYTES_MAX);
  if (path === "/api/query_ts") {
    const ts = options.runtime.database.holdSnapshot();
    sendJson(response, 200, JSON.stringify({ ts: encodeTs(ts) }));
    return;
  }
  const identity = await identify(options, request.headers.authorization);
  const caller: Caller = { identity, request: requestInfo(request, options.trustedProxies) };
  if (path === "/api/update_environment_variables") {
    requireAdmin(identity);
    const { changes } = parse(text) as { changes: EnvironmentChange[] };
    await options.environment.update(changes);
    sendJson(response, 200, "{}");
    return;
  }
  if (path.startsWith("/api/deploy2/") || path === "/api/get_config_hashes")
    throw new PlatformError(
      400,
      "NothingToPush",
      "This host serves the functions directory from disk: there is nothing to push.",
    );
  await call(options, path, { text, request, response, caller });
}

async function call(
  options: ApiOptions,
  path: string,
  {
    text,
    request,
    response,
    caller,
  }: Exchange & { readonly text: string; readonly caller: Caller },
): Promise<void> {
  const run = runnerFor(options.runtime, path, request.method ?? "GET");
  if (run === null)
    throw new PlatformError(
      404,
      "NotFound",
      `There is no ${request.method ?? "GET"} ${path} here.`,
    );
  const body = request.method === "GET" ? queryBody(request) : callBody(path, text);
  const publicOnly = caller.identity.kind !== "admin";
  const options_: CallOptions =
    body.ts === undefined ? { publicOnly } : { publicOnly, atTs: decodeTs(body.ts) };
  try {
    const result = await run(body, caller, options_);
    const { logLines } = result;
    const value = exportJson(result.valueJson, body.format);
    const lines = logLines.length === 0 ? "" : `,"logLines":${JSON.stringify(logLines)}`;
    sendJson(response, 200, `{"status":"success","value":${value}${lines}}`);
  } catch (error) {
    if (!(error instanceof FunctionError)) throw error;
    sendJson(
      response,
      200,
      JSON.stringify(failureBody(error, body.format, caller.request.requestId)),
    );
  }
}

type Runner = (body: CallBody, caller: Caller, options: CallOptions) => Promise<CallResult>;

function runnerFor(runtime: Runtime, path: string, method: string): Runner | null {
  const query: Runner = (body, caller, options) =>
    runtime.query(body.path, body.args, caller, options);
  if (method === "GET") return path === "/api/query" ? query : null;
  if (method !== "POST") return null;
  if (path === "/api/query" || path === "/api/query_at_ts") return query;
  if (path === "/api/mutation")
    return (body, caller, options) => runtime.mutation(body.path, body.args, caller, options);
  if (path === "/api/action")
    return (body, caller, options) => runtime.action(body.path, body.args, caller, options);
  if (path === "/api/function" || path.startsWith("/api/run/"))
    return (body, caller, options) => runtime.any(body.path, body.args, caller, options);
  return null;
}

function failureBody(error: FunctionError, format: Format, requestId: string): unknown {
  const { dataJson, logLines } = error;
  return {
    status: "error",
    errorMessage: `[Request ID: ${requestId}] Server Error\n${error.message}`,
    ...(dataJson === undefined
      ? {}
      : { errorData: JSON.parse(exportJson(dataJson, format)) as unknown }),
    ...(logLines.length === 0 ? {} : { logLines }),
  };
}

function sendError(options: ApiOptions, response: ServerResponse, error: unknown): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  if (error instanceof PlatformError) {
    sendJson(response, error.status, JSON.stringify({ code: error.code, message: error.message }));
    return;
  }
  options.print(
    `Internal error: ${error instanceof Error ? (error.stack ?? error.message) : messageOf(error)}`,
  );
  const message = "Your request couldn't be completed. Try again later.";
  sendJson(response, 500, JSON.stringify({ code: "InternalServerError", message }));
}

/** Reads an Authorization header: none, a user's token, or the admin key with whom to act as. */
async function identify(options: ApiOptions, header: string | undefined): Promise<Identity> {
  if (header === undefined || header === "") return { kind: "none" };
  const [, scheme = "", credentials = ""] = /^(\S+)\s+(.*)$/.exec(header) ?? [];
  if (scheme.toLowerCase() === "bearer") return options.authenticator.verify(credentials.trim());
  if (scheme.toLowerCase() !== "convex")
    throw new PlatformError(
      401,
      "InvalidAuthHeader",
      "The Authorization header must be `Bearer <token>` or `Convex <admin key>`.",
    );
  const at = credentials.indexOf(":");
  checkKey(options, at === -1 ? credentials : credentials.slice(0, at));
  return { kind: "admin", actingAs: at === -1 ? null : actingAs(credentials.slice(at + 1)) };
}

function checkKey(options: ApiOptions, key: unknown): void {
  const given = Buffer.from(String(key));
  const wanted = Buffer.from(options.adminKey);
  if (given.length !== wanted.length || !timingSafeEqual(given, wanted))
    throw new PlatformError(
      403,
      "BadDeployKey",
      `The provided deploy key was invalid for deployment '${options.instanceName}'.`,
    );
}

function actingAs(encoded: string): Claims {
  try {
    const text = Buffer.from(encoded, "base64").toString("utf8");
    const claims = JSON.parse(text) as Partial<Claims>;
    const { issuer = "", subject = "", tokenIdentifier = `${issuer}|${subject}` } = claims;
    return { ...claims, issuer, subject, tokenIdentifier };
  } catch {
    throw new PlatformError(
      401,
      "InvalidAuthHeader",
      "The identity to act as is not base64 of JSON.",
    );
  }
}

function requireAdmin(identity: Identity): void {
  if (identity.kind !== "admin")
    throw new PlatformError(403, "BadDeployKey", "This needs the admin key.");
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw new PlatformError(400, "BadJsonBody", "The request body is not JSON.");
  }
}

function callBody(path: string, text: string): CallBody {
  const body = parse(text) as Partial<CallBody> | null;
  if (typeof body !== "object" || body === null)
    throw new PlatformError(400, "BadJsonBody", "The request body is not a JSON object.");
  const parts = path.startsWith("/api/run/")
    ? path.slice("/api/run/".length).split("/").map(decodeURIComponent)
    : null;
  const named =
    parts === null ? body.path : `${parts.slice(0, -1).join("/")}:${parts.at(-1) ?? ""}`;
  if (typeof named !== "string")
    throw new PlatformError(400, "BadJsonBody", "The request body has no `path`.");
  const format = formatOf(body.format);
  return {
    path: named,
    args: argsObject(body.args),
    format,
    ...(typeof body.ts === "string" ? { ts: body.ts } : {}),
  };
}

function queryBody(request: IncomingMessage): CallBody {
  const { searchParams } = new URL(request.url ?? "/", "http://host");
  const args = parse(searchParams.get("args") ?? "{}");
  return {
    path: searchParams.get("path") ?? "",
    args: argsObject(args),
    format: formatOf(searchParams.get("format")),
  };
}

/** Arguments come as one object, or as a list that holds it. */
function argsObject(args: unknown): unknown {
  const value: unknown = Array.isArray(args) ? (args.length === 0 ? {} : args[0]) : (args ?? {});
  if (Array.isArray(args) && args.length > 1)
    throw new PlatformError(400, "InvalidArgs", "Functions take one arguments object.");
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new PlatformError(400, "InvalidArgs", "The arguments are not an object.");
  return value;
}

function formatOf(format: unknown): Format {
  if (format === undefined || format === null || format === "json") return "json";
  if (format === "convex_encoded_json") return format;
  throw new PlatformError(400, "InvalidFormat", "The format is json or convex_encoded_json.");
}

/** Values in plain JSON: integers and bytes as strings, as the platform writes them. */
function exportJson(json: string, format: Format): string {
  if (format === "convex_encoded_json" || !json.includes('"$')) return json;
  return JSON.stringify(toPlain(JSON.parse(json)));
}

function toPlain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(toPlain);
  if (typeof value !== "object" || value === null) return value;
  const [[key, inner] = ["", undefined], ...more] = Object.entries(value);
  if (more.length === 0 && typeof inner === "string") {
    const bytes = Buffer.from(inner, "base64");
    if (key === "$bytes") return inner;
    if (key === "$integer") return bytes.readBigInt64LE(0).toString();
    if (key === "$float") return plainFloat(bytes.readDoubleLE(0));
  }
  return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, toPlain(part)]));
}

const plainFloat = (value: number) => (Object.is(value, -0) ? 0 : String(value));

function encodeTs(ts: number): string {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(ts));
  return bytes.toString("base64");
}

function decodeTs(text: string): number {
  const bytes = Buffer.from(text, "base64");
  if (bytes.length !== 8)
    throw new PlatformError(400, "InvalidTimestamp", "The timestamp is not 8 bytes.");
  return Number(bytes.readBigUInt64LE(0));
}
