import {
  type FunctionReference,
  type FunctionType,
  type FunctionVisibility,
  getFunctionName,
} from "convex/server";
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { internal } from "../../convex/_generated/api";
import { chatFunctions } from "../../convex/model/chatFunctions";
import { runClaim } from "../../src/channels/chat/claimRunner";
import type { Claim, Ctx } from "../../src/channels/chat/functions";
import { runToolCall } from "../../src/channels/chat/toolRunner";
import type { ToolOutcome } from "../../src/channels/chat/toolTurn";
import type { Env } from "../../src/config/env";
import { HOUR, MINUTE, SECOND } from "../../src/core/time";
import { backend, type Backend, START_MS, useStillClock } from "./backend";
import { drive, STEP_MS } from "./drive";

useStillClock();

const KEYS: Env = {
  SERPER_API_KEY: "serper-key",
  SERPAPI_API_KEY: "serpapi-key",
  EBAY_CLIENT_ID: "ebay-id",
  EBAY_CLIENT_SECRET: "ebay-secret",
  TOOL_JOB_MAX_ATTEMPTS: "1",
};

/** Requests that reached a provider, by host, and what it answers. */
let asked: string[] = [];
let answers: (host: string) => Response;
const web = (title = "hit") =>
  Response.json({ organic: [{ title, link: "https://x.example", snippet: "s" }] });
const refusal = () => Response.json({ message: "no" }, { status: 400 });
const down = () => Response.json({}, { status: 503 });

beforeAll(async () => {
  // Loaded when first called, which takes longer than the clock would wait.
  const t = backend();
  await t.query(internal.toolCache.get, { namespace: "", key: "" });
  await t.query(internal.outbound.mayRetry, { provider: "" });
  await t.mutation(internal.toolJobs.cleanupExpired, {});
});
beforeEach(() => {
  asked = [];
  answers = () => web();
  vi.stubGlobal("fetch", async (url: string) => {
    const { hostname } = new URL(url);
    asked.push(hostname);
    return answers(hostname);
  });
  variables = {};
  set(KEYS);
});
afterEach(() => {
  vi.unstubAllGlobals();
});

let variables: Env = {};

/** Sets variables for functions, and for what a turn itself reads. */
function set(env: Env): void {
  variables = { ...variables, ...env };
  for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
}

const at = (ms: number) => vi.setSystemTime(START_MS + ms);

interface Turn {
  readonly t: Backend;
  /** Functions called, in order: each of them is billed. */
  readonly calls: string[];
  /** When jobs were looked at, in milliseconds from the start. */
  readonly looksAtMs: number[];
  readonly call: (more?: {
    readonly tool?: string;
    readonly query?: string;
    readonly deadlineAtMs?: number;
  }) => Promise<ToolOutcome>;
  readonly abort: () => void;
  /** Waits for what the turn left to be done before its action ends. */
  readonly end: () => Promise<void>;
}

type Run = (
  reference: FunctionReference<FunctionType, FunctionVisibility>,
  args: unknown,
) => Promise<unknown>;

/** A turn that calls tools through the real functions; `refuse` may break one of them. */
function turn(t: Backend, refuse: (name: string) => Error | null = () => null): Turn {
  const calls: string[] = [];
  const looksAtMs: number[] = [];
  const counted = (run: unknown): Run => {
    const real = run as Run;
    return async (reference, args) => {
      const name = getFunctionName(reference);
      calls.push(name);
      if (name === "toolJobs:get") looksAtMs.push(Date.now() - START_MS);
      const error = refuse(name);
      if (error !== null) throw error;
      return await real(reference, args);
    };
  };
  const ctx = {
    runQuery: counted(t.query),
    runMutation: counted(t.mutation),
    scheduler: { runAfter: vi.fn() },
  } as unknown as Ctx;
  const abort = new AbortController();
  const deferred: Promise<unknown>[] = [];
  return {
    t,
    calls,
    looksAtMs,
    abort: () => {
      abort.abort();
    },
    call: async ({ tool = "search_web", query = "Tides", deadlineAtMs = Infinity } = {}) =>
      await drive(
        runToolCall(
          { index: 0, id: "c1", name: tool, argumentsText: "", arguments: { query } },
          {
            ctx,
            env: variables,
            functions: chatFunctions,
            source: "chat_http",
            signal: abort.signal,
            deadlineAtMs,
            defer: (work) => deferred.push(work),
          },
        ),
      ),
    end: async () => {
      await drive(Promise.allSettled(deferred));
    },
  };
}

