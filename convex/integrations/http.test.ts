import { convexTest } from "convex-test";
import type { FunctionReference } from "convex/server";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { WebhookCall } from "../../src/channels/call";
import { HUB_SIGNATURE_HEADER, signHub256 } from "../../src/channels/signature/hub256";
import { errorData } from "../../src/errors/appError";
import type { Gate } from "../../src/providers/call";
import { platformIo } from "../../src/providers/io";
import {
  ACCOUNT_UPDATE,
  delivery,
  TEXT_DELIVERY,
  TEXT_MESSAGE,
} from "../../test/vectors/whatsappDeliveries";
import { internal } from "../_generated/api";
import type { ActionCtx } from "../_generated/server";
import schema from "../schema";
import { gmailPush, googlePushVerifier } from "./gmailHttp";
import { verifyWhatsappSignature, whatsappReceive, whatsappVerify } from "./whatsappHttp";

const modules = import.meta.glob(["/convex/**/*.{ts,js}", "!/convex/**/*.test.ts"]);
const SECRET = "app-secret-of-our-own";
const VERIFY_TOKEN = "verify-token-of-our-own";

type Backend = ReturnType<typeof backend>;

function backend() {
  return convexTest({ schema, modules });
}

/** What the handlers use of an action's context, over the test backend. */
function actionCtx(t: Backend): ActionCtx {
  type Args = Record<string, unknown>;
  const calls = {
    runQuery: (reference: FunctionReference<"query", "internal">, args: Args) =>
      t.query(reference, args),
    runMutation: (reference: FunctionReference<"mutation", "internal">, args: Args) =>
      t.mutation(reference, args),
    scheduler: {
      runAfter: (_ms: number, reference: FunctionReference<"mutation", "internal">, args: Args) =>
        t.mutation(reference, args),
    },
  };
  return calls as unknown as ActionCtx;
}

const call = (body: unknown, url = "https://ballast.example/"): WebhookCall => ({
  url: new URL(url),
  body,
  client: { key: "address:7" },
  nowMs: Date.now(),
});

/** The code and data of the error that refuses. */
async function refusalOf(attempt: Promise<unknown>) {
  try {
    await attempt;
  } catch (error) {
    return errorData(error);
  }
  throw new Error("nothing refused it");
}

const receive = (t: Backend, body: unknown) => whatsappReceive(actionCtx(t), call(body));

const inboxSize = (t: Backend) =>
  t.run(async (ctx) => (await ctx.db.query("webhookInbox").take(1000)).length);

beforeEach(() => {
  vi.stubEnv("WHATSAPP_APP_SECRET", SECRET);
  vi.stubEnv("WHATSAPP_VERIFY_TOKEN", VERIFY_TOKEN);
  vi.stubEnv("RATE_LIMIT_WHATSAPP_MAX", "100");
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
  vi.unstubAllEnvs();
  vi.unstubAllGlobals();
});

