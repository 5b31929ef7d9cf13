/**
 * Every HTTP route, once. The mounted router, the preflights, the documentation, OpenAPI, the
 * surface matrix and the fuzz suite all come from here; handlers are bound to the ids where the
 * router is made.
 */
import type * as z from "zod";
import type { SettingName } from "../config/knobs";
import { KIB, MIB } from "../core/bytes";
import type { ErrorCode } from "../errors/table";
import {
  ChatAbortBody,
  ChatBody,
  ChatStreamQuery,
  GmailPushBody,
  HealthAnswer,
  WhatsappBody,
  WhatsappVerifyQuery,
} from "./contracts";

export type Scheme = "hub-256" | "google-push";

export type Auth =
  | { readonly kind: "none" }
  /** A user's access token, checked by the platform. */
  | { readonly kind: "user" }
  /** A signature or token over what was sent, checked by a verifier before anything is parsed. */
  | { readonly kind: "signature"; readonly scheme: Scheme }
  /** A token in the query, compared by the handler. */
  | { readonly kind: "token" };

/** A limit that is taken in the mutation that accepts, together with the effect. */
export interface LimitGuard {
  /** As in `RateLimit` fields, events and the snapshot. */
  readonly name: string;
  readonly per: "user" | "address" | "everyone";
  readonly knobs: readonly SettingName[];
  /**
   * What happens when the limit itself cannot be had, because the admissions that take it are lost
   * to contention: the request is refused, or the last try goes without this limit and says so.
   */
  readonly onFault: "reject" | "allow";
}

export interface SuccessAnswer {
  readonly status: number;
  readonly description: string;
  /** Null where there is no body. */
  readonly contentType: string | null;
  readonly contract: z.ZodType | null;
  /** Response headers worth a line. */
  readonly headers: readonly (keyof typeof HEADER_MEANINGS)[];
}

export interface RouteRow {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly summary: string;
  readonly tag: "Chat" | "Webhooks" | "Operations";
  readonly auth: Auth;
  /** `allowlist`: pages of ALLOWED_ORIGINS may call it, other pages are refused. */
  readonly cors: "allowlist" | "none";
  /** Contract of the JSON body; null where the route takes none. */
  readonly body: z.ZodType | null;
  readonly bodyBytesMax: number;
  readonly query: z.ZodObject | null;
  /** Request headers that mean something here. */
  readonly headers: readonly (keyof typeof HEADER_MEANINGS)[];
  readonly guards: readonly LimitGuard[];
  /** Codes beyond those that its guards answer. */
  readonly errors: readonly ErrorCode[];
  readonly success: readonly SuccessAnswer[];
}

/** What headers mean, on requests and answers. */
export const HEADER_MEANINGS = {
  "Idempotency-Key":
    "1 to 255 characters, bare or as a quoted string. The same key and body replays the answer.",
  "Last-Event-ID":
    "Id of the last event seen; every later one follows. One that the stream has not given, while it runs or after its end, is `invalid_request`.",
  "X-Idempotent-Replay": "`1` where this answer repeats an earlier one.",
  RateLimit: "What is left of the limits, as a structured field.",
  "RateLimit-Policy": "The limits, as a structured field.",
} as const;

const CHAT_BYTES_MAX = 64 * KIB;
const GMAIL_PUSH_BYTES_MAX = 256 * KIB;
/**
 * What Meta may send in one delivery. The signature covers the body, so this much is read of a
 * sender who has shown nothing yet; it is parsed, and stored, only once it is signed.
 */
const WHATSAPP_DELIVERY_BYTES_MAX = 3 * MIB;

const limit = (
  name: string,
  per: LimitGuard["per"],
  knobs: readonly SettingName[],
  onFault: LimitGuard["onFault"] = "reject",
): LimitGuard => ({ name, per, knobs, onFault });

const GLOBAL_LIMIT = limit("global", "everyone", [
  "RATE_LIMIT_GLOBAL_MAX",
  "RATE_LIMIT_GLOBAL_WINDOW_MS",
]);

const json = (contract: z.ZodType, description: string): SuccessAnswer => ({
  status: 200,
  description,
  contentType: "application/json",
  contract,
  headers: [],
});
const answer = (
  status: number,
  description: string,
  more: Partial<SuccessAnswer> = {},
): SuccessAnswer => ({
  status,
  description,
  contentType: null,
  contract: null,
  headers: [],
  ...more,
});

const chat = { tag: "Chat", auth: { kind: "user" }, cors: "allowlist" } as const;
const webhook = { tag: "Webhooks", cors: "none", headers: [] } as const;
const open = {
  method: "GET",
  tag: "Operations",
  auth: { kind: "none" },
  cors: "none",
  body: null,
  bodyBytesMax: 0,
  query: null,
  headers: [],
  guards: [],
  errors: [],
} as const;

const EVENT_STREAM = { contentType: "text/event-stream" } as const;
const ACCEPTED = answer(200, "Stored; processing follows.", {
  contentType: "text/plain",
  headers: ["X-Idempotent-Replay", "RateLimit", "RateLimit-Policy"],
});

