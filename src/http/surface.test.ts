import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { api } from "../../convex/_generated/api";
import { backend, type Backend, useStillClock } from "../../test/edge/backend";
import { HUB_SIGNATURE_HEADER, signHub256 } from "../channels/signature/hub256";
import { errorSpec, isErrorCode } from "../errors/table";
import { errorCodesOf } from "./guards";
import type { Problem } from "./problem";
import { type RouteId, routeRow } from "./routes";

const SECRET = "app-secret-of-our-own";
const PUSH_TOKEN = "push-token-of-our-own";
const JSON_TYPE = { "content-type": "application/json" };

useStillClock();
beforeEach(() => {
  vi.spyOn(console, "log").mockImplementation(() => undefined);
  vi.stubEnv("WHATSAPP_APP_SECRET", SECRET);
  vi.stubEnv("WHATSAPP_VERIFY_TOKEN", "verify-token-of-our-own");
  vi.stubEnv("GMAIL_PUBSUB_VERIFY_TOKEN", PUSH_TOKEN);
  vi.stubEnv("RATE_LIMIT_GMAIL_PUSH_MAX", "5000");
  vi.stubEnv("RATE_LIMIT_WHATSAPP_MAX", "5000");
  vi.stubEnv("RATE_LIMIT_CHAT_STREAM_MAX", "1000");
});
afterEach(() => {
  vi.unstubAllEnvs();
});

const alice = (t: Backend) => t.withIdentity({ subject: "alice", tokenIdentifier: "test|alice" });

const codeOf = (response: Response): string => response.headers.get("x-error-code") ?? "none";

/** What a refusal must be, whoever asked for what: classified, and listed by its route. */
function expectClassified(id: RouteId, response: Response): void {
  if (response.status < 400) return;
  const code = codeOf(response);
  expect(isErrorCode(code) && errorSpec(code).status).toBe(response.status);
  expect(code).not.toBe("internal_error");
  expect(errorCodesOf(routeRow(id))).toContain(code);
}

const post = (t: Pick<Backend, "fetch">, path: string, body: unknown) =>
  t.fetch(path, { method: "POST", headers: JSON_TYPE, body: JSON.stringify(body) });

describe("a thread that is foreign, missing or malformed is 404", () => {
  const MALFORMED = ["x", "threads", "\0", "../..", "1".repeat(128), "😀"];

  test.each(MALFORMED)("%j", async (threadId) => {
    const t = backend();
    for (const response of [
      await post(alice(t), "/api/chat", { threadId, message: { content: "Hello" } }),
      await post(alice(t), "/api/chat", { threadId }),
      await post(alice(t), "/api/chat/abort", { threadId, messageId: threadId }),
      await alice(t).fetch(`/api/chat/stream?streamId=${encodeURIComponent(threadId)}`),
    ])
      expect([response.status, codeOf(response)]).toEqual([404, "not_found"]);
  });

  test("foreign, and missing, answered alike", async () => {
    const t = backend();
    const bob = t.withIdentity({ subject: "bob", tokenIdentifier: "test|bob" });
    const foreign = await bob.mutation(api.threads.create, {});
    const missing = await bob.mutation(api.threads.create, {});
    await t.run((ctx) => ctx.db.delete("threads", missing));
    const bodies: unknown[] = [];
    for (const threadId of [foreign, missing]) {
      const response = await post(alice(t), "/api/chat", { threadId, message: { content: "x" } });
      expect([response.status, codeOf(response)]).toEqual([404, "not_found"]);
      const problem = (await response.json()) as Problem;
      bodies.push({ ...problem, requestId: "" });
    }
    expect(bodies[0]).toEqual(bodies[1]);
  });
});

describe("secrets that are unset or empty close the door", () => {
  const verify = (t: Backend, token: string) =>
    t.fetch(`/api/whatsapp/webhook?hub.mode=subscribe&hub.challenge=c&hub.verify_token=${token}`);

  test("an empty verify token matches nothing", async () => {
    vi.stubEnv("WHATSAPP_VERIFY_TOKEN", "");
    for (const token of ["", "undefined", "null"])
      expect(codeOf(await verify(backend(), token))).toBe("misconfigured");
  });

  test("a push without any way to verify it is refused", async () => {
    vi.stubEnv("GMAIL_PUBSUB_VERIFY_TOKEN", "");
    const body = { message: { data: "e30=" } };
    expect(codeOf(await post(backend(), "/api/gmail/push", body))).toBe("misconfigured");
  });

  test("a signature under an empty secret is none", async () => {
    vi.stubEnv("WHATSAPP_APP_SECRET", "");
    const response = await post(backend(), "/api/whatsapp/webhook", { entry: [] });
    expect(codeOf(response)).toBe("misconfigured");
  });
});