describe("receiving WhatsApp deliveries", () => {
  // The scheduled processing has its own tests; here it only must not outlive its test.
  beforeEach(() => {
    vi.useFakeTimers();
  });

  test("answers 200 when everything is stored, and marks a replay", async () => {
    const t = backend();
    const first = await receive(t, TEXT_DELIVERY);
    expect([first.status, await first.text()]).toEqual([200, "OK"]);
    expect(first.headers.get("x-idempotent-replay")).toBeNull();
    const second = await receive(t, TEXT_DELIVERY);
    expect(second.status).toBe(200);
    expect(second.headers.get("x-idempotent-replay")).toBe("1");
    expect(await inboxSize(t)).toBe(1);
  });

  test("a delivery with something new is no replay", async () => {
    const t = backend();
    await receive(t, TEXT_DELIVERY);
    const more = delivery({ messages: [TEXT_MESSAGE, { ...TEXT_MESSAGE, id: "wamid.NEW" }] });
    expect((await receive(t, more)).headers.get("x-idempotent-replay")).toBeNull();
    expect(await inboxSize(t)).toBe(2);
  });

  test("a delivery without messages is acknowledged and stores nothing", async () => {
    const t = backend();
    const response = await receive(t, ACCOUNT_UPDATE);
    expect(response.status).toBe(200);
    expect(response.headers.get("x-idempotent-replay")).toBeNull();
    expect(await inboxSize(t)).toBe(0);
  });

  test("a delivery of many messages is accepted by one mutation, in bounded parts", async () => {
    const t = backend();
    const ctx = actionCtx(t);
    const runMutation = vi.spyOn(ctx, "runMutation");
    const messages = Array.from({ length: 250 }, (_, index) => ({
      ...TEXT_MESSAGE,
      id: `wamid.${index}`,
    }));
    await whatsappReceive(ctx, call(delivery({ messages })));
    expect(runMutation).toHaveBeenCalledTimes(1);
    expect(await inboxSize(t)).toBe(3);
  });

  test("a delivery of a hundred messages, named twice each, is accepted message by message", async () => {
    const t = backend();
    const messages = Array.from({ length: 200 }, (_, index) => ({
      ...TEXT_MESSAGE,
      id: `wamid.${index % 100}`,
    }));
    await receive(t, delivery({ messages }));
    expect(await inboxSize(t)).toBe(100);
  });

  test("a refusal carries the limit and when to come again", async () => {
    vi.stubEnv("RATE_LIMIT_WHATSAPP_MAX", "1");
    const t = backend();
    await receive(t, TEXT_DELIVERY);
    const other = delivery({ messages: [{ ...TEXT_MESSAGE, id: "wamid.OTHER" }] });
    expect(await refusalOf(receive(t, other))).toMatchObject({
      code: "rate_limited",
      retryAfterMs: 60_000,
      limit: { name: "whatsapp_webhook", limit: 1, remaining: 0 },
    });
  });

  test("an accept lost to contention is tried again, a few times", async () => {
    vi.spyOn(platformIo, "sleep").mockResolvedValue();
    const t = backend();
    const conflict = new Error(
      'Documents read from or written to the "limits" table changed while this mutation was being run and on every subsequent retry.',
    );
    const ctx = actionCtx(t);
    vi.spyOn(ctx, "runMutation").mockRejectedValueOnce(conflict);
    expect((await whatsappReceive(ctx, call(TEXT_DELIVERY))).status).toBe(200);
    const lost = actionCtx(t);
    vi.spyOn(lost, "runMutation").mockRejectedValue(conflict);
    expect((await refusalOf(whatsappReceive(lost, call(TEXT_DELIVERY)))).code).toBe(
      "rate_limit_unavailable",
    );
    // What wrote nothing itself is counted all the same.
    expect(await t.run((ctx) => ctx.db.query("rateLimitEvents").take(10))).toMatchObject([
      { source: "http", bucket: "whatsapp_webhook", outcome: "contention_fallback", count: 1 },
    ]);
  });
});

describe("the WhatsApp signature", () => {
  const bytes = new TextEncoder().encode(JSON.stringify(TEXT_DELIVERY));
  const verify = async (headers: Record<string, string>) => {
    await verifyWhatsappSignature(actionCtx(backend()), { headers: new Headers(headers), bytes });
  };

  test("over the raw bytes is accepted", async () => {
    await verify({ [HUB_SIGNATURE_HEADER]: await signHub256(SECRET, bytes) });
  });

  test("that is missing or another's is forbidden", async () => {
    expect((await refusalOf(verify({}))).code).toBe("forbidden");
    const other = { [HUB_SIGNATURE_HEADER]: await signHub256("other", bytes) };
    expect((await refusalOf(verify(other))).code).toBe("forbidden");
  });

  test("sent twice is forbidden", async () => {
    const headers = new Headers();
    const signature = await signHub256(SECRET, bytes);
    headers.append(HUB_SIGNATURE_HEADER, signature);
    headers.append(HUB_SIGNATURE_HEADER, signature);
    const attempt = verifyWhatsappSignature(actionCtx(backend()), { headers, bytes });
    expect((await refusalOf(attempt)).code).toBe("forbidden");
  });

  test.each([undefined, "", "  "])("with the secret %j never matches", async (secret) => {
    vi.stubEnv("WHATSAPP_APP_SECRET", secret);
    // What an empty key would sign, had it been let in.
    const headers = { [HUB_SIGNATURE_HEADER]: await signHub256(" ", bytes) };
    expect((await refusalOf(verify(headers))).code).toBe("misconfigured");
  });
});

