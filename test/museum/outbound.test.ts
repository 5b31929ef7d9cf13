import { expect, test } from "vitest";
import { callProvider, type Gate, type ProviderRequest } from "../../src/providers/call";
import { type FetchScript, jsonResponse, virtualIo } from "../../src/providers/testing";
import { statusVerdict } from "../../src/providers/table";
import { internal } from "../../convex/_generated/api";
import { backend } from "../edge/backend";

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

test("go-zero#5011: a call is counted before it is sent", async () => {
  const { asked } = await call(always(200));
  expect(asked).toEqual(["admitted before request 1", "settled"]);
});

test("the original ignored Retry-After", async () => {
  const { slept } = await call(always(503, { "retry-after": "2" }));
  expect(Math.min(...slept.filter((ms) => ms > 0))).toBeGreaterThanOrEqual(2_000);
});

test("the original repeated a POST that may not happen twice", async () => {
  const { requests } = await call(always(503), { method: "POST" });
  expect(requests).toBe(1);
});

test("the original repeated a conflict, which repeating does not solve", async () => {
  expect((await call(always(409))).requests).toBe(1);
  expect(statusVerdict(409)).toBe("neutral");
});

test("the original had no deadline over all attempts together", async () => {
  const slow: FetchScript = async (_n, init, io) => {
    await io.sleep(60_000, init.signal ?? undefined);
    throw new TypeError("aborted");
  };
  const { tookMs } = await call(slow);
  expect(tookMs).toBeLessThanOrEqual(10_000);
});

test("the original had no retry budget: a provider in trouble got three times its traffic", async () => {
  expect((await call(always(503), {}, false)).requests).toBe(1);
  const t = backend();
  await t.run(async (ctx) => {
    const tally = { g: 0, w: Date.now(), c: { c: 100, r: 10 } };
    await ctx.db.insert("slots", { p: "serper_search", i: 0, e: 0, f: 1, t: tally });
  });
  expect(await t.query(internal.outbound.mayRetry, { provider: "serper_search" })).toBe(false);
});

test("the original fetched a new access token for every search", async () => {
  const t = backend();
  const expiresAtMs = Date.now() + 60_000;
  await t.mutation(internal.outbound.storeToken, { name: "ebay", token: "t", expiresAtMs });
  expect(await t.query(internal.outbound.loadToken, { name: "ebay" })).toEqual({
    token: "t",
    expiresAtMs,
  });
});
