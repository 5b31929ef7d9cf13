import { expect, test } from "vitest";
import { callProvider, type Gate, type ProviderRequest } from "../../src/providers/call";
import { type FetchScript, jsonResponse, virtualIo } from "../../src/providers/testing";
import { RETRY_BUDGET_FLOOR, statusVerdict } from "../../src/providers/table";
import { parseToolArgs } from "../../src/tools/definitions";
import { runTool } from "../../src/tools/executors";
import { internal } from "../../convex/_generated/api";
import { backend } from "../edge/backend";
import { permit, PROVIDER } from "./guards";

const ENV = { SERPER_API_KEY: "key-of-the-test-1234", SERPER_BASE_URL: "https://serper.example/" };

async function call(
  script: FetchScript,
  request: Partial<ProviderRequest<unknown>> = {},
  mayRetry = true,
) {
  const { io, run } = virtualIo(script, 0);
  const asked: string[] = [];
  const gate: Gate = {
    async admit() {
      asked.push(`admitted before request ${io.requests.length + 1}`);
      return { ok: true, permit: "permit" };
    },
    mayRetry: async () => mayRetry,
    settle: async () => void asked.push("settled"),
  };
  const { fetch, now, random, sleep } = io;
  const startedMs = io.now();
  const work = callProvider(
    gate,
    { provider: "serper_search", method: "GET", path: "/", parse: ({ json }) => json, ...request },
    { fetch, now, random, sleep, env: ENV },
  );
  await run(work.catch(() => undefined));
  return { asked, requests: io.requests.length, slept: io.slept, tookMs: io.now() - startedMs };
}

const always =
  (status: number, headers: Record<string, string> = {}): FetchScript =>
  async () =>
    jsonResponse({}, { status, headers });

// Source: zeromicro/go-zero#5011
test("go-zero#5011: a call is counted before it is sent", async () => {
  const { asked } = await call(always(200));
  expect(asked).toEqual(["admitted before request 1", "settled"]);
  // What is under way counts against the budget of retries before any of it has ended.
  const t = backend();
  const permits = await Promise.all(Array.from({ length: 12 }, () => permit(t)));
  const granted = await Promise.all(
    permits.map(({ slotId }) =>
      t.query(internal.outbound.mayRetry, { provider: PROVIDER, slotId, attempts: 1 }),
    ),
  );
  expect(granted.filter(Boolean)).toHaveLength(RETRY_BUDGET_FLOOR);
});

// Source: W2-57
test("the original ignored Retry-After", async () => {
  // The jitter on top of what was asked for is none at all here.
  expect((await call(always(503, { "retry-after": "2" }))).slept).toEqual([2_000, 2_000]);
  // One that lies beyond the deadline is not waited for, let alone cut short.
  expect(await call(always(503, { "retry-after": "60" }))).toMatchObject({
    requests: 1,
    slept: [],
  });
});

// Source: W2-57
test("the original repeated a POST that may not happen twice", async () => {
  const { requests } = await call(always(503), { method: "POST" });
  expect(requests).toBe(1);
});

// Source: W2-57
test("the original repeated a conflict, which repeating does not solve", async () => {
  expect((await call(always(409))).requests).toBe(1);
  expect(statusVerdict(409)).toBe("neutral");
});

// Source: W2-57
test("the original had no deadline over all attempts together", async () => {
  const slow: FetchScript = async (_n, init, io) => {
    await io.sleep(60_000, init.signal ?? undefined);
    throw new TypeError("aborted");
  };
  const { requests, tookMs } = await call(slow);
  expect([requests, tookMs]).toEqual([2, 10_000]);
});

// Source: W2-57
test("the original had no retry budget: a provider in trouble got three times its traffic", async () => {
  expect((await call(always(503), {}, false)).requests).toBe(1);
  const t = backend();
  await t.run(async (ctx) => {
    const tally = { g: 0, w: Date.now(), c: { c: 100, r: 10 } };
    await ctx.db.insert("slots", { p: "serper_search", i: 0, e: 0, f: 1, t: tally });
  });
  expect(await t.query(internal.outbound.mayRetry, { provider: "serper_search" })).toBe(false);
});

// Source: W2-56
test("the original fetched a new access token for every search", async () => {
  const t = backend();
  const paths: string[] = [];
  const { io, run } = virtualIo(async (_call, _init, { requests }) => {
    const { hostname, pathname } = new URL(requests.at(-1)?.url ?? "");
    if (hostname.includes("ebay")) paths.push(pathname.split("/")[1] ?? "");
    return jsonResponse(
      pathname.endsWith("/token") ? { access_token: "t", expires_in: 7_200 } : { total: 0 },
    );
  });
  const gate: Gate = {
    admit: async () => ({ ok: true, permit: 1 }),
    mayRetry: async () => false,
    settle: async () => undefined,
  };
  const tokens = {
    load: async (name: string) =>
      (await t.query(internal.outbound.loadToken, { name }))?.token ?? null,
    // Kept by the table's clock, which is not that of the script.
    store: async (name: string, token: string, expiresAtMs: number) => {
      const lifeMs = expiresAtMs - io.now();
      await t.mutation(internal.outbound.storeToken, {
        name,
        token,
        expiresAtMs: Date.now() + lifeMs,
      });
    },
  };
  const env = { EBAY_CLIENT_ID: "id", EBAY_CLIENT_SECRET: "secret", SERPAPI_API_KEY: "key" };
  const parsed = parseToolArgs("search_products", { query: "chair" });
  if (!parsed.ok) throw new Error(parsed.problem);
  for (let search = 0; search < 3; search++)
    await run(runTool("search_products", parsed.args, { gate, tokens, io: { ...io, env } }));
  expect(paths).toEqual(["identity", "buy", "buy", "buy"]);
});