describe("the WhatsApp handshake", () => {
  const query = {
    "hub.mode": "subscribe",
    "hub.verify_token": VERIFY_TOKEN,
    "hub.challenge": "42",
  };
  const ask = (params: Record<string, string>, more = "") => {
    const url = `https://ballast.example/?${new URLSearchParams(params).toString()}${more}`;
    return whatsappVerify(actionCtx(backend()), call(undefined, url));
  };

  test("answers the challenge as plain text", async () => {
    const response = await ask({ ...query, "hub.challenge": "<b>1158201444</b>" });
    expect([response.status, await response.text()]).toEqual([200, "<b>1158201444</b>"]);
    expect(response.headers.get("content-type")).toBe("text/plain; charset=utf-8");
  });

  test.each([
    ["another token", { ...query, "hub.verify_token": "other" }, "forbidden"],
    ["an empty token", { ...query, "hub.verify_token": "" }, "forbidden"],
    ["another mode", { ...query, "hub.mode": "unsubscribe" }, "forbidden"],
    ["nothing", {}, "forbidden"],
    ["an empty challenge", { ...query, "hub.challenge": "" }, "invalid_request"],
    ["a long challenge", { ...query, "hub.challenge": "x".repeat(1_025) }, "invalid_request"],
  ])("with %s is refused", async (_name, params, code) => {
    expect((await refusalOf(ask(params))).code).toBe(code);
  });

  test("without a challenge is refused, and so is a second token", async () => {
    const { "hub.mode": mode, "hub.verify_token": token } = query;
    const rest = { "hub.mode": mode, "hub.verify_token": token };
    expect((await refusalOf(ask(rest))).code).toBe("invalid_request");
    expect((await refusalOf(ask(query, "&hub.verify_token=x"))).code).toBe("forbidden");
  });

  test.each([undefined, ""])("with the verify token %j set is misconfigured", async (token) => {
    vi.stubEnv("WHATSAPP_VERIFY_TOKEN", token);
    expect((await refusalOf(ask({ ...query, "hub.verify_token": "" }))).code).toBe("misconfigured");
  });
});