const AT = { namespace: "search_web_v1", key: "q=tides&limit=10" };
const old = (t: Backend, value = '{"query":"Tides","results":[]}') =>
  t.mutation(internal.toolCache.set, { ...AT, value, ttlMs: MINUTE });
const entry = (t: Backend) => t.query(internal.toolCache.lookup, AT);
const jobs = (t: Backend) => t.run((ctx) => ctx.db.query("toolJobs").take(100));
const statuses = async (t: Backend) =>
  await Promise.all(
    (await jobs(t)).map(
      async ({ _id }) => (await t.query(internal.toolJobs.get, { jobId: _id }))?.status,
    ),
  );
const textOf = ({ text }: ToolOutcome) => JSON.parse(text) as Record<string, unknown>;
const used = ({ cacheUse }: ToolOutcome) =>
  Object.entries(cacheUse ?? {}).flatMap(([name, count]) => (count === 1 ? [name] : []));

/** Runs the jobs that workers were started with. */
async function work(t: Backend): Promise<number> {
  const ctx = { runQuery: t.query, runMutation: t.mutation } as unknown as Ctx;
  const scheduled = await t.run((db) => db.db.system.query("_scheduled_functions").take(100));
  const claims = scheduled
    .filter(({ name }) => name.startsWith("toolRuns"))
    .flatMap(({ args }) => (args[0] as { claims: Claim[] }).claims);
  for (const claim of claims)
    await drive(runClaim(claim, { ctx, env: variables, functions: chatFunctions }));
  return claims.length;
}

describe("a call whose answer is fresh", () => {
  test("is one query, and its miss before asked once and stored it", async () => {
    const { call, calls, t } = turn(backend());
    const miss = await call({ query: "  TIDES " });
    expect([miss.kind, used(miss), asked]).toEqual(["result", ["misses"], ["google.serper.dev"]]);
    expect(calls).toEqual([
      "toolCache:lookup",
      "toolJobs:enqueue",
      "outbound:admit",
      "outbound:settle",
      "toolJobs:complete",
    ]);
    calls.length = 0;
    const hit = await call();
    expect(calls).toEqual(["toolCache:lookup"]);
    expect(hit).toEqual({ ...miss, cacheUse: { ...miss.cacheUse, hits: 1, misses: 0 } });
    expect(await entry(t)).toMatchObject({ freshness: "fresh", value: hit.text });
  });

  test.each([
    ["search_web", { TOOL_CACHE_WEB_SEARCH_TTL_MS: "6000" }, 6 * SECOND],
    ["search_web", {}, 5 * MINUTE],
    ["search_global", { TOOL_CACHE_PRODUCT_SEARCH_TTL_MS: "7000" }, 7 * SECOND],
  ])("of %s stays so as long as %o says", async (tool, env, ttlMs) => {
    set(env);
    answers = () =>
      tool === "search_web"
        ? web()
        : Response.json({
            search_metadata: { status: "Success" },
            shopping_results: [{ title: "a", product_link: "https://x.example" }],
          });
    const { call } = turn(backend());
    await call({ tool });
    at(ttlMs - 1);
    expect(used(await call({ tool }))).toEqual(["hits"]);
    at(ttlMs);
    expect(used(await call({ tool }))).toEqual(["stale"]);
  });

  test("under another version of its namespace is no answer", async () => {
    const { call } = turn(backend());
    await call();
    set({ TOOL_CACHE_WEB_SEARCH_NAMESPACE_VERSION: "v2" });
    expect((await call()).cacheUse).toMatchObject({ namespace: "search_web_v2", misses: 1 });
    expect(asked).toHaveLength(2);
  });

  test("in a cache that cannot be read is asked for", async () => {
    const { call, t } = turn(backend(), (name) =>
      name === "toolCache:lookup" ? new Error("no") : null,
    );
    expect((await call()).kind).toBe("result");
    expect(await entry(t)).toMatchObject({ freshness: "fresh" });
  });

  test("since the caller looked comes in place of a job", async () => {
    const t = backend();
    await old(t, '{"n":1}');
    const { call } = turn(t, (name) => (name === "toolCache:lookup" ? new Error("no") : null));
    expect(await call()).toMatchObject({ kind: "result", text: '{"n":1}', degraded: false });
    expect([asked, await jobs(t)]).toEqual([[], []]);
  });
});

