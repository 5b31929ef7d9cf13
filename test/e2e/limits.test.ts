import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { api } from "../../convex/_generated/api";
import { HOUR, MINUTE } from "../../src/core/time";
import { hub256 } from "../../src/sim/deliveries";
import { delivery, TEXT_MESSAGE } from "../vectors/whatsappDeliveries";
import { type Backend, clientOf, startBackend, until } from "./backend";
import { chat, parseFrames, postChat, startOf, terminals } from "./sse";
import { problemOf, refusal, send, type WireAnswer } from "./wire";

interface Snapshot {
  readonly rateLimitPressure: { readonly byBucketOutcome: Record<string, number> };
  readonly circuitBreakers: {
    readonly recent: readonly { readonly provider: string; readonly state: string }[];
  };
  readonly bulkheads: { readonly activeLeaseCount: number };
  readonly chatStreams: { readonly streaming?: number };
}

let backend: Backend;
/** How far the deployment's clock is ahead: windows and cooldowns pass at once. */
let aheadMs = 0;
const changed = new Set<string>();
beforeAll(async () => {
  backend = await startBackend({ injection: { nowMs: () => Date.now() + aheadMs } });
});
afterAll(async () => {
  await backend.close();
});
afterEach(async () => {
  await backend.setEnv(Object.fromEntries([...changed].map((name) => [name, null])));
  changed.clear();
  await backend.resetFaults();
  // Whatever a case used up is whole again for the next one.
  aheadMs += 2 * HOUR;
});

async function set(variables: Record<string, string>): Promise<void> {
  for (const name of Object.keys(variables)) changed.add(name);
  await backend.setEnv(variables);
}

const HOURLY = String(HOUR);

async function ask(user: string, headers: Record<string, string> = {}): Promise<WireAnswer> {
  return await send(`${backend.siteUrl}/api/chat`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      authorization: `Bearer ${await backend.token(user)}`,
      ...headers,
    },
    body: '{"message":{"content":"[[words:2]] hi"}}',
  });
}

let deliveries = 0;
async function deliverOne(headers: Record<string, string> = {}): Promise<WireAnswer> {
  deliveries += 1;
  const body = JSON.stringify(
    delivery({ messages: [{ ...TEXT_MESSAGE, id: `limited.${deliveries}` }] }),
  );
  return await send(`${backend.siteUrl}/api/whatsapp/webhook`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      "x-hub-signature-256": hub256(backend.secrets.WHATSAPP_APP_SECRET, body),
      ...headers,
    },
    body,
  });
}

async function pushOne(historyId: number): Promise<WireAnswer> {
  const data = Buffer.from(JSON.stringify({ emailAddress: "lim@example.com", historyId }));
  return await send(`${backend.siteUrl}/api/gmail/push`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      "x-pubsub-token": backend.secrets.GMAIL_PUBSUB_VERIFY_TOKEN,
    },
    body: JSON.stringify({ message: { data: data.toString("base64") } }),
  });
}

/** A refusal of a limit: its code, when to come back, and the limit's own fields. */
function expectLimited(answer: WireAnswer, name: string, max: number, windowMs: number): void {
  expect(refusal(answer)).toEqual([429, "rate_limited"]);
  expect(problemOf(answer).retryable).toBe(true);
  const { headers } = answer;
  expect(headers["ratelimit-policy"]).toBe(`"${name}";q=${max};w=${windowMs / 1000}`);
  const [, resetS = "0"] = /^"\w+";r=0;t=(\d+)$/.exec(headers["ratelimit"] ?? "") ?? [];
  expect(Number(resetS)).toBeGreaterThanOrEqual(1);
  expect(headers["retry-after"]).toMatch(/^[1-9]\d*$/);
  expect(Number(headers["retry-after"])).toBeGreaterThanOrEqual(Number(resetS));
}

const snapshot = () => backend.operator<Snapshot>("ops:getReliabilitySnapshot");

