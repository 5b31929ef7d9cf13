/** For each code that a route may answer, a way to make any such route answer it. */
import { randomUUID } from "node:crypto";
import { api } from "../../convex/_generated/api";
import type { ErrorCode } from "../../src/errors/table";
import { SECOND } from "../../src/core/time";
import { WriteConflict } from "../../src/host/database";
import type { RouteId, RouteRow } from "../../src/http/routes";
import { at, testSite } from "../../src/http/testSite";
import { clientOf } from "../e2e/backend";
import { postChat } from "../e2e/sse";
import type { WireAnswer } from "../e2e/wire";
import { GOOGLE, handshake, type Surface } from "./surface";

interface Refused {
  readonly surface: Surface;
  readonly id: RouteId;
  readonly row: RouteRow;
}

type Recipe = (refused: Refused) => Promise<WireAnswer>;

/** Codes that time alone brings about have a test of their own. */
export const REFUSALS: Readonly<Partial<Record<ErrorCode, Recipe>>> = {
  method_not_allowed: ({ id, surface }) => surface.ask(id, { method: "DELETE" }),
  unsupported_media_type: ({ id, surface }) =>
    surface.ask(id, { headers: { "content-type": "text/plain" } }),
  payload_too_large: ({ id, row, surface }) =>
    surface.ask(id, { body: `"${"x".repeat(row.bodyBytesMax)}"`, chunkBytes: 8_192 }),
  invalid_json: ({ id, surface }) => surface.ask(id, { body: "{" }),
  invalid_request: ({ id, row, surface }) => {
    if (row.body !== null) return surface.ask(id, { body: "[]" });
    const { WHATSAPP_VERIFY_TOKEN: token } = surface.backend.secrets;
    return surface.ask(id, { query: row.auth.kind === "token" ? handshake(token) : "" });
  },
  unauthorized: ({ id, surface }) => surface.ask(id, { user: null }),
  forbidden: ({ id, row, surface }) => {
    if (row.cors === "allowlist")
      return surface.ask(id, { headers: { origin: "https://evil.example" } });
    if (row.auth.kind === "token") return surface.ask(id, { query: handshake("a guess", "42") });
    return surface.ask(id, { user: null });
  },
  misconfigured: async ({ id, row, surface }) => {
    await surface.set(unguarded(row));
    return await surface.ask(id, { headers: { origin: "http://localhost:3000" } });
  },
  rate_limit_unavailable: async ({ id, surface }) => {
    surface.failCommits(new WriteConflict("limits"));
    return await surface.ask(id);
  },
  overloaded: async ({ id, surface }) => {
    surface.failCommits(new WriteConflict("idempotencyKeys"));
    return await surface.ask(id);
  },
  not_found: ({ id, surface }) => {
    if (id === "chatStream") return surface.ask(id, { query: "?streamId=x" });
    const what = id === "chatPost" ? { message: { content: "hi" } } : { messageId: "x" };
    return surface.ask(id, { body: JSON.stringify({ threadId: "x", ...what }) });
  },
  request_in_progress: async ({ id, surface: { ask, backend } }) => {
    const client = await clientOf(backend, "alice");
    const threadId = await client.mutation(api.threads.create, {});
    const slow = await postChat(backend, {
      threadId,
      message: { content: "[[words:900]] [[slow:50]]" },
    });
    const answer = await ask(id, {
      body: JSON.stringify({ threadId, message: { content: "hi" } }),
    });
    const messages = await client.query(api.messages.list, { threadId });
    await client.mutation(api.messages.abort, { threadId, messageId: messages.at(-1)?._id ?? "" });
    await slow.body?.cancel();
    return answer;
  },
  idempotency_conflict: async ({ id, surface }) => {
    const headers = { "idempotency-key": randomUUID() };
    await surface.ask(id, { headers });
    return await surface.ask(id, { headers });
  },
  upstream_unavailable: async ({ id, surface: { ask, backend, nowMs } }) => {
    const open = id === "gmailPush" ? ["google_certs"] : CHAT_ROUTES;
    const setState = (state: string) =>
      Promise.all(
        open.map((provider) => backend.operator("circuitBreaker:setState", { provider, state })),
      );
    await setState("forced_open");
    const answer = await ask(id, {
      ...(id === "gmailPush" ? { headers: { "x-pubsub-token": "", ...googleToken(nowMs()) } } : {}),
    });
    await setState("closed");
    return answer;
  },
  internal_error: async ({ id, row, surface }) => {
    // What nobody foresaw has no recipe: a handler that breaks stands for it.
    const site = testSite({ handler: () => Promise.reject(new Error("canary")) });
    const { body, query = "" } = surface.good(id);
    const headers = row.body === null ? {} : { "content-type": "application/json" };
    const init = { method: row.method, headers, ...(body === undefined ? {} : { body }) };
    const response = await site.send(at(`${row.path}${query}`, init as RequestInit));
    const text = await response.text();
    return { status: response.status, headers: Object.fromEntries(response.headers), text };
  },
};

const CHAT_ROUTES = ["openrouter_chat_primary", "openrouter_chat_secondary"];

/** A token that says the right things, signed by a key of Google's that nothing has seen. */
function googleToken(nowMs: number): { readonly authorization: string } {
  const nowSeconds = Math.floor(nowMs / SECOND);
  const claims = {
    iss: "https://accounts.google.com",
    aud: GOOGLE.GMAIL_PUSH_AUDIENCE,
    email: GOOGLE.GMAIL_PUSH_SERVICE_ACCOUNT,
    email_verified: true,
    iat: nowSeconds,
    exp: nowSeconds + 3_600,
  };
  const parts = [{ alg: "RS256", kid: "unknown" }, claims].map((part) =>
    Buffer.from(JSON.stringify(part)).toString("base64url"),
  );
  return { authorization: `Bearer ${parts.join(".")}.c2lnbmF0dXJl` };
}

/** Settings with which a route's first guard cannot judge. */
function unguarded({ auth, cors }: RouteRow): Record<string, string> {
  if (cors === "allowlist") return { ALLOWED_ORIGINS: "no origin" };
  if (auth.kind === "token") return { WHATSAPP_VERIFY_TOKEN: "" };
  if (auth.kind !== "signature") throw new Error("nothing guards this route by a setting");
  return auth.scheme === "hub-256"
    ? { WHATSAPP_APP_SECRET: "" }
    : { GMAIL_PUBSUB_VERIFY_TOKEN: "", GMAIL_PUSH_AUDIENCE: "", GMAIL_PUSH_SERVICE_ACCOUNT: "" };
}