describe("a call whose answer is stale", () => {
  test("is served at once while one job renews it, however many call", async () => {
    const t = backend();
    await old(t);
    at(MINUTE);
    answers = () => web("renewed");
    for (let i = 0; i < 10; i++) {
      const { call, end } = turn(t);
      const outcome = await call();
      expect(outcome).toMatchObject({ kind: "result", degraded: false });
      expect(textOf(outcome)).toEqual({ query: "Tides", results: [] });
      expect(used(outcome)).toEqual(["stale"]);
      await end();
    }
    expect([(await jobs(t)).length, asked]).toEqual([1, []]);
    expect(await work(t)).toBe(1);
    expect(asked).toHaveLength(1);
    const after = await turn(t).call();
    expect([used(after), textOf(after)["results"]]).toEqual([
      ["hits"],
      [expect.objectContaining({ title: "renewed" })],
    ]);
  });

  test("is not renewed again right after that failed", async () => {
    const t = backend();
    await old(t);
    at(MINUTE);
    answers = refusal;
    const first = turn(t);
    await first.call();
    await first.end();
    await work(t);
    const { call, calls, end } = turn(t);
    expect(await call()).toMatchObject({ kind: "result", degraded: false });
    await end();
    expect(calls).toEqual(["toolCache:lookup"]);
    at(2 * MINUTE);
    await call();
    await end();
    expect(calls).toEqual(["toolCache:lookup", "toolCache:lookup", "toolJobs:enqueue"]);
  });

  test("is served where its renewal cannot even be asked for", async () => {
    const t = backend();
    await old(t);
    at(MINUTE);
    const { call, end } = turn(t, (name) =>
      name === "toolJobs:enqueue" ? new Error("broken") : null,
    );
    expect(await call()).toMatchObject({ kind: "result", degraded: false });
    await end();
  });

  test("is asked for where no window is open", async () => {
    set({ TOOL_CACHE_REVALIDATE_MS: "0" });
    const t = backend();
    await old(t);
    at(MINUTE);
    expect(used(await turn(t).call())).toEqual(["misses"]);
    expect(asked).toHaveLength(1);
  });
});

const OLD_MS = 3 * HOUR;
const NOTE =
  "The search could not be repeated just now. These results are from 3 hours ago; say so.";

/** A backend that holds an old answer, three hours later. */
async function withOldAnswer(): Promise<Backend> {
  const t = backend();
  await old(t);
  at(OLD_MS);
  return t;
}

const DEGRADED = { query: "Tides", results: [], note: NOTE };