describe("chat turns", () => {
  test("of one user are limited; others go on, and a window later he may again", async () => {
    await set({ RATE_LIMIT_CHAT_STREAM_MAX: "3", RATE_LIMIT_CHAT_STREAM_WINDOW_MS: HOURLY });
    const answers = await Promise.all(Array.from({ length: 6 }, () => ask("ann")));
    const passed = answers.filter(({ status }) => status === 200);
    expect(passed).toHaveLength(3);
    for (const { headers } of passed) {
      expect(headers["ratelimit-policy"]).toBe('"chat_stream";q=3;w=3600');
      expect(headers["ratelimit"]).toMatch(/^"chat_stream";r=[0-2];t=\d+$/);
    }
    for (const answer of answers.filter(({ status }) => status !== 200))
      expectLimited(answer, "chat_stream", 3, HOUR);
    expect((await ask("bob")).status).toBe(200);
    // Bad requests cost nothing: the limit is taken with the effect.
    const seen = (await snapshot()).rateLimitPressure.byBucketOutcome;
    expect(seen["chat_stream:blocked"]).toBe(3);
    aheadMs += HOUR;
    expect((await ask("ann")).status).toBe(200);
  });

  test("refused leave no thread, no message and no claim behind", async () => {
    await set({ RATE_LIMIT_CHAT_STREAM_MAX: "1", RATE_LIMIT_CHAT_STREAM_WINDOW_MS: HOURLY });
    const client = await clientOf(backend, "cleo");
    const threads = async () => (await client.query(api.threads.list, {})).length;
    const key = { "idempotency-key": "refused-1" };
    expect((await ask("cleo")).status).toBe(200);
    expect((await ask("cleo", key)).status).toBe(429);
    expect(await threads()).toBe(1);
    aheadMs += HOUR;
    const later = await ask("cleo", key);
    expect([later.status, later.headers["x-idempotent-replay"]]).toEqual([200, undefined]);
    expect(await threads()).toBe(2);
  });

  test("of one address are limited, unless the address is only a claim", async () => {
    await set({ RATE_LIMIT_ADDRESS_MAX: "2", RATE_LIMIT_ADDRESS_WINDOW_MS: HOURLY });
    for (const user of ["u1", "u2"]) expect((await ask(user)).status).toBe(200);
    expectLimited(await ask("u3"), "chat_address", 2, HOUR);
    // A forwarded header that nobody vouches for neither helps nor harms: only the backstop counts.
    for (const address of ["9.9.9.1", "9.9.9.2", "127.0.0.1"])
      expect((await ask("u4", { "x-forwarded-for": address })).status).toBe(200);
  });

  test("behind a proxy are told apart by what the proxy saw, not by what clients say", async () => {
    await set({
      RATE_LIMIT_ADDRESS_MAX: "2",
      RATE_LIMIT_ADDRESS_WINDOW_MS: HOURLY,
      TRUSTED_PROXY_HOPS: "1",
    });
    const from = (said: string, seen: string) =>
      ask(`p-${said}`, { "x-forwarded-for": said === "" ? seen : `${said}, ${seen}` });
    for (const said of ["", "8.8.8.8"]) expect((await from(said, "5.5.5.5")).status).toBe(200);
    for (const said of ["1.2.3.4", "5.5.5.6", "::1, 7.7.7.7"])
      expectLimited(await from(said, "5.5.5.5"), "chat_address", 2, HOUR);
    expect((await from("5.5.5.5", "6.6.6.6")).status).toBe(200);
  });

  test("beyond the day's tokens are refused until the next day", async () => {
    await set({ CHAT_TOKENS_PER_DAY: "1500" });
    const first = await ask("dan");
    const usage = parseFrames(first.text).find(({ event }) => event.type === "usage");
    expect(usage?.event).toMatchObject({ estimated: false });
    // The reservation was trued up to what was used, so there is room again.
    let last = await ask("dan");
    for (let i = 0; i < 20 && last.status === 200; i++) last = await ask("dan");
    expect(refusal(last)).toEqual([429, "rate_limited"]);
    expect(problemOf(last).detail).toMatch(/budget/);
    expect(last.headers["ratelimit-policy"]).toBe('"chat_tokens_day";q=1500;w=86400');
    expect((await ask("dora")).status).toBe(200);
    aheadMs += 24 * HOUR;
    expect((await ask("dan")).status).toBe(200);
  });
});

describe("webhooks", () => {
  test("of one sender are limited, duplicates apart", async () => {
    await set({ RATE_LIMIT_WHATSAPP_MAX: "2", RATE_LIMIT_WHATSAPP_WINDOW_MS: HOURLY });
    expect((await deliverOne()).status).toBe(200);
    expect((await deliverOne()).status).toBe(200);
    expectLimited(await deliverOne(), "whatsapp_webhook", 2, HOUR);
    deliveries -= 2;
    const again = await deliverOne();
    expect([again.status, again.headers["x-idempotent-replay"]]).toEqual([200, "1"]);
    // Spoofed addresses are held by the backstop alone.
    deliveries += 1;
    expect((await deliverOne({ "x-forwarded-for": "1.1.1.1" })).status).toBe(200);
    deliveries += 5;
  });

  test("of Gmail are limited, and a refused push is new when it comes again", async () => {
    await set({ RATE_LIMIT_GMAIL_PUSH_MAX: "1", RATE_LIMIT_GMAIL_PUSH_WINDOW_MS: HOURLY });
    expect((await pushOne(1)).status).toBe(200);
    expectLimited(await pushOne(2), "gmail_push", 1, HOUR);
    aheadMs += HOUR;
    const later = await pushOne(2);
    expect([later.status, later.headers["x-idempotent-replay"]]).toEqual([200, undefined]);
  });

  test("any number of forged senders share the backstop", async () => {
    await set({ RATE_LIMIT_GLOBAL_MAX: "10", RATE_LIMIT_GLOBAL_WINDOW_MS: HOURLY });
    const answers = [];
    for (let i = 0; i < 20; i += 1)
      answers.push(
        await deliverOne({
          "x-forwarded-for": `10.1.${i}.1`,
          "cf-connecting-ip": `10.2.${i}.1`,
          forwarded: `for=10.3.${i}.1`,
        }),
      );
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(10);
    for (const answer of answers.slice(10)) expectLimited(answer, "global", 10, HOUR);
    // The backstop holds the other routes as well.
    expectLimited(await ask("eve"), "global", 10, HOUR);
    expectLimited(await pushOne(77), "global", 10, HOUR);
  });
});