describe("Gmail pushes", () => {
  const envelope = {
    message: { data: btoa(JSON.stringify({ emailAddress: "dana@example.com", historyId: "42" })) },
  };
  const openGate: Gate = {
    admit: async () => ({ ok: true, permit: null }),
    mayRetry: async () => false,
    settle: async () => undefined,
  };
  const verify = (t: Backend, headers: Record<string, string>) =>
    googlePushVerifier(() => openGate)(actionCtx(t), {
      headers: new Headers(headers),
      url: new URL("https://ballast.example/api/gmail/push"),
      nowMs: Date.now(),
    });

  test("are stored once, and a replay is marked", async () => {
    vi.useFakeTimers();
    const t = backend();
    const first = await gmailPush(actionCtx(t), call(envelope));
    expect([first.status, first.headers.get("x-idempotent-replay")]).toEqual([200, null]);
    const second = await gmailPush(actionCtx(t), call(envelope));
    expect([second.status, second.headers.get("x-idempotent-replay")]).toEqual([200, "1"]);
    expect(await inboxSize(t)).toBe(1);
  });

  test.each([undefined, ""])("with nothing set up (token %j) are misconfigured", async (token) => {
    vi.stubEnv("GMAIL_PUBSUB_VERIFY_TOKEN", token);
    const refusal = await refusalOf(verify(backend(), { "x-pubsub-token": "" }));
    expect(refusal.code).toBe("misconfigured");
  });

  test("are verified by the shared token", async () => {
    vi.stubEnv("GMAIL_PUBSUB_VERIFY_TOKEN", "shared");
    const t = backend();
    await verify(t, { "x-pubsub-token": "shared" });
    expect((await refusalOf(verify(t, { "x-pubsub-token": "other" }))).code).toBe("forbidden");
  });

  describe("with an OIDC token", () => {
    const audience = "https://ballast.example/api/gmail/push";
    const email = "push@ballast-test.iam.gserviceaccount.com";
    const keyPair = generateKeyPair("RS256", { extractable: true });

    const tokenOf = async (kid: string) => {
      const nowSeconds = Math.floor(Date.now() / 1000);
      const claims = {
        aud: audience,
        iss: "https://accounts.google.com",
        email,
        email_verified: true,
      };
      return await new SignJWT({ ...claims, iat: nowSeconds, exp: nowSeconds + 3600 })
        .setProtectedHeader({ alg: "RS256", kid })
        .sign((await keyPair).privateKey);
    };

    const bearer = async (kid = "k1") => ({ authorization: `Bearer ${await tokenOf(kid)}` });

    /** Google's certificate endpoint, answering with this status. */
    async function publish(status: number) {
      const jwk = { ...(await exportJWK((await keyPair).publicKey)), kid: "k1", use: "sig" };
      const fetched = vi.fn(async () =>
        Response.json({ keys: [jwk] }, { status, headers: { "cache-control": "max-age=3600" } }),
      );
      vi.stubGlobal("fetch", fetched);
      return fetched;
    }

    beforeEach(() => {
      vi.stubEnv("GMAIL_PUSH_AUDIENCE", audience);
      vi.stubEnv("GMAIL_PUSH_SERVICE_ACCOUNT", email);
    });

    test("are verified with keys that are fetched once and kept in a table", async () => {
      const fetched = await publish(200);
      const t = backend();
      await verify(t, await bearer());
      await verify(t, await bearer());
      expect(fetched).toHaveBeenCalledTimes(1);
    });

    test("an unknown key id waits for the next refresh, of which there is one a minute", async () => {
      vi.useFakeTimers();
      const fetched = await publish(200);
      const t = backend();
      await verify(t, await bearer());
      vi.advanceTimersByTime(20_000);
      for (let attempt = 0; attempt < 3; attempt++)
        expect(await refusalOf(verify(t, await bearer("k9")))).toMatchObject({
          code: "upstream_unavailable",
          retryAfterMs: 40_000,
        });
      expect(fetched).toHaveBeenCalledTimes(1);
      vi.advanceTimersByTime(40_000);
      expect((await refusalOf(verify(t, await bearer("k9")))).code).toBe("forbidden");
      expect(fetched).toHaveBeenCalledTimes(2);
    });

    test("one refresh is begun a minute, whoever asks", async () => {
      vi.useFakeTimers();
      const t = backend();
      const begin = () => t.mutation(internal.integrations.googleKeys.beginRefresh, {});
      expect([await begin(), await begin()]).toEqual([true, false]);
      vi.advanceTimersByTime(60_000);
      expect(await begin()).toBe(true);
    });

    test("are not accepted while the keys cannot be fetched", async () => {
      vi.useFakeTimers();
      await publish(404);
      const t = backend();
      for (let attempt = 0; attempt < 2; attempt++)
        expect(await refusalOf(verify(t, await bearer()))).toMatchObject({
          code: "upstream_unavailable",
          retryAfterMs: 60_000,
        });
    });

    test("with half of the pair set are misconfigured", async () => {
      vi.stubEnv("GMAIL_PUSH_SERVICE_ACCOUNT", "");
      vi.stubEnv("GMAIL_PUBSUB_VERIFY_TOKEN", "shared");
      const refusal = await refusalOf(verify(backend(), { "x-pubsub-token": "shared" }));
      expect(refusal.code).toBe("misconfigured");
    });
  });
});