describe("an old answer stands in, marked as degraded, when", () => {
  test.each([
    ["the provider refuses", refusal],
    ["the provider is down", down],
    ["nothing answers", () => Response.error()],
  ])("%s", async (_, answer) => {
    answers = answer;
    const outcome = await turn(await withOldAnswer()).call();
    expect(outcome).toMatchObject({ kind: "result", degraded: true });
    expect(textOf(outcome)).toEqual(DEGRADED);
    expect(used(outcome)).toEqual(["degraded"]);
  });

  test("the first attempt failed: the next one is not waited for", async () => {
    set({ TOOL_JOB_MAX_ATTEMPTS: "2", TOOL_JOB_RETRY_BASE_MS: "60000" });
    answers = down;
    const t = await withOldAnswer();
    // A pause that chance makes short would be over before the look at the job.
    vi.spyOn(Math, "random").mockReturnValue(0.99);
    const { call, calls } = turn(t);
    expect(await call()).toMatchObject({ degraded: true });
    expect(calls).not.toContain("toolJobs:get");
    expect(await statuses(t)).toEqual(["queued"]);
  });

  test("another turn's attempt failed: the next one is not waited for either", async () => {
    set({ TOOL_JOB_MAX_ATTEMPTS: "3", TOOL_JOB_RETRY_BASE_MS: "60000" });
    answers = down;
    const t = await withOldAnswer();
    vi.spyOn(Math, "random").mockReturnValue(0.99);
    await turn(t).call();
    asked = [];
    const { call, looksAtMs } = turn(t);
    expect(await call()).toMatchObject({ kind: "result", degraded: true });
    expect([looksAtMs.length, asked]).toEqual([1, []]);
    expect(await statuses(t)).toEqual(["queued"]);
  });

  test("the breaker is open", async () => {
    set({ CIRCUIT_SERPER_THRESHOLD: "1", CIRCUIT_SERPER_COOLDOWN_MS: "600000" });
    const t = await withOldAnswer();
    answers = down;
    await turn(t).call({ query: "another" });
    expect(asked.length).toBeGreaterThan(0);
    asked = [];
    expect(await turn(t).call()).toMatchObject({ kind: "result", degraded: true });
    expect(asked).toEqual([]);
  });

  test("the bulkhead is full", async () => {
    set({ BULKHEAD_SERPER_MAX_CONCURRENT: "1" });
    const t = await withOldAnswer();
    await t.mutation(internal.outbound.admit, { provider: "serper_search" });
    expect(await turn(t).call()).toMatchObject({ kind: "result", degraded: true });
    expect(asked).toEqual([]);
  });

  test("the queue is saturated", async () => {
    set({ TOOL_JOB_RUNMAX_WEB: "1", TOOL_JOB_QMAX_WEB: "1" });
    const t = await withOldAnswer();
    await crowd(t, 2);
    expect(await turn(t).call()).toMatchObject({ kind: "result", degraded: true });
  });

  test("the queue takes too long", async () => {
    set({ TOOL_JOB_RUNMAX_WEB: "1", TOOL_JOB_WAIT_MS: "2000" });
    const t = await withOldAnswer();
    await crowd(t, 1);
    const { call, calls } = turn(t);
    expect(await call()).toMatchObject({ kind: "result", degraded: true });
    expect(calls.filter((name) => name === "toolJobs:get")).toHaveLength(6);
  });

  test("the queue itself is broken", async () => {
    const { call } = turn(await withOldAnswer(), (name) =>
      name === "toolJobs:enqueue" ? new Error("broken") : null,
    );
    expect(await call()).toMatchObject({ kind: "result", degraded: true });
  });

  test("asking failed a moment ago: then nobody is asked", async () => {
    const t = await withOldAnswer();
    answers = refusal;
    await turn(t).call();
    asked = [];
    const { call, calls } = turn(t);
    expect(await call()).toMatchObject({ kind: "result", degraded: true });
    expect([calls, asked]).toEqual([["toolCache:lookup"], []]);
    answers = () => web();
    vi.advanceTimersByTime(15 * SECOND);
    expect(await call()).toMatchObject({ kind: "result", degraded: false });
    expect(await entry(t)).toMatchObject({ freshness: "fresh" });
  });
});

test("an old answer past its window does not stand in", async () => {
  set({ TOOL_CACHE_STALE_ON_ERROR_MS: "3600000" });
  answers = refusal;
  expect((await turn(await withOldAnswer()).call()).kind).toBe("backpressure");
});

/** Other searches that hold or wait for slots and never end. */
async function crowd(t: Backend, count: number): Promise<void> {
  for (let i = 0; i < count; i++)
    await t.mutation(internal.toolJobs.enqueue, {
      source: "chat_http",
      toolName: "search_web",
      argsJson: `{"query":"q${i}","limit":1}`,
    });
}

