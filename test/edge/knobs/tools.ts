/** The tool cache, the job queue, and what operators are told of it. */
import { vi } from "vitest";
import { internal } from "../../../convex/_generated/api";
import { chatFunctions } from "../../../convex/model/chatFunctions";
import type { Ctx } from "../../../src/channels/chat/functions";
import { runToolCall } from "../../../src/channels/chat/toolRunner";
import { env } from "../../../src/config/env";
import { configWarnings } from "../../../src/config/read";
import type { KnobName } from "../../../src/config/knobs";
import { MINUTE, SECOND } from "../../../src/core/time";
import type { QosClass, QueuedToolId } from "../../../src/tools/table";
import { advance, backend, type Backend, START_MS } from "../backend";
import { drive } from "../drive";
import { busy, complete, enqueue, fail, get, rows, run, wait } from "../jobs";
import { countUntil, given, type Proof, type Proofs } from "./proof";

const KEYS = {
  SERPER_API_KEY: "serper",
  SERPAPI_API_KEY: "serpapi",
  EBAY_CLIENT_ID: "ebay",
  EBAY_CLIENT_SECRET: "ebay",
};

/** Every provider finds one thing. */
const found = (): Response =>
  Response.json({
    access_token: "t",
    expires_in: 7_200,
    organic: [{ title: "a", link: "https://x.example", snippet: "s" }],
    total: 1,
    itemSummaries: [{ title: "a", itemWebUrl: "https://x.example" }],
    search_metadata: { status: "Success" },
    shopping_results: [{ title: "a", product_link: "https://x.example" }],
  });

/** One tool call of a turn, through the real functions. */
async function callTool(t: Backend, tool: QueuedToolId, answer = found) {
  given(KEYS);
  vi.stubGlobal("fetch", async () => answer());
  const looksAfterMs: number[] = [];
  const query = t.query as unknown as (ref: unknown, args: object) => Promise<unknown>;
  const ctx = {
    runQuery: async (ref: unknown, args: object) => {
      if ("jobId" in args) looksAfterMs.push(Date.now() - START_MS);
      return await query(ref, args);
    },
    runMutation: t.mutation,
  } as unknown as Ctx;
  const outcome = await drive(
    runToolCall(
      { index: 0, id: "c1", name: tool, argumentsText: "", arguments: { query: "tides" } },
      {
        ctx,
        env,
        functions: chatFunctions,
        source: "chat_http",
        signal: new AbortController().signal,
        deadlineAtMs: Infinity,
        defer: () => undefined,
      },
    ),
  );
  return { outcome, looksAfterMs };
}

/** Where the answer of a tool is kept, and how long it is fresh. */
async function kept(tool: QueuedToolId): Promise<unknown> {
  const t = backend();
  await callTool(t, tool);
  const entries = await t.run((ctx) => ctx.db.query("toolResultCache").take(9));
  return entries.map(({ createdAt, expiresAt, namespace }) => [namespace, expiresAt - createdAt]);
}

/** What an answer is good for so long after it was fresh. */
async function goodFor(afterMs: number): Promise<unknown> {
  const t = backend();
  const at = { namespace: "n", key: "k" };
  const entry = await t.mutation(internal.toolCache.set, { ...at, value: "v", ttlMs: MINUTE });
  vi.setSystemTime((entry?.expiresAt ?? 0) + afterMs);
  return (await t.query(internal.toolCache.lookup, at))?.freshness;
}

/** How long a call waits for a job that never comes to its turn, and when it looks. */
async function waitInVain(): Promise<unknown> {
  given({ TOOL_JOB_RUNMAX_WEB: "1" });
  const t = backend();
  await run(t);
  const { looksAfterMs, outcome } = await callTool(t, "search_web");
  return [outcome.kind, looksAfterMs.at(0), looksAfterMs.at(-1)];
}

const runMax = (toolName: QueuedToolId): Proof => ({
  values: ["1", "3"],
  observe: async () => {
    const t = backend();
    return await countUntil(9, async () => (await enqueue(t, { toolName })).kind === "run");
  },
});

const queueMax = (toolName: QueuedToolId): Proof => ({
  values: ["1", "3"],
  observe: async () => {
    const t = backend();
    const kinds: string[] = [];
    for (let i = 0; i < 9; i++) kinds.push((await enqueue(t, { toolName })).kind);
    return kinds.filter((kind) => kind === "waiting").length;
  },
});