test("a full pool is 503 with Retry-After, and free again when its turns end", async () => {
  await set({ BULKHEAD_OR_PRI_MAX_CONCURRENT: "1", BULKHEAD_OR_SEC_MAX_CONCURRENT: "1" });
  const hold = async (user: string) => {
    const response = await postChat(
      backend,
      { message: { content: "[[words:3000]] [[slow:100]] hold" } },
      { user },
    );
    const first = await response.body?.getReader().read();
    return startOf(parseFrames(new TextDecoder().decode(first?.value)));
  };
  const held = [await hold("h1"), await hold("h2")];
  const refused = await ask("h3");
  expect(refusal(refused)).toEqual([503, "overloaded"]);
  expect(refused.headers["retry-after"]).toMatch(/^[1-9]\d*$/);
  expect((await snapshot()).bulkheads.activeLeaseCount).toBe(2);
  await Promise.all(
    held.map(async ({ streamId }, i) => {
      const client = await clientOf(backend, `h${i + 1}`);
      await client.mutation(api.streamSessions.abort, { streamId });
    }),
  );
  await until(snapshot, ({ bulkheads }) => bulkheads.activeLeaseCount === 0);
  expect((await ask("h3")).status).toBe(200);
});

test("a provider that fails opens its circuit: 503 until the cooldown, then one probe", async () => {
  await set({
    CIRCUIT_OPENROUTER_PRIMARY_THRESHOLD: "2",
    CIRCUIT_OPENROUTER_SECONDARY_THRESHOLD: "2",
    CIRCUIT_OPENROUTER_PRIMARY_COOLDOWN_MS: String(10 * MINUTE),
    CIRCUIT_OPENROUTER_SECONDARY_COOLDOWN_MS: String(10 * MINUTE),
  });
  await backend.fault("openrouter", { status: 503 });
  // Each turn fails on both routes.
  for (let i = 0; i < 2; i++)
    expect(terminals(await chat(backend, "hi")).map(({ event }) => event.code)).toEqual([
      "upstream_unavailable",
    ]);
  const open = await ask("finn");
  expect(refusal(open)).toEqual([503, "upstream_unavailable"]);
  expect(Number(open.headers["retry-after"])).toBeGreaterThan(0);
  const states = (await snapshot()).circuitBreakers.recent.filter(({ provider }) =>
    provider.startsWith("openrouter_chat"),
  );
  expect(states.map(({ state }) => state)).toEqual(["open", "open"]);
  // Nobody is asked while the circuit is open.
  await backend.resetFaults();
  await ask("finn");
  const { providers } = await backend.control<{
    providers: Record<string, { requests: number }>;
  }>("state");
  expect(providers["openrouter"]?.requests).toBe(0);
  aheadMs += 10 * MINUTE;
  expect(terminals(parseFrames((await ask("finn")).text)).map(({ event }) => event.type)).toEqual([
    "done",
  ]);
  expect((await ask("finn")).status).toBe(200);
});

test("limits that are no numbers fall back to the defaults and are reported", async () => {
  await set({ RATE_LIMIT_CHAT_STREAM_MAX: "2000", TRUSTED_PROXY_HOPS: "" });
  const { headers } = await ask("gus");
  expect(headers["ratelimit-policy"]).toBe('"chat_stream";q=30;w=300');
  const { configWarnings } = await backend.operator<{
    configWarnings: { name: string; used: string }[];
  }>("ops:getReliabilitySnapshot");
  expect(configWarnings).toContainEqual(
    expect.objectContaining({ name: "RATE_LIMIT_CHAT_STREAM_MAX", used: "30" }),
  );
});

test("a wrong value of a setting that guards closes what it guards", async () => {
  await set({ TRUSTED_PROXY_HOPS: "many" });
  expect(refusal(await ask("hal"))).toEqual([500, "misconfigured"]);
  expect(refusal(await deliverOne())).toEqual([500, "misconfigured"]);
  await set({ TRUSTED_PROXY_HOPS: "0", ALLOWED_ORIGINS: "not an origin" });
  expect(refusal(await ask("hal", { origin: "http://localhost:3000" }))).toEqual([
    500,
    "misconfigured",
  ]);
  await set({ ALLOWED_ORIGINS: "", CHAT_MODEL_ALLOWLIST: "%%%" });
  const response = await postChat(backend, { message: { content: "hi" }, modelId: "x/y" });
  expect([response.status, response.headers.get("x-error-code")]).toEqual([500, "misconfigured"]);
});