describe("no signed or authenticated input is an answer that nobody classified", () => {
  const wild = fc.oneof(
    fc.string({ unit: "binary", maxLength: 40 }),
    fc.constantFrom("\0", "\ud800", "constructor", "x".repeat(5_000), "1e400", "messages"),
  );
  const leaf = fc.oneof(wild, fc.constantFrom(null, true, -1, 0.5, 1e300, [], {}));
  const fields = (...names: readonly string[]) =>
    fc.dictionary(fc.constantFrom(...names), leaf, { maxKeys: names.length });
  const few = <T>(item: fc.Arbitrary<T>) => fc.array(item, { maxLength: 3 });
  const MESSAGE = fields("id", "from", "type", "timestamp", "text", "image", "context", "reaction");
  const STATUS = fields("id", "status", "timestamp", "recipient_id", "errors");
  const CHANGE = fc.record(
    {
      field: fc.oneof({ weight: 5, arbitrary: fc.constant("messages") }, leaf),
      value: fc.oneof(
        { weight: 5, arbitrary: fc.record({ messages: few(MESSAGE), statuses: few(STATUS) }) },
        leaf,
      ),
    },
    { requiredKeys: [] },
  );
  const DELIVERY = fc.record({ entry: few(fc.record({ changes: few(CHANGE) })) });

  test("signed WhatsApp deliveries", async () => {
    const t = backend();
    await fc.assert(
      fc.asyncProperty(DELIVERY, async (delivery) => {
        const body = new TextEncoder().encode(JSON.stringify(delivery));
        const response = await t.fetch("/api/whatsapp/webhook", {
          method: "POST",
          headers: { ...JSON_TYPE, [HUB_SIGNATURE_HEADER]: await signHub256(SECRET, body) },
          body,
        });
        expectClassified("whatsappReceive", response);
      }),
      { numRuns: 60 },
    );
  });

  test("Gmail pushes with the shared token", async () => {
    const t = backend();
    const data = fc.oneof(
      fields("emailAddress", "historyId").map((inner) =>
        btoa(JSON.stringify(inner).replaceAll(/[^\x20-\x7e]/gu, "?")),
      ),
      fc.record({ historyId: leaf }).map(({ historyId }) => {
        const inner = { emailAddress: "a@example.com", historyId };
        return btoa(JSON.stringify(inner).replaceAll(/[^\x20-\x7e]/gu, "?"));
      }),
      leaf,
    );
    await fc.assert(
      fc.asyncProperty(data, async (inner) => {
        const body = { message: { data: inner } };
        const response = await post(t, `/api/gmail/push?token=${PUSH_TOKEN}`, body);
        expectClassified("gmailPush", response);
      }),
      { numRuns: 60 },
    );
  });

  test("chat requests of a signed-in user, with hostile ids, keys and headers", async () => {
    const t = backend();
    const printable = wild.map((text) => text.replaceAll(/[^\x20-\x7e]/gu, ""));
    await fc.assert(
      fc.asyncProperty(wild, wild, printable, async (id, content, header) => {
        const headers = { ...JSON_TYPE, "idempotency-key": header, "last-event-id": header };
        const send = (path: string, body: unknown) =>
          alice(t).fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
        // Without a key of the provider an accepted turn is refused before anything is written.
        const turn = { message: { content, clientMessageId: id }, modelId: id };
        expectClassified("chatPost", await send("/api/chat", turn));
        expectClassified("chatPost", await send("/api/chat", { threadId: id, sessionId: id }));
        const abort = { threadId: id, messageId: id, streamId: id };
        expectClassified("chatAbort", await send("/api/chat/abort", abort));
        const query = new URLSearchParams({ streamId: id }).toString();
        const stream = await alice(t).fetch(`/api/chat/stream?${query}`, { headers });
        expectClassified("chatStream", stream);
      }),
      { numRuns: 40 },
    );
  });
});