describe("over the router", () => {
  const body = JSON.stringify(TEXT_DELIVERY);
  const bytes = new TextEncoder().encode(body);

  async function post(t: Backend, headers: Record<string, string>, text = body) {
    const response = await t.fetch("/api/whatsapp/webhook", {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: text,
    });
    return response;
  }

  const signed = async () => ({ [HUB_SIGNATURE_HEADER]: await signHub256(SECRET, bytes) });

  beforeEach(() => {
    vi.useFakeTimers();
  });

  test("a signed delivery is stored and its redelivery marked", async () => {
    const t = backend();
    const first = await post(t, await signed());
    expect([first.status, await first.text()]).toEqual([200, "OK"]);
    const second = await post(t, await signed());
    expect([second.status, second.headers.get("x-idempotent-replay")]).toEqual([200, "1"]);
    expect(await inboxSize(t)).toBe(1);
  });

  test("an unsigned one is a 403 problem that stores nothing", async () => {
    const t = backend();
    const response = await post(t, {});
    expect(response.status).toBe(403);
    expect(response.headers.get("content-type")).toMatch(/^application\/problem\+json/);
    expect(response.headers.get("x-error-code")).toBe("forbidden");
    expect(await inboxSize(t)).toBe(0);
  });

  test("a body that was encoded again is a 403, before its JSON is looked at", async () => {
    const t = backend();
    expect((await post(t, await signed(), `${body} `)).status).toBe(403);
    expect((await post(t, await signed(), "{")).status).toBe(403);
  });

  test("without the secret the answer is misconfigured", async () => {
    vi.stubEnv("WHATSAPP_APP_SECRET", "");
    const response = await post(backend(), await signed());
    expect([response.status, response.headers.get("x-error-code")]).toEqual([500, "misconfigured"]);
  });

  test("beyond the limit the answer is a 429 that says when to come again", async () => {
    vi.stubEnv("RATE_LIMIT_GLOBAL_MAX", "1");
    const t = backend();
    await post(t, await signed());
    const other = JSON.stringify(delivery({ messages: [{ ...TEXT_MESSAGE, id: "wamid.OTHER" }] }));
    const signature = await signHub256(SECRET, new TextEncoder().encode(other));
    const response = await post(t, { [HUB_SIGNATURE_HEADER]: signature }, other);
    expect(response.status).toBe(429);
    expect(Number(response.headers.get("retry-after"))).toBeGreaterThanOrEqual(60);
    expect(response.headers.get("ratelimit-policy")).toContain("global");
  });

  test("the handshake is answered", async () => {
    const query = `hub.mode=subscribe&hub.verify_token=${VERIFY_TOKEN}&hub.challenge=42`;
    const response = await backend().fetch(`/api/whatsapp/webhook?${query}`);
    expect([response.status, await response.text()]).toEqual([200, "42"]);
  });

  test("a Gmail push with the shared token is stored", async () => {
    vi.stubEnv("GMAIL_PUBSUB_VERIFY_TOKEN", "shared");
    const t = backend();
    const data = btoa(JSON.stringify({ emailAddress: "dana@example.com", historyId: 42 }));
    const push = (token: string) =>
      t.fetch(`/api/gmail/push?token=${token}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ message: { data } }),
      });
    expect((await push("other")).status).toBe(403);
    expect((await push("shared")).status).toBe(200);
    expect((await push("shared")).headers.get("x-idempotent-replay")).toBe("1");
    expect(await inboxSize(t)).toBe(1);
  });
});
