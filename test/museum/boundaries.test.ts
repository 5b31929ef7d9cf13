import { beforeEach, expect, test, vi } from "vitest";
import { api } from "../../convex/_generated/api";
import { requireUserId } from "../../convex/model/access";
import { findKey, type KeySource, type StoredKeys } from "../../src/channels/gmail/googleKeys";
import { HOUR, MINUTE, SECOND } from "../../src/core/time";
import { errorData } from "../../src/errors/appError";
import { ROUTE_IDS, type RouteId, routeRow } from "../../src/http/routes";
import { at, post, testSite } from "../../src/http/testSite";
import { searchShops } from "../../src/providers/serpapi";
import { jsonResponse, virtualIo } from "../../src/providers/testing";
import {
  backend,
  type Backend,
  refused,
  settleAll,
  START_MS,
  useStillClock,
} from "../edge/backend";
import { append, begin, dana, settle } from "../edge/chat";

useStillClock();
beforeEach(() => {
  vi.stubEnv("GMAIL_PUBSUB_VERIFY_TOKEN", "shared");
  vi.spyOn(console, "log").mockImplementation(() => undefined);
});

const base64 = (text: string): string =>
  btoa(String.fromCharCode(...new TextEncoder().encode(text)));

async function push(t: Backend, emailAddress: string): Promise<number> {
  const data = base64(JSON.stringify({ emailAddress, historyId: 5 }));
  const response = await t.fetch("/api/gmail/push", {
    method: "POST",
    headers: { "content-type": "application/json", "x-pubsub-token": "shared" },
    body: JSON.stringify({ message: { data } }),
  });
  return response.status;
}

// Source: colinhacks/zod#3218, polarsource/polar#5806
test("zod#3218, polar#5806: a mailbox is pushed about whatever its address is written with", async () => {
  const t = backend();
  const addresses = [
    "charles'@example.com",
    "ivan@xn--e1afmkfd.xn--p1ai",
    '"dana smith"@example.com',
    "dana+news@example.com",
    "用户@例子.广告",
    "dana@example.internationalorganisation",
  ];
  for (const address of addresses)
    expect([address, await push(t, address)]).toEqual([address, 200]);
  await settleAll(t);
  const mailboxes = await t.run((ctx) => ctx.db.query("gmailMailboxes").collect());
  expect(mailboxes.map(({ emailAddress }) => emailAddress).sort()).toEqual(addresses.sort());
});

/** Claims that a rightly signed token may hold all the same. */
const NO_SUBJECTS = [7, 0, true, false, ["alice"], [], { id: "alice" }, "", "\ud800"];

// Source: jonasroussel/dart_jsonwebtoken#61
test("dart_jsonwebtoken#61: a subject that is no text is nobody where one is needed, and ignored elsewhere", async () => {
  const bodies: Partial<Record<RouteId, unknown>> = {
    chatPost: { message: { content: "hi" } },
    chatAbort: { threadId: "t", messageId: "m" },
    gmailPush: { message: { data: "e30=" } },
    whatsappReceive: { entry: [] },
  };
  for (const identity of NO_SUBJECTS)
    for (const id of ROUTE_IDS) {
      const { auth, method, path } = routeRow(id);
      const query = id === "chatStream" ? "?streamId=s" : "";
      const init = method === "POST" ? post(bodies[id]) : {};
      const { status } = await testSite({ identity }).send(at(`${path}${query}`, init));
      expect([identity, id, status]).toEqual([identity, id, auth.kind === "user" ? 401 : 200]);
    }
  for (const subject of NO_SUBJECTS) {
    const auth = { getUserIdentity: async () => ({ subject }) as never };
    await refused(requireUserId({ auth }), "unauthorized");
  }
});

// Source: serpapi/public-roadmap#1339
test("public-roadmap#1339: a price is in the currency of the country whose shops it is from, or in none", async () => {
  // The provider's clock is a virtual one.
  vi.useRealTimers();
  async function currencyOf(country: string | null, price: string): Promise<unknown> {
    const item = { title: "Chair", link: "https://shop.example/1", price, extracted_price: 1_299 };
    const { io, run } = virtualIo(async () => jsonResponse({ shopping_results: [item] }));
    const gate = {
      admit: async () => ({ ok: true as const, permit: 1 }),
      mayRetry: async () => false,
      settle: async () => undefined,
    };
    const env = { SERPAPI_API_KEY: "key", SERPAPI_BASE_URL: "https://serpapi.example" };
    const query = { query: "chair", limit: 1, country, minPrice: null, maxPrice: null };
    return (await run(searchShops(gate, query, { ...io, env })))[0]?.currency;
  }
  for (const [country, price, currency] of [
    ["MX", "$1,299.00", "MXN"],
    ["CA", "$1,299.00", "CAD"],
    ["BR", "R$ 1.299,00", "BRL"],
    ["DK", "1.299 kr.", "DKK"],
    ["SE", "1 299 kr", "SEK"],
    ["JP", "￥1,299", "JPY"],
    ["MX", "US$1,299.00", "USD"],
    ["AU", "US $1,299.00", "USD"],
    ["US", "$1,299.00 CDN", "CAD"],
    ["MX", "$1,299.00 (US$70)", "MXN"],
    ["US", "C $1,299.00", null],
    ["DE", "$1,299.00", null],
    [null, "$1,299.00", "USD"],
    [null, "¥1,299", null],
  ] as const)
    expect([country, price, await currencyOf(country, price)]).toEqual([country, price, currency]);
});

