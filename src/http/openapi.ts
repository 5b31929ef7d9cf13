/** The API description, made from the route and error tables. */
import * as z from "zod";
import { ISSUES_MAX } from "../errors/appError";
import { ERROR_CODES, type ErrorCode, errorSpec } from "../errors/table";
import { ALLOWED_HEADERS } from "./cors";
import { errorCodesOf } from "./guards";
import {
  type Auth,
  HEADER_MEANINGS,
  paths,
  type RouteId,
  type RouteRow,
  routesAt,
  type SuccessAnswer,
} from "./routes";

type Json = Readonly<Record<string, unknown>>;

const LICENSE = { name: "Apache-2.0", identifier: "Apache-2.0" };

/** The OpenAPI 3.1 document of a version. */
export function openApiDocument(version: string): Json {
  return {
    openapi: "3.1.0",
    info: {
      title: "Ballast",
      version,
      license: LICENSE,
      description:
        "Chat turns as event streams, provider webhooks, and health. Every failure is an " +
        "`application/problem+json` with a stable `code`. Every answer carries `x-request-id` and " +
        `\`traceparent\`. Pages of allowed origins may send: ${ALLOWED_HEADERS}.`,
    },
    servers: [{ url: "/", description: "The deployment's site URL." }],
    tags: [{ name: "Chat" }, { name: "Webhooks" }, { name: "Operations" }],
    paths: Object.fromEntries(paths().map((path) => [path, pathItem(path)])),
    components: {
      securitySchemes: SECURITY_SCHEMES,
      schemas: { Problem: PROBLEM },
      headers: COMMON_HEADERS,
    },
  };
}

/** Handler of `GET /api/openapi.json`. */
export function openApiHandler(version: string): () => Promise<Response> {
  return async () => Response.json(openApiDocument(version));
}

/** Handler of `GET /api/health`: nothing but this, to anybody. */
export function healthHandler(version: string): () => Promise<Response> {
  return async () =>
    Response.json({ ok: true, version }, { headers: { "cache-control": "no-store" } });
}

function pathItem(path: string): Json {
  const operations = routesAt(path).map(
    ([id, row]) => [row.method.toLowerCase(), operation(id, row)] as const,
  );
  return Object.fromEntries(operations);
}

function operation(id: RouteId, row: RouteRow): Json {
  const parameters = [...queryParameters(row), ...headerParameters(row)];
  return {
    operationId: id,
    summary: row.summary,
    tags: [row.tag],
    security: securityOf(row.auth),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(row.body === null ? {} : { requestBody: requestBody(row, row.body) }),
    responses: { ...successes(row), ...failures(row) },
  };
}

const requestBody = (row: RouteRow, contract: z.ZodType): Json => ({
  required: true,
  description: `At most ${row.bodyBytesMax} bytes.`,
  content: { "application/json": { schema: schemaOf(contract, "input") } },
});

function queryParameters({ query }: RouteRow): Json[] {
  if (query === null) return [];
  const { properties = {}, required = [] } = schemaOf(query, "input") as {
    readonly properties?: Readonly<Record<string, Json>>;
    readonly required?: readonly string[];
  };
  return Object.entries(properties).map(([name, { description, ...schema }]) => ({
    name,
    in: "query",
    required: required.includes(name),
    ...(description === undefined ? {} : { description }),
    schema,
  }));
}

const headerParameters = ({ headers }: RouteRow): Json[] =>
  headers.map((name) => ({
    name,
    in: "header",
    required: false,
    description: HEADER_MEANINGS[name],
    schema: { type: "string" },
  }));

function successes({ success }: RouteRow): Json {
  return Object.fromEntries(success.map((answer) => [String(answer.status), successOf(answer)]));
}

function successOf({ description, contentType, contract, headers }: SuccessAnswer): Json {
  const own = headers.map(
    (name) => [name, { description: HEADER_MEANINGS[name], schema: { type: "string" } }] as const,
  );
  const schema = contract === null ? TEXT[contentType ?? ""] : schemaOf(contract, "output");
  return {
    description,
    headers: { ...TRACING_HEADERS, ...Object.fromEntries(own) },
    ...(contentType === null ? {} : { content: { [contentType]: { schema: schema ?? {} } } }),
  };
}