describe("without an answer to fall back on", () => {
  test("a full queue is told as such", async () => {
    set({ TOOL_JOB_RUNMAX_WEB: "1", TOOL_JOB_QMAX_WEB: "1" });
    const t = backend();
    await crowd(t, 2);
    expect(await turn(t).call()).toMatchObject({
      kind: "backpressure",
      reason: "queue_saturated",
      retryAfterMs: 1_000,
      cacheUse: { misses: 1 },
    });
  });

  test.each([
    [{ TOOL_JOB_WAIT_MS: "4000", TOOL_JOB_POLL_MS: "100" }, 4_000, 1_000],
    [{ TOOL_JOB_WAIT_MS: "6000" }, 6_000, 1_500],
  ])("a queue that takes longer than %o is told as such", async (env, waitMs, retryAfterMs) => {
    set({ TOOL_JOB_RUNMAX_WEB: "1", ...env });
    const t = backend();
    await crowd(t, 1);
    expect(await turn(t).call()).toMatchObject({
      kind: "backpressure",
      reason: "queue_timeout",
      retryAfterMs,
    });
    expect(Date.now() - START_MS).toBeGreaterThanOrEqual(waitMs);
    expect(Date.now() - START_MS).toBeLessThan(waitMs + 2 * STEP_MS);
  });

  test.each([
    [{}, 250],
    [{ TOOL_JOB_POLL_MS: "1000" }, 1_000],
  ])("a queued job is first looked at when %o says", async (env, firstMs) => {
    set({ TOOL_JOB_RUNMAX_WEB: "1", TOOL_JOB_WAIT_MS: "3000", ...env });
    const t = backend();
    await crowd(t, 1);
    const { call, looksAtMs } = turn(t);
    await call();
    expect(looksAtMs[0]).toBeGreaterThanOrEqual(firstMs);
    expect(looksAtMs[0]).toBeLessThan(firstMs + STEP_MS);
    expect(looksAtMs.length).toBeLessThanOrEqual(6);
  });

  test("the wait ends with the turn", async () => {
    set({ TOOL_JOB_RUNMAX_WEB: "1" });
    const t = backend();
    await crowd(t, 1);
    await turn(t).call({ deadlineAtMs: START_MS + 2 * SECOND });
    expect(Date.now() - START_MS).toBeLessThan(2 * SECOND + 2 * STEP_MS);
  });

  test("a failure is remembered: the next turn does not ask again at once", async () => {
    const t = backend();
    answers = refusal;
    const failed = await turn(t).call();
    expect(failed).toMatchObject({
      kind: "backpressure",
      reason: "dead_letter",
      retryAfterMs: 1_500,
      cacheUse: { misses: 1 },
    });
    const { call, calls } = turn(t);
    const again = await call();
    expect(again).toMatchObject({
      kind: "backpressure",
      reason: "dead_letter",
      text: failed.text,
      cacheUse: { negative: 1, misses: 0 },
    });
    expect(again.kind === "backpressure" && again.retryAfterMs).toBeGreaterThan(14 * SECOND);
    expect([asked.length, calls]).toEqual([1, ["toolCache:lookup"]]);
    answers = () => web();
    vi.advanceTimersByTime(15 * SECOND);
    expect(await call()).toMatchObject({ kind: "result", degraded: false });
  });

  test("nor does one who looked before that failure, and comes after it", async () => {
    const t = backend();
    answers = refusal;
    await turn(t).call();
    const late = turn(t, (name) => (name === "toolCache:lookup" ? new Error("no") : null));
    const outcome = await late.call();
    expect(outcome).toMatchObject({ kind: "backpressure", reason: "dead_letter" });
    expect(outcome.kind === "backpressure" && outcome.retryAfterMs).toBeGreaterThan(14 * SECOND);
    expect([asked.length, late.calls]).toEqual([1, ["toolCache:lookup", "toolJobs:enqueue"]]);
    expect(await statuses(t)).toEqual(["dead_letter"]);
  });

  test("a queue lost to contention is told as full", async () => {
    const lost = new Error("OptimisticConcurrencyControlFailure");
    const { call } = turn(backend(), (name) => (name === "toolJobs:enqueue" ? lost : null));
    expect(await call()).toMatchObject({
      kind: "backpressure",
      reason: "queue_saturated",
      retryAfterMs: 2_000,
    });
    expect(asked).toEqual([]);
  });

  test("a fault of our own is not remembered", async () => {
    set({ SERPER_API_KEY: "" });
    const t = backend();
    expect((await turn(t).call()).kind).toBe("backpressure");
    expect(await entry(t)).toBeNull();
    set(KEYS);
    expect((await turn(t).call()).kind).toBe("result");
  });

  test("a search without a source is told to name it, and is asked for again", async () => {
    answers = (host) =>
      host.includes("serpapi")
        ? refusal()
        : host.includes("ebay")
          ? Response.json({
              access_token: "t",
              expires_in: 7_200,
              itemSummaries: [{ title: "a", itemWebUrl: "https://x.example" }],
            })
          : web();
    const { call } = turn(backend());
    for (let i = 0; i < 2; i++) {
      const outcome = await call({ tool: "search_products" });
      expect(outcome).toMatchObject({ degraded: true, cacheUse: { misses: 1 } });
      expect(textOf(outcome)["missing"]).toHaveLength(1);
    }
  });

  test("an empty search is told as such, and is asked for again", async () => {
    answers = () => Response.json({ organic: [], searchParameters: {} });
    const { call } = turn(backend());
    expect(await call()).toMatchObject({ kind: "result", degraded: false });
    expect(used(await call())).toEqual(["misses"]);
    expect(asked).toHaveLength(2);
  });
});