// Source: nodemailer/mailparser#72
test("mailparser#72: a semicolon between quotes is part of a parameter's value", async () => {
  const chat = { message: { content: "hi" } };
  for (const [type, status] of [
    ['application/json; x="a;b"', 200],
    ['application/json; x="a;charset=latin1"; charset=utf-8', 200],
    ['application/json; x="say \\"a;b\\""', 200],
    ["application/json; ; charset=UTF-8;", 200],
    ['application/json; x="a;b', 415],
    ['application/json; x="a"; charset=latin1', 415],
    ['text/plain; note="application/json"', 415],
  ] as const) {
    const answer = await testSite().send(at("/api/chat", post(chat, { "content-type": type })));
    expect([type, answer.status]).toEqual([type, status]);
  }
});

// Source: jdx/mr-boxington-cache#1
test("mr-boxington-cache#1: a key that is new within the pause between refreshes is not refused unasked", async () => {
  const key = (kid: string) => ({ kid, n: "n", e: "AQAB" });
  let published = [key("old")];
  let stored: StoredKeys | null = null;
  let nowMs = START_MS;
  let fetches = 0;
  const source: KeySource = {
    read: async () => stored,
    beginRefresh: async () => stored === null || nowMs - stored.attemptedAtMs >= MINUTE,
    fetch: async () => {
      fetches += 1;
      return { keys: published, freshUntilMs: nowMs + HOUR };
    },
    save: async (fetched) => {
      if (fetched !== null) stored = { ...fetched, attemptedAtMs: nowMs, fetchedAtMs: nowMs };
    },
    sleep: async () => undefined,
  };
  const refusalOf = async (kid: string) =>
    errorData(await findKey(source, kid, nowMs).catch((error: unknown) => error));
  expect((await findKey(source, "old", nowMs)).kid).toBe("old");
  published = [key("old"), key("new")];
  nowMs += 20 * SECOND;
  for (const kid of ["new", "made up", "new"])
    expect(await refusalOf(kid)).toMatchObject({
      code: "upstream_unavailable",
      retryAfterMs: 40 * SECOND,
    });
  expect(fetches).toBe(1);
  nowMs += 40 * SECOND;
  expect((await findKey(source, "new", nowMs)).kid).toBe("new");
  expect(fetches).toBe(2);
  nowMs += MINUTE;
  expect((await refusalOf("made up")).code).toBe("forbidden");
});

// Source: CherryHQ/cherry-studio#20614
test("cherry-studio#20614: half a character gets into no thread, so that no provider has to refuse it", async () => {
  const t = backend();
  const threadId = await dana(t).mutation(api.threads.create, {});
  for (const half of ["\ud83d", "hello \ude00", "\ude00\ud83d"]) {
    const sent = dana(t).mutation(api.messages.send, { threadId, content: half });
    const { code, issues } = errorData(await sent.catch((error: unknown) => error));
    expect([code, issues?.map(({ path }) => path)]).toEqual(["invalid_request", ["content"]]);
    await refused(dana(t).mutation(api.threads.create, { title: half }), "invalid_request");
  }
  await dana(t).mutation(api.messages.send, { threadId, content: "hello 😀" });
  const messages = await dana(t).query(api.messages.list, { threadId });
  expect(messages.map(({ content }) => content)).toEqual(["hello 😀"]);
});

// Source: dunglas/mercure#1321
test("mercure#1321: a reader with an id that its stream never gave is told so, and not that it missed nothing", async () => {
  const t = backend();
  const { streamId } = await begin(t);
  await append(t, streamId, 3, "Hello");
  const after = async (id: number) => {
    const headers = { "last-event-id": String(id) };
    const answer = await dana(t).fetch(`/api/chat/stream?streamId=${streamId}`, { headers });
    return [answer.status, answer.headers.get("x-error-code")];
  };
  // While it runs, an id that is yet to come; after its end, one that never comes.
  for (const id of [4, 5, 99, 999_999_999])
    expect(await after(id)).toEqual([400, "invalid_request"]);
  await settle(t, streamId, {}, { first: 4 });
  for (const id of [5, 99, 999_999_999]) expect(await after(id)).toEqual([400, "invalid_request"]);
  expect(await after(4)).toEqual([204, null]);
  expect(await after(3)).toEqual([200, null]);
  // A header without an id says nothing, so that the query's id counts.
  const both = async (header: string, id: string) => {
    const url = `/api/chat/stream?streamId=${streamId}&lastEventId=${id}`;
    const answer = await dana(t).fetch(url, { headers: { "last-event-id": header } });
    return answer.status;
  };
  expect(await both("", "4")).toBe(204);
  expect(await both(" ", "4")).toBe(204);
  expect(await both("", "99")).toBe(400);
  expect(await both("3", "99")).toBe(200);
  expect(await both("4", "")).toBe(204);
  expect(await both("", "")).toBe(200);
});
