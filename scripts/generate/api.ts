import type * as z from "zod";
import { ERROR_CODES, errorSpec, errorTypeUri } from "../../src/errors/table";
import { errorCodesOf, guardsOf } from "../../src/http/guards";
import { schemaOf } from "../../src/http/openapi";
import { HEADER_MEANINGS, ROUTE_IDS, routeRow, type RouteRow } from "../../src/http/routes";
import { CHAT_EVENTS } from "./chatEvents";
import { code, GENERATED, page, table } from "./markdown";

/** `docs/api.md`: routes, events and errors. */
export function apiPage(): string {
  return page([
    "# HTTP API",
    "",
    GENERATED,
    "",
    "The same as OpenAPI 3.1: `GET /api/openapi.json`.",
    "",
    ...CONVENTIONS,
    "",
    "## Routes",
    ...ROUTE_IDS.flatMap((id) => ["", ...section(routeRow(id))]),
    "",
    "## Events of a chat stream",
    "",
    ...EVENT_WORDS,
    "",
    ...table(
      ["`type`", "When", "Fields"],
      Object.entries(CHAT_EVENTS).map(([type, { when, fields }]) => [
        code(type),
        when,
        Object.entries(fields)
          .map(([name, meaning]) => `${code(name)}: ${meaning}`)
          .join(" ") || "–",
      ]),
    ),
    "",
    "## Errors",
    "",
    ...table(
      ["`code`", "Status", "Retryable", "`type`", "What happened", "What to do"],
      ERROR_CODES.map((name) => {
        const { status, retryable, message, advice } = errorSpec(name);
        const row = [code(name), String(status), retryable ? "yes" : "no", errorTypeUri(name)];
        return [...row, message, advice];
      }),
    ),
  ]);
}

const CONVENTIONS = [
  "Failures are `application/problem+json` (RFC 9457) with `type`, `title`, `status`, `detail`,",
  "`code`, `requestId`, `retryable` and, where a contract was broken, `issues` of `{path, message}`",
  "(at most 20). The code is also in `x-error-code`. `Retry-After` is whole seconds, at least 1,",
  "spread upward so that callers do not return together, and never earlier than a limit's own time.",
  "Answers of limited routes carry `RateLimit` and `RateLimit-Policy` (IETF draft, RFC 9651).",
  "",
  "`x-request-id` (1 to 64 letters, digits, `.`, `_`, `-`) and W3C `traceparent` are accepted and",
  "returned on every answer. Pages may call the chat routes from the origins of `ALLOWED_ORIGINS`;",
  "who sends no `Origin` is not a page and passes that guard.",
];

const EVENT_WORDS = [
  "Each event is `data: <one JSON object>`, with an `id` when everything up to it is stored. Exactly",
  "one of `done`, `error` and `aborted` ends a stream. A comment is sent after 15 s of silence.",
  "Leaving does not abort: reconnect with `GET /api/chat/stream` and `Last-Event-ID`.",
];

function section(row: RouteRow): readonly string[] {
  const guards = guardsOf(row).map(({ name }) => name);
  return [
    `### ${row.method} ${row.path}`,
    "",
    `${row.summary}.`,
    "",
    `- Who: ${authWords(row)}`,
    `- Guards, in order: ${guards.join(", ")}`,
    ...row.headers.map((name) => `- Header \`${name}\`: ${HEADER_MEANINGS[name]}`),
    ...(row.query === null ? [] : fieldsOf("Query", row.query)),
    ...(row.body === null
      ? []
      : fieldsOf(`JSON body, at most ${row.bodyBytesMax} bytes`, row.body)),
    ...row.success.map(
      ({ status, contentType, description }) =>
        `- ${status}${contentType === null ? "" : ` \`${contentType}\``}: ${description}`,
    ),
    `- Errors: ${errorCodesOf(row).map(code).join(", ")}`,
  ];
}

function authWords({ auth }: RouteRow): string {
  switch (auth.kind) {
    case "none":
      return "anybody";
    case "user":
      return "a signed-in user, `Authorization: Bearer <token>`";
    case "token":
      return "who knows the verify token";
    case "signature":
      return `the provider, proven by scheme \`${auth.scheme}\``;
  }
}

interface Schema {
  readonly type?: string;
  readonly anyOf?: readonly Schema[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly description?: string;
  readonly additionalProperties?: unknown;
}

function fieldsOf(title: string, contract: z.ZodType): readonly string[] {
  const schema = schemaOf(contract, "input") as Schema;
  const forms = schema.anyOf ?? [schema];
  return forms.flatMap((form, index) => {
    const other = form.additionalProperties === false ? "" : "; other fields are ignored";
    return [
      `- ${index === 0 ? title : "or"}${other}:`,
      ...fields(form, "").map((line) => `  - ${line}`),
    ];
  });
}

function fields({ properties = {}, required = [] }: Schema, prefix: string): readonly string[] {
  return Object.entries(properties).flatMap(([name, field]) => {
    const optional = required.includes(name) ? "" : ", optional";
    const length =
      field.maxLength === undefined
        ? ""
        : `, ${field.minLength ?? 0} to ${field.maxLength} characters`;
    const meaning = field.description === undefined ? "" : `: ${field.description}`;
    const line = `\`${prefix}${name}\` ${field.type ?? "any"}${length}${optional}${meaning}`;
    return [line, ...fields(field, `${prefix}${name}.`)];
  });
}