describe("a turn that is aborted", () => {
  test("does not wait for what it asked, which is stored for others all the same", async () => {
    const t = backend();
    const { abort, call, end } = turn(t);
    let answer: (response: Response) => void = () => undefined;
    vi.stubGlobal(
      "fetch",
      async () =>
        await new Promise<Response>((resolve) => {
          answer = resolve;
          abort();
        }),
    );
    expect((await call()).kind).toBe("failed");
    answer(web());
    await end();
    expect(await entry(t)).toMatchObject({ freshness: "fresh" });
    expect(await statuses(t)).toEqual(["completed"]);
  });

  test("asks for nothing more", async () => {
    const { abort, call, calls } = turn(backend());
    abort();
    expect((await call()).kind).toBe("failed");
    expect(calls).toEqual(["toolCache:lookup"]);
  });
});

describe("a job that its caller runs", () => {
  test("may take longer than its lease, which is kept meanwhile", async () => {
    set({ TOOL_JOB_LEASE_MS: "5000" });
    vi.stubGlobal(
      "fetch",
      async () =>
        await new Promise<Response>((resolve) => {
          setTimeout(() => {
            resolve(web());
          }, 4_800);
        }),
    );
    const t = backend();
    const { call, calls } = turn(t);
    expect(await call()).toMatchObject({ kind: "result", degraded: false });
    expect(calls.filter((name) => name === "toolJobs:heartbeat").length).toBeGreaterThan(0);
    expect(await statuses(t)).toEqual(["completed"]);
  });

  test("lets go of what it asked when the job is cancelled", async () => {
    set({ TOOL_JOB_LEASE_MS: "6000" });
    const t = backend();
    let signal: AbortSignal | null | undefined = null;
    vi.stubGlobal("fetch", async (_: string, init: RequestInit) => {
      ({ signal } = init);
      const [job] = await jobs(t);
      if (job !== undefined) await t.mutation(internal.toolJobs.cancel, { jobId: job._id });
      return await new Promise<Response>(() => undefined);
    });
    const outcome = await turn(t).call();
    expect(outcome).toMatchObject({ kind: "backpressure", reason: "dead_letter" });
    expect(signal).toMatchObject({ aborted: true });
    expect(Date.now() - START_MS).toBeLessThan(3 * SECOND);
    expect(await statuses(t)).toEqual(["cancelled"]);
    expect(await entry(t)).toBeNull();
  });
});

test("a result whose report was lost to contention is given, and reported by the scheduler", async () => {
  const conflict = new Error("OptimisticConcurrencyControlFailure");
  const t = backend();
  const { call } = turn(t, (name) => (name === "toolJobs:complete" ? conflict : null));
  expect(await call()).toMatchObject({ kind: "result", degraded: false });
});

test("a provider is asked no longer than the turn lasts", async () => {
  vi.stubGlobal("fetch", async () => await new Promise<Response>(() => undefined));
  await turn(backend()).call({ deadlineAtMs: START_MS + 3 * SECOND });
  expect(Date.now() - START_MS).toBeLessThan(4 * SECOND);
});
