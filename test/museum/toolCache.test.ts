import { expect, test, vi } from "vitest";
import { internal } from "../../convex/_generated/api";
import { MINUTE } from "../../src/core/time";
import { errorData } from "../../src/errors/appError";
import { jsonResponse, virtualIo } from "../../src/providers/testing";
import { parseToolArgs } from "../../src/tools/definitions";
import { runTool } from "../../src/tools/executors";
import { runJob } from "../../src/tools/jobClient";
import { backend, type Backend, START_MS, useStillClock } from "../edge/backend";

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

test("the original cut a value that was too large into half a JSON text: here it is refused", async () => {
  const t = backend();
  const value = JSON.stringify({ text: "x".repeat(65_536) });
  expect(await set(t, value)).toBeNull();
  expect(await lookup(t)).toBeNull();
});

test("convex action-cache, and the original: of 20 concurrent misses one asks, and who comes late has its result", async () => {
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

test("action-cache#6: an answer past its time is there while it is renewed, without a gap", async () => {
  const t = backend();
  await set(t, "old");
  vi.setSystemTime(START_MS + MINUTE);
  expect(await lookup(t)).toMatchObject({ freshness: "stale", value: "old" });
  await set(t, "new");
  expect(await lookup(t)).toMatchObject({ freshness: "fresh", value: "new" });
});

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
    truncated: false,
  });
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

test("the original called a search complete whose sources were all down: here that is a failure, and one that is down is named", async () => {
  expect(await products(() => jsonResponse({}, { status: 503 }))).toBe("upstream_unavailable");
  const oneDown = await products((host) =>
    host.includes("ebay")
      ? jsonResponse({ total: 0 })
      : jsonResponse({ error: "down" }, { status: 503 }),
  );
  expect(oneDown).toEqual({ kind: "partial", missing: ["global_search"] });
});

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
          return { status: "running", resultJson: null };
        },
      },
      { firstMs: 250, waitMs: 8_000, waitForRetry: true },
    ),
  );
  expect([outcome.kind, looks]).toEqual(["timeout", 6]);
});