/** Which class is served at a point of the lottery. */
const qos = (point: number): Proof => ({
  values: ["1", "100"],
  observe: async () => {
    const t = backend();
    const [first] = await busy(t);
    const waiting: Record<string, string> = {};
    for (const qosClass of ["realtime", "interactive", "batch"] as const satisfies QosClass[])
      waiting[await wait(t, { qosClass })] = qosClass;
    vi.spyOn(Math, "random").mockReturnValue(point);
    const { next } = await complete(t, first, { wantsNext: true });
    return waiting[next?.jobId ?? ""];
  },
});

/** When a job that ended is forgotten. */
const retention = (ends: (t: Backend) => Promise<unknown>): Proof => ({
  values: ["600000", "1200000"],
  observe: async () => {
    const t = backend();
    await ends(t);
    return await countUntil(60, async () => {
      vi.advanceTimersByTime(MINUTE);
      const { deleted } = await t.mutation(internal.toolJobs.cleanupExpired, {});
      return deleted === 0;
    });
  },
});

async function bury(t: Backend): Promise<void> {
  await fail(t, await run(t), { retryable: false });
}

/** A queue with one of each trouble. */
async function inTrouble(): Promise<Backend> {
  const t = backend();
  await bury(t);
  await bury(t);
  await busy(t);
  for (let i = 0; i < 2; i++) await wait(t);
  await advance(t, 10 * SECOND);
  return t;
}

const alerted = async (t: Backend): Promise<unknown> =>
  (await t.query(internal.toolJobs.listRecentQueueAlerts, {})).map(
    ({ createdAt, kind, windowMinutes }) => [kind, createdAt, windowMinutes],
  );

const alert = (values: readonly [string, string]): Proof => ({
  values,
  observe: async () => {
    const t = await inTrouble();
    return [await t.mutation(internal.toolJobs.monitorQueueHealth, {}), await alerted(t)];
  },
});

/** What becomes of an alert that is raised again a minute and a half after somebody was told. */
export async function toldAgain(
  t: Backend,
  raise: () => Promise<unknown>,
): Promise<readonly unknown[]> {
  await raise();
  const { notices } = await t.mutation(internal.alerts.claimDue, {});
  for (const { alertId, attempt } of notices)
    await t.mutation(internal.alerts.settleAttempt, { alertId, attempt, ended: { kind: "sent" } });
  vi.advanceTimersByTime(1.5 * MINUTE);
  await raise();
  return (await t.query(internal.alerts.listRecent, {})).map(({ delivery }) => delivery);
}

const jobsKnob = (name: string, proof: Proof): Proofs => ({ [name as KnobName]: proof });