export const ROUTES = {
  chatPost: {
    ...chat,
    method: "POST",
    path: "/api/chat",
    summary: "Stream the answer to a message",
    body: ChatBody,
    bodyBytesMax: CHAT_BYTES_MAX,
    query: null,
    headers: ["Idempotency-Key"],
    guards: [
      limit("chat_stream", "user", [
        "RATE_LIMIT_CHAT_STREAM_MAX",
        "RATE_LIMIT_CHAT_STREAM_WINDOW_MS",
      ]),
      GLOBAL_LIMIT,
      limit("chat_address", "address", ["RATE_LIMIT_ADDRESS_MAX", "RATE_LIMIT_ADDRESS_WINDOW_MS"]),
      limit("chat_tokens_day", "user", ["CHAT_TOKENS_PER_DAY"]),
    ],
    errors: [
      "not_found",
      "request_in_progress",
      "idempotency_conflict",
      "upstream_unavailable",
      "misconfigured",
    ],
    success: [
      answer(200, "Events of the turn, ending with exactly one of `done`, `error`, `aborted`.", {
        ...EVENT_STREAM,
        headers: ["X-Idempotent-Replay", "RateLimit", "RateLimit-Policy"],
      }),
    ],
  },
  chatStream: {
    ...chat,
    method: "GET",
    path: "/api/chat/stream",
    summary: "Resume the stream of a turn",
    body: null,
    bodyBytesMax: 0,
    query: ChatStreamQuery,
    headers: ["Last-Event-ID"],
    guards: [],
    errors: ["not_found"],
    success: [
      answer(200, "Every event after the last one seen, live until the end.", EVENT_STREAM),
      answer(204, "Nothing follows: the stream has ended, and its last event was seen."),
    ],
  },
  chatAbort: {
    ...chat,
    method: "POST",
    path: "/api/chat/abort",
    summary: "Abort a running turn",
    body: ChatAbortBody,
    bodyBytesMax: CHAT_BYTES_MAX,
    query: null,
    headers: [],
    guards: [],
    errors: ["not_found"],
    success: [answer(204, "The turn is asked to end, or has ended already.")],
  },
  health: {
    ...open,
    path: "/api/health",
    summary: "Whether the deployment answers",
    success: [json(HealthAnswer, "It does.")],
  },
  openapi: {
    ...open,
    path: "/api/openapi.json",
    summary: "This description, as OpenAPI 3.1",
    success: [answer(200, "The document.", { contentType: "application/json" })],
  },
  gmailPush: {
    ...webhook,
    method: "POST",
    path: "/api/gmail/push",
    summary: "Receive a Gmail change from Pub/Sub",
    auth: { kind: "signature", scheme: "google-push" },
    body: GmailPushBody,
    bodyBytesMax: GMAIL_PUSH_BYTES_MAX,
    query: null,
    guards: [
      limit("gmail_push", "address", [
        "RATE_LIMIT_GMAIL_PUSH_MAX",
        "RATE_LIMIT_GMAIL_PUSH_WINDOW_MS",
      ]),
      GLOBAL_LIMIT,
    ],
    errors: ["upstream_unavailable"],
    success: [ACCEPTED],
  },
  whatsappVerify: {
    ...webhook,
    method: "GET",
    path: "/api/whatsapp/webhook",
    summary: "Answer Meta's subscription handshake",
    auth: { kind: "token" },
    body: null,
    bodyBytesMax: 0,
    query: WhatsappVerifyQuery,
    guards: [],
    errors: [],
    success: [answer(200, "The challenge.", { contentType: "text/plain" })],
  },
  whatsappReceive: {
    ...webhook,
    method: "POST",
    path: "/api/whatsapp/webhook",
    summary: "Receive WhatsApp messages and status reports",
    auth: { kind: "signature", scheme: "hub-256" },
    body: WhatsappBody,
    bodyBytesMax: WHATSAPP_DELIVERY_BYTES_MAX,
    query: null,
    guards: [
      limit("whatsapp_webhook", "address", [
        "RATE_LIMIT_WHATSAPP_MAX",
        "RATE_LIMIT_WHATSAPP_WINDOW_MS",
      ]),
      GLOBAL_LIMIT,
    ],
    errors: [],
    success: [ACCEPTED],
  },
} as const satisfies Record<string, RouteRow>;

export type RouteId = keyof typeof ROUTES;

export const ROUTE_IDS = Object.keys(ROUTES) as readonly RouteId[];

/** The row of a route, typed as any row. */
export function routeRow(id: RouteId): RouteRow {
  return ROUTES[id];
}

/** All paths, each once. */
export function paths(): readonly string[] {
  return [...new Set(ROUTE_IDS.map((id) => routeRow(id).path))];
}

/** The rows of one path by method. */
export function routesAt(path: string): readonly (readonly [RouteId, RouteRow])[] {
  return ROUTE_IDS.map((id) => [id, routeRow(id)] as const).filter(([, row]) => row.path === path);
}

const isStream = (row: RouteRow): boolean =>
  row.success.some(({ contentType }) => contentType === EVENT_STREAM.contentType);

/** Whether HEAD is answered as GET without its body; starting a stream for nobody is no answer. */
export function answersHead(row: RouteRow): boolean {
  return row.method === "GET" && !isStream(row);
}

/** What a path answers, as its `Allow` header lists it. */
export function allowedMethods(path: string): readonly string[] {
  const methods = routesAt(path).flatMap(([, row]) =>
    answersHead(row) ? [row.method, "HEAD"] : [row.method],
  );
  return [...methods, "OPTIONS"];
}
