import { expect, test, vi } from "vitest";
import { internal } from "../../convex/_generated/api";
import * as Counts from "../../convex/model/toolCacheCounts";
import { MINUTE } from "../../src/core/time";
import { errorData } from "../../src/errors/appError";
import { jsonResponse, virtualIo } from "../../src/providers/testing";
import { oneUse } from "../../src/tools/cacheUse";
import { parseToolArgs } from "../../src/tools/definitions";
import { runTool } from "../../src/tools/executors";
import { runJob } from "../../src/tools/jobClient";
import { cachePolicy } from "../../src/tools/policy";
import { backend, type Backend, START_MS, useStillClock } from "../edge/backend";
import { begin, settle } from "../edge/chat";

useStillClock();

const AT = { namespace: "search_web_v1", key: "q=tides&limit=10" };

const set = (t: Backend, value: string) =>
  t.mutation(internal.toolCache.set, { ...AT, value, ttlMs: MINUTE });
const lookup = (t: Backend) => t.query(internal.toolCache.lookup, AT);
const enqueue = (t: Backend) =>
  t.mutation(internal.toolJobs.enqueue, {
    source: "chat_http",
    toolName: "search_web",
    argsJson: '{"query":"tides","limit":10}',
    workKey: `${AT.namespace}:${AT.key}`,
    cache: AT,
  });

// Source: W2-24
test("the original cut a value that was too large into half a JSON text: here it is refused", async () => {
  const t = backend();
  const value = JSON.stringify({ text: "x".repeat(65_536) });
  expect(await set(t, value)).toBeNull();
  expect(await lookup(t)).toBeNull();
});

// Source: get-convex/action-cache (single flight), W2-54
test("action-cache: of 20 concurrent misses one asks, and who comes late has its result", async () => {
  const t = backend();
  const looked = await Promise.all(Array.from({ length: 21 }, () => lookup(t)));
  expect(new Set(looked)).toEqual(new Set([null]));
  const asked = await Promise.all(Array.from({ length: 20 }, () => enqueue(t)));
  const claims = asked.flatMap((answer) => (answer.kind === "run" ? [answer.claim] : []));
  expect(claims).toHaveLength(1);
  expect(asked.filter((answer) => answer.kind === "waiting" && answer.joined)).toHaveLength(19);
  const [claim] = claims;
  if (claim === undefined) throw new Error("somebody asks");
  await t.mutation(internal.toolJobs.complete, {
    jobId: claim.jobId,
    fence: claim.fence,
    resultJson: '{"kind":"complete","value":"v"}',
    cache: { ...AT, ttlMs: MINUTE, value: "v" },
  });
  // This one looked before there was a result, and asks after the job is over.
  expect(await enqueue(t)).toEqual({ kind: "cached", value: "v" });
});

// Source: get-convex/action-cache#6
test("action-cache#6: an answer past its time is there while it is renewed, without a gap", async () => {
  const t = backend();
  await set(t, "old");
  vi.setSystemTime(START_MS + MINUTE);
  expect(await lookup(t)).toMatchObject({ freshness: "stale", value: "old" });
  await set(t, "new");
  expect(await lookup(t)).toMatchObject({ freshness: "fresh", value: "new" });
});

// Source: W2-49
test("the original read every value of the cache to count them: here none is read", async () => {
  const t = backend({ bytesRead: 32 * 1024 });
  for (let i = 0; i < 5; i++)
    await t.mutation(internal.toolCache.set, {
      namespace: AT.namespace,
      key: `q=${i}`,
      value: "x".repeat(65_536),
      ttlMs: MINUTE,
    });
  expect(await t.query(internal.toolCache.listNamespaceStats, {})).toEqual({
    sampledActiveEntries: 5,
    byNamespace: { [AT.namespace]: 5 },
    use: [],
    useFromMs: null,
    truncated: false,
  });
});

// Source: W2-54
test("the original did not know what its cache was good for, and kept no global search at all", async () => {
  const t = backend();
  const namespace = cachePolicy({}, "search_global")?.namespace ?? "none";
  for (const kind of ["hits", "hits", "stale", "degraded", "misses"] as const) {
    const { streamId } = await begin(t);
    await settle(t, streamId, { cacheUse: [oneUse(namespace, kind)] });
  }
  const seen = await t.run((ctx) => Counts.used(ctx, START_MS, 100));
  expect(seen.use).toEqual([
    { namespace: "search_global_v1", hits: 2, stale: 1, degraded: 1, misses: 1, negative: 0 },
  ]);
});

const KEYS = {
  SERPAPI_API_KEY: "shops",
  EBAY_CLIENT_ID: "ebay",
  EBAY_CLIENT_SECRET: "secret",
};

/** A product search whose sources answer by host. */
async function products(answer: (host: string) => Response) {
  vi.useRealTimers();
  const { io, run } = virtualIo(async (_, __, seen) =>
    answer(new URL(seen.requests.at(-1)?.url ?? "").hostname),
  );
  const parsed = parseToolArgs("search_products", { query: "chair" });
  if (!parsed.ok) throw new Error(parsed.problem);
  const gate = {
    admit: async () => ({ ok: true as const, permit: 1 }),
    mayRetry: async () => false,
    settle: async () => undefined,
  };
  const tokens = { load: async () => "token", store: async () => undefined };
  const work = runTool("search_products", parsed.args, {
    gate,
    tokens,
    io: { ...io, env: KEYS },
  });
  return await run(
    work.then(
      ({ kind, missing }) => ({ kind, missing }),
      (error: unknown) => errorData(error).code,
    ),
  );
}

// Source: W2-25
test("the original called a search complete whose sources were all down: here that is a failure, and one that is down is named", async () => {
  expect(await products(() => jsonResponse({}, { status: 503 }))).toBe("upstream_unavailable");
  const oneDown = await products((host) =>
    host.includes("ebay")
      ? jsonResponse({ total: 0 })
      : jsonResponse({ error: "down" }, { status: 503 }),
  );
  expect(oneDown).toEqual({ kind: "partial", missing: ["global_search"] });
});

// Source: W2-46
test("the original looked 32 times while it waited 8 seconds for a tool: here 6 times", async () => {
  vi.useRealTimers();
  const { io, run } = virtualIo(async () => new Response());
  let looks = 0;
  const outcome = await run(
    runJob(
      {
        now: io.now,
        sleep: io.sleep,
        signal: new AbortController().signal,
        enqueue: async () => ({ kind: "waiting", jobId: "j", joined: false }),
        run: async () => ({ kind: "failed" }),
        read: async () => {
          looks += 1;
          return { status: "running", resultJson: null, lastError: null };
        },
      },
      { firstMs: 250, waitMs: 8_000, waitForRetry: true },
    ),
  );
  expect([outcome.kind, looks]).toEqual(["timeout", 6]);
});