const TEXT: Readonly<Record<string, Json>> = {
  "text/plain": { type: "string" },
  "text/event-stream": {
    type: "string",
    description: "Server-sent events; each `data` is one JSON object with a `type`.",
  },
};

/** One response per status: OpenAPI has no other place for several codes of the same status. */
function failures(row: RouteRow): Json {
  const byStatus = new Map<number, ErrorCode[]>();
  for (const code of errorCodesOf(row)) {
    const { status } = errorSpec(code);
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  return Object.fromEntries(
    [...byStatus].map(([status, codes]) => [String(status), failure(codes)]),
  );
}

function failure(codes: readonly ErrorCode[]): Json {
  const retries = codes.some((code) => errorSpec(code).retryable);
  return {
    description: codes.map((code) => `\`${code}\`: ${errorSpec(code).message}`).join(" "),
    headers: { ...TRACING_HEADERS, ...ERROR_HEADERS, ...(retries ? RETRY_HEADERS : {}) },
    content: {
      "application/problem+json": {
        schema: {
          allOf: [
            { $ref: "#/components/schemas/Problem" },
            { type: "object", properties: { code: { enum: codes } } },
          ],
        },
      },
    },
  };
}

const header = (name: string): Json => ({ $ref: `#/components/headers/${name}` });
const TRACING_HEADERS = { "x-request-id": header("RequestId"), traceparent: header("Traceparent") };
const ERROR_HEADERS = { "x-error-code": header("ErrorCode") };
const RETRY_HEADERS = { "Retry-After": header("RetryAfter") };

const text = (description: string): Json => ({ description, schema: { type: "string" } });

const COMMON_HEADERS = {
  RequestId: text("The caller's `x-request-id` where it is valid, else a new one."),
  Traceparent: text("W3C trace context: the caller's trace, with a span of this request."),
  ErrorCode: text("The problem's `code`."),
  RetryAfter: {
    description: "Whole seconds to wait before trying again.",
    schema: { type: "integer", minimum: 1 },
  },
};

const SECURITY_SCHEMES = {
  user: {
    type: "http",
    scheme: "bearer",
    bearerFormat: "JWT",
    description: "An access token of the identity provider that the deployment trusts.",
  },
  "hub-256": {
    type: "apiKey",
    in: "header",
    name: "x-hub-signature-256",
    description: "`sha256=` and the HMAC-SHA256 of the raw body under the app secret.",
  },
  "google-push": {
    type: "http",
    scheme: "bearer",
    description: "Google's OIDC token of the push service account, or the shared token.",
  },
  token: {
    type: "apiKey",
    in: "query",
    name: "hub.verify_token",
    description: "The verify token.",
  },
};

function securityOf(auth: Auth): Json[] {
  switch (auth.kind) {
    case "none":
      return [];
    case "user":
    case "token":
      return [{ [auth.kind]: [] }];
    case "signature":
      return [{ [auth.scheme]: [] }];
  }
}

const PROBLEM = {
  type: "object",
  description: "RFC 9457 problem details.",
  required: ["type", "title", "status", "detail", "code", "requestId", "retryable"],
  properties: {
    type: { type: "string", format: "uri", examples: ["urn:ballast:error:rate_limited"] },
    title: { type: "string" },
    status: { type: "integer", minimum: 400, maximum: 599 },
    detail: { type: "string" },
    code: { type: "string", enum: ERROR_CODES },
    requestId: { type: "string" },
    retryable: { type: "boolean" },
    issues: {
      type: "array",
      maxItems: ISSUES_MAX,
      items: {
        type: "object",
        required: ["path", "message"],
        properties: { path: { type: "string" }, message: { type: "string" } },
      },
    },
  },
};

/** A contract as JSON Schema, without the dialect that OpenAPI 3.1 already implies. */
export function schemaOf(contract: z.ZodType, io: "input" | "output"): Json {
  const { $schema, ...schema } = z.toJSONSchema(contract, { io });
  return $schema === undefined ? {} : schema;
}