export const TOOLS: Proofs = {
  TOOL_CACHE_WEB_SEARCH_TTL_MS: { values: ["60000", "90000"], observe: () => kept("search_web") },
  TOOL_CACHE_PRODUCT_SEARCH_TTL_MS: {
    values: ["60000", "90000"],
    observe: async () => [await kept("search_products"), await kept("search_global")],
  },
  TOOL_CACHE_WEB_SEARCH_NAMESPACE_VERSION: {
    values: ["v1", "v2"],
    observe: () => kept("search_web"),
  },
  TOOL_CACHE_PRODUCTS_NS_VER: { values: ["v1", "v2"], observe: () => kept("search_products") },
  TOOL_CACHE_REVALIDATE_MS: { values: ["1000", "60000"], observe: () => goodFor(30 * SECOND) },
  TOOL_CACHE_STALE_ON_ERROR_MS: {
    values: ["0", "600000"],
    observe: async () => {
      given({ TOOL_CACHE_REVALIDATE_MS: "0" });
      return await goodFor(30 * SECOND);
    },
  },
  TOOL_CACHE_NEGATIVE_MS: {
    values: ["0", "60000"],
    observe: async () => {
      given({ TOOL_JOB_MAX_ATTEMPTS: "1" });
      const t = backend();
      await callTool(t, "search_web", () => Response.json({}, { status: 400 }));
      return await t.run((ctx) => ctx.db.query("toolResultCache").take(1)).then((r) => r.length);
    },
  },
  TOOL_JOB_WAIT_MS: { values: ["2000", "4000"], observe: waitInVain },
  TOOL_JOB_POLL_MS: {
    values: ["100", "900"],
    observe: async () => {
      given({ TOOL_JOB_WAIT_MS: "4000" });
      return await waitInVain();
    },
  },
  TOOL_JOB_MAX_PER_RUN: {
    values: ["1", "3"],
    observe: async () => {
      given({ TOOL_JOB_RUNMAX_WEB: "6" });
      const t = backend();
      const jobs = Array.from({ length: 6 }, () => ({ argsJson: "{}" }));
      const source = "operator" as const;
      await t.mutation(internal.toolJobs.enqueueMany, { source, toolName: "search_web", jobs });
      const workers = await t.run((ctx) => ctx.db.system.query("_scheduled_functions").take(99));
      return workers.filter(({ name }) => name.startsWith("toolRuns")).length;
    },
  },
  TOOL_JOB_LEASE_MS: {
    values: ["5000", "30000"],
    observe: async () => (await run(backend())).leaseExpiresAt,
  },
  TOOL_JOB_MAX_ATTEMPTS: {
    values: ["1", "2"],
    observe: async () => {
      const t = backend();
      return (await fail(t, await run(t))).status;
    },
  },
  TOOL_JOB_RETRY_BASE_MS: {
    values: ["1000", "10000"],
    observe: async () => {
      const t = backend();
      return (await fail(t, await run(t))).retryDelayMs;
    },
  },
  TOOL_JOB_TTL_MS: retention(async (t) => complete(t, await run(t))),
  TOOL_JOB_DLQ_TTL_MS: retention(bury),
  TOOL_JOB_CLAIM_SCAN: {
    values: ["10", "40"],
    observe: async () => {
      const t = backend();
      const [first] = await busy(t);
      for (let i = 0; i < 25; i++) await wait(t, { deadlineMs: SECOND });
      vi.setSystemTime(START_MS + 2 * SECOND);
      await complete(t, first);
      const { jobs } = await rows(t);
      const states = await Promise.all(jobs.map(async ({ _id }) => await get(t, _id)));
      return states.filter((job) => job?.deadLetterReason !== null || job.updatedAt > START_MS)
        .length;
    },
  },
  TOOL_JOB_RUNMAX_WEB: runMax("search_web"),
  TOOL_JOB_RUNMAX_PROD: runMax("search_products"),
  TOOL_JOB_RUNMAX_GLOB: runMax("search_global"),
  TOOL_JOB_QMAX_WEB: queueMax("search_web"),
  TOOL_JOB_QMAX_PROD: queueMax("search_products"),
  TOOL_JOB_QMAX_GLOB: queueMax("search_global"),
  ...jobsKnob("TOOL_JOB_RUNMAX_QOS_REALTIME", qos(0.5)),
  ...jobsKnob("TOOL_JOB_RUNMAX_QOS_INTERACTIVE", qos(0.9)),
  ...jobsKnob("TOOL_JOB_RUNMAX_QOS_BATCH", qos(0.5)),
  BULKHEAD_TOOL_JOB_MAX: {
    values: ["4", "6"],
    observe: async () => configWarnings(env).map(({ name }) => name),
  },
  BULKHEAD_TOOL_JOB_LEASE_MS: {
    values: ["60000", "90000"],
    observe: async () => {
      const t = backend();
      await run(t);
      return (await rows(t)).slots.map(({ e }) => e);
    },
  },
  TOOL_QUEUE_ALERTS_ENABLED: {
    values: ["true", "false"],
    observe: async () => {
      given({ TOOL_QUEUE_ALERT_MAX_DLQ: "1" });
      return await alert(["true", "false"]).observe();
    },
  },
  TOOL_QUEUE_ALERT_WINDOW_MIN: alert(["5", "7"]),
  TOOL_QUEUE_ALERT_COOLDOWN_MS: {
    values: ["60000", "600000"],
    observe: async () => {
      const t = backend();
      const finding = { kind: "queued_depth" as const, observed: 201, threshold: 200 };
      return await toldAgain(t, () =>
        t.mutation(internal.toolJobs.raiseQueueAlertIfNeeded, finding),
      );
    },
  },
  TOOL_QUEUE_ALERT_MAX_QUEUED: alert(["1", "9"]),
  TOOL_QUEUE_ALERT_MAX_DLQ: alert(["1", "9"]),
  TOOL_QUEUE_ALERT_MAX_QUEUED_AGE_MS: alert(["1000", "60000"]),
  TOOL_QUEUE_ALERT_MAX_RUNNING_AGE_MS: alert(["1000", "60000"]),
};
