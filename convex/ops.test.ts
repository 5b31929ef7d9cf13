import type { FunctionReturnType } from "convex/server";
import { describe, expect, test, vi } from "vitest";
import { KNOB_NAMES, knobRow } from "../src/config/knobs";
import { MINUTE, SECOND } from "../src/core/time";
import { PROVIDER_IDS } from "../src/providers/table";
import { BASELINE, objectivesOf } from "../src/slo/objectives";
import { advance, backend, type Backend, START_MS, useStillClock } from "../test/edge/backend";
import { begin, settle, UNSEEN_FAILURE } from "../test/edge/chat";
import { internal } from "./_generated/api";

useStillClock();

interface Args {
  readonly minutes?: number;
  readonly limit?: number;
}

type Snapshot = FunctionReturnType<typeof internal.ops.getReliabilitySnapshot>;

const snapshot = async (t: Backend, args: Args = {}): Promise<Snapshot> =>
  await t.query(internal.ops.getReliabilitySnapshot, args);

/** The one section whose shape is open. */
const configOf = ({ config }: Snapshot) => config as Record<string, Record<string, unknown>>;

/** A job whose key of identical work, as in life, says what it is about. */
const enqueue = (t: Backend, toolName: string, argsJson?: string) =>
  t.mutation(internal.toolJobs.enqueue, {
    source: "chat_http",
    toolName,
    argsJson: argsJson ?? "{}",
    ...(argsJson === undefined ? {} : { workKey: `${toolName}:${argsJson}` }),
  });

/** A web search that ends as a dead letter. */
async function bury(t: Backend, argsJson?: string) {
  const enqueued = await enqueue(t, "search_web", argsJson);
  if (enqueued.kind !== "run") throw new Error("no slot is free");
  const { jobId, fence } = enqueued.claim;
  const failed = { jobId, fence, errorCode: "upstream_error", retryable: false };
  await t.mutation(internal.toolJobs.fail, failed);
  return jobId;
}

const insertJobs = (t: Backend, count: number, status: "completed" | "dead_letter") =>
  t.run(async (ctx) => {
    for (let i = 0; i < count; i++)
      await ctx.db.insert("toolJobs", {
        p: status === "completed" ? "c" : "d",
        a: i,
        t: "search_web",
        c: "r",
        o: "o",
        f: 1,
        j: "{}",
      });
  });

describe("the snapshot of an idle deployment", () => {
  test("has every section, with nothing in it", async () => {
    const said = await snapshot(backend());
    const { slo, ...rest } = said;
    expect(rest).toEqual({
      config: said.config as unknown,
      verdict: "ok",
      reasons: [],
      causes: [],
      nextAction: { what: "Nothing to do.", command: null, playbook: null },
      generatedAt: START_MS,
      windowMinutes: 15,
      clamped: [],
      configWarnings: [],
      rateLimitPressure: {
        sampledEvents: 0,
        byBucketOutcome: {},
        byBucketOutcomeReason: {},
        recentAlerts: [],
        alertsInWindow: 0,
      },
      circuitBreakers: { recent: [], openCount: 0, halfOpenCount: 0, forcedCount: 0 },
      bulkheads: {
        activeLeaseCount: 0,
        inFlightByProvider: {},
        sizes: {
          openrouter_chat_primary: 24,
          openrouter_chat_secondary: 16,
          serper_search: 12,
          ebay_search: 8,
          global_search: 10,
          google_certs: 8,
          gmail_oauth: 8,
          whatsapp_graph: 8,
          sentry_ingest: 8,
          tool_job_worker: 6,
          "tool:search_web": 2,
          "tool:search_products": 2,
          "tool:search_global": 1,
        },
        saturation: {},
        saturated: [],
      },
      replayProtection: { keysInWindow: 0, duplicateHitsInWindow: 0, byScope: {} },
      toolCache: {
        sampledActiveEntries: 0,
        byNamespace: { search_web_v1: 0, search_products_v1: 0, search_global_v1: 0 },
        useFromMs: null,
        use: [],
      },
      toolJobs: {
        sampled: 0,
        byStatus: NO_JOBS,
        byTool: { search_web: NO_JOBS, search_products: NO_JOBS, search_global: NO_JOBS },
        pressureByTool: {
          search_web: { queuedUtilization: 0, runningUtilization: 0 },
          search_products: { queuedUtilization: 0, runningUtilization: 0 },
          search_global: { queuedUtilization: 0, runningUtilization: 0 },
        },
        oldestQueuedAgeMs: null,
        oldestRunningAgeMs: null,
        recentDeadLetters: [],
      },
      chatStreams: { streaming: 0, orphaned: 0 },
      webhookInbox: { queued: 0, deadLetter: 0, oldestQueuedAgeMs: null },
      toolQueueAlerts: { alertsInWindow: 0, recent: [] },
      alerts: {
        active: 0,
        alertsInWindow: 0,
        recent: [],
        waiting: 0,
        undelivered: 0,
        notConfigured: 0,
        oldestWaitingAgeMs: null,
      },
      degradedServe: [],
      truncated: [],
    });
    expect(slo.map(({ key, state }) => [key, state])).toEqual(
      objectivesOf(BASELINE).map(({ key }) => [key, "insufficient"]),
    );
    expect(Object.keys(configOf(said)).sort()).toEqual([
      "bulkheads",
      "chatProviderRoutes",
      "circuits",
      "knobs",
      "rateLimits",
      "toolCache",
      "toolCacheNamespaces",
      "toolJobs",
      "toolQueueAlerts",
    ]);
  });

  test("shows the configuration in force, with every knob and no secret", async () => {
    vi.stubEnv("RATE_LIMIT_WHATSAPP_MAX", "77");
    vi.stubEnv("CIRCUIT_SERPER_THRESHOLD", "9");
    vi.stubEnv("BULKHEAD_EBAY_MAX_CONCURRENT", "11");
    vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "4");
    vi.stubEnv("TOOL_CACHE_WEB_SEARCH_NAMESPACE_VERSION", "v2");
    vi.stubEnv("SERPER_API_KEY", "something secret");
    const config = configOf(await snapshot(backend()));
    expect(config["rateLimits"]).toMatchObject({
      chatStream: { max: 30, windowMs: 5 * MINUTE },
      whatsappWebhook: { max: 77, windowMs: MINUTE },
      gmailPushWebhook: { max: 120 },
      gmailOAuthCallback: { max: 30 },
      whatsappLinkingCode: { max: 5 },
    });
    expect(config["circuits"]).toMatchObject({
      serper_search: { threshold: 9, cooldownMs: 2 * MINUTE },
    });
    expect(config["bulkheads"]).toMatchObject({
      ebay_search: { maxConcurrent: 11, leaseTtlMs: MINUTE },
      tool_job_worker: { maxConcurrent: 6 },
    });
    for (const section of ["circuits", "bulkheads"])
      expect(Object.keys(config[section] ?? {}).sort()).toEqual([...PROVIDER_IDS].sort());
    expect(config["toolCacheNamespaces"]).toMatchObject({
      webSearch: "search_web_v2",
      productSearch: "search_products_v1",
    });
    expect(config["toolJobs"]).toMatchObject({
      maxJobsPerRun: 3,
      waitTimeoutMs: 8 * SECOND,
      maxRunningByTool: { search_web: 4, search_products: 2, search_global: 1 },
      maxQueuedByTool: { search_web: 80, search_products: 80, search_global: 40 },
    });
    expect(Object.keys(config["knobs"] ?? {}).sort()).toEqual([...KNOB_NAMES].sort());
    expect(config["knobs"]).toMatchObject({
      SERPER_API_KEY: "***redacted***",
      OPENROUTER_API_KEY: null,
    });
  });
});

const NO_JOBS = { queued: 0, running: 0, completed: 0, failed: 0, deadLetter: 0 };

describe("the snapshot of a busy deployment", () => {
  test("shows what was refused, by whom and why, within the window", async () => {
    vi.stubEnv("RATE_LIMIT_CHAT_STREAM_MAX", "1");
    const t = backend();
    await begin(t);
    for (let i = 0; i < 3; i++)
      await t.mutation(internal.chatTurns.admit, {
        request: { userId: "dana", content: "again" },
      });
    expect((await snapshot(t)).rateLimitPressure).toMatchObject({
      sampledEvents: 3,
      byBucketOutcome: { "chat_stream:blocked": 3 },
    });
    // The minute in which the window begins is shown whole.
    vi.setSystemTime(START_MS + MINUTE);
    expect((await snapshot(t, { minutes: 1 })).rateLimitPressure.sampledEvents).toBe(3);
    vi.setSystemTime(START_MS + 3 * MINUTE);
    expect((await snapshot(t, { minutes: 1 })).rateLimitPressure.sampledEvents).toBe(0);
  });

  test("shows circuits with the cooldown that is in force, and what is in flight", async () => {
    vi.stubEnv("CIRCUIT_OPENROUTER_PRIMARY_THRESHOLD", "1");
    const t = backend();
    const { streamId } = await begin(t);
    await begin(t, { idempotency: { key: "k", fingerprint: "f" } });
    expect(await snapshot(t)).toMatchObject({
      bulkheads: { activeLeaseCount: 2, inFlightByProvider: { openrouter_chat_primary: 2 } },
      chatStreams: { streaming: 2 },
      replayProtection: { keysInWindow: 1, byScope: { chat: { totalKeys: 1 } } },
    });
    await settle(t, streamId, UNSEEN_FAILURE);
    expect((await snapshot(t)).circuitBreakers).toEqual({
      openCount: 1,
      halfOpenCount: 0,
      forcedCount: 0,
      recent: [
        {
          provider: "openrouter_chat_primary",
          state: "open",
          reason: "consecutive_failures",
          failureCount: 0,
          callCount: 0,
          failedCount: 0,
          slowCount: 0,
          retryCount: 0,
          cooldownUntil: START_MS + MINUTE,
          generation: 1,
          updatedAt: START_MS,
        },
      ],
    });
    vi.setSystemTime(START_MS + MINUTE);
    const probe = await begin(t);
    expect((await snapshot(t)).circuitBreakers.recent).toMatchObject([{ state: "half_open" }]);
    await settle(t, probe.streamId, UNSEEN_FAILURE);
    expect((await snapshot(t)).circuitBreakers.recent).toMatchObject([
      { state: "open", cooldownUntil: START_MS + 3 * MINUTE },
    ]);
    expect((await snapshot(t)).bulkheads.inFlightByProvider).toEqual({
      openrouter_chat_primary: 1,
    });
  });

  test("shows the queue by tool and status, its pressure and the ages of the oldest", async () => {
    const t = backend();
    const dead = await bury(t);
    await enqueue(t, "search_global");
    await advance(t, 2 * SECOND);
    for (let i = 0; i < 2; i++) await enqueue(t, "search_global");
    vi.setSystemTime(START_MS + 5 * SECOND);
    const { toolJobs } = await snapshot(t);
    expect(toolJobs).toMatchObject({
      sampled: 4,
      byStatus: { ...NO_JOBS, queued: 2, running: 1, deadLetter: 1 },
      byTool: {
        search_web: { ...NO_JOBS, deadLetter: 1 },
        search_global: { ...NO_JOBS, queued: 2, running: 1 },
      },
      pressureByTool: { search_global: { queuedUtilization: 0.05, runningUtilization: 1 } },
      oldestQueuedAgeMs: 3 * SECOND,
      oldestRunningAgeMs: 5 * SECOND,
    });
    expect(toolJobs.recentDeadLetters).toEqual([
      {
        jobId: dead,
        toolName: "search_web",
        attempts: 1,
        reason: "not_retryable",
        errorCode: "upstream_error",
        deadLetterAt: START_MS,
      },
    ]);
  });

  test("counts cache entries of any number and size by reading none of them", async () => {
    // The public original: a few hundred large entries broke the snapshot.
    const t = backend({ bytesRead: 256 * 1024 });
    const store = (key: string, value: string) =>
      t.mutation(internal.toolCache.set, {
        namespace: "search_web_v1",
        key,
        value,
        ttlMs: MINUTE,
      });
    for (let i = 0; i < 30; i++) await store(String(i), "x".repeat(65_536));
    await store("0", "renewed");
    const { toolCache, truncated } = await snapshot(t);
    expect(toolCache).toMatchObject({
      sampledActiveEntries: 30,
      byNamespace: { search_web_v1: 30, search_products_v1: 0, search_global_v1: 0 },
    });
    expect(truncated).toEqual([]);
  });

  test("counts every alert of the window, whatever else turns to and fro meanwhile", async () => {
    const t = backend();
    const raise = (kind: "limiter" | "circuit_open", count: number) =>
      t.run(async (ctx) => {
        for (let i = 0; i < count; i++)
          await ctx.db.insert("alerts", {
            alertKey: `${kind}:${i}`,
            kind,
            severity: "warning",
            summary: "It was so.",
            observed: 1,
            threshold: 1,
            windowMinutes: 5,
            status: "resolved",
            notice: "recovered",
            delivery: "sent",
            attempts: 0,
            dueAt: 0,
            createdAt: START_MS - 1_000 + i,
            resolvedAt: START_MS,
            updatedAt: START_MS,
          });
      });
    await raise("limiter", 3);
    await raise("circuit_open", 7);
    const all = await snapshot(t);
    expect(all.rateLimitPressure).toMatchObject({ alertsInWindow: 3 });
    expect([all.alerts.alertsInWindow, all.truncated]).toEqual([10, []]);
    await raise("circuit_open", 20);
    const cut = await snapshot(t);
    expect(cut.rateLimitPressure.alertsInWindow).toBe(3);
    // The others are more than were read, and that is said.
    expect(cut.truncated).toEqual(["alerts"]);
  });

  test("counts the claims and cache uses of a quarter of an hour of some traffic in full", async () => {
    const t = backend();
    await t.run(async (ctx) => {
      for (let i = 0; i < 80; i++)
        await ctx.db.insert("idempotencyKeys", {
          scope: "whatsapp_message",
          key: String(i),
          firstSeenAt: START_MS - i,
          expiresAt: START_MS + MINUTE,
        });
      const use = { namespace: "search_web_v1", hits: 1, misses: 0, stale: 0 };
      for (let i = 0; i < 32; i++)
        await ctx.db.insert("toolCacheUse", {
          startMs: START_MS - (START_MS % (5 * MINUTE)) - Math.floor(i / 8) * 5 * MINUTE,
          shard: i % 8,
          turns: 1,
          use: [{ ...use, degraded: 0, negative: 0 }],
        });
    });
    const { replayProtection, toolCache, truncated } = await snapshot(t);
    expect(replayProtection.keysInWindow).toBe(80);
    expect(toolCache.use).toMatchObject([{ namespace: "search_web_v1", hits: 32 }]);
    expect(truncated).toEqual([]);
  });

  test("says which lists were cut short", async () => {
    const t = backend();
    await t.run(async (ctx) => {
      for (let i = 0; i < 500; i++)
        await ctx.db.insert("idempotencyKeys", {
          scope: "s",
          key: String(i),
          firstSeenAt: START_MS,
          expiresAt: START_MS,
        });
    });
    await insertJobs(t, 200, "completed");
    expect((await snapshot(t)).truncated).toEqual(["replayProtection"]);
  });
});

describe("what is asked for", () => {
  // The public original: a limit beyond the knob's had no effect, in silence.
  test.each([
    [{}, 15, 50, []],
    [{ minutes: 60, limit: 20 }, 60, 20, []],
    [{ minutes: 1_440, limit: 50 }, 1_440, 50, []],
    [{ minutes: 1_441, limit: 51 }, 1_440, 50, ["minutes", "limit"]],
    [{ minutes: 0, limit: 4 }, 1, 5, ["minutes", "limit"]],
    [{ minutes: -5 }, 1, 50, ["minutes"]],
    [{ minutes: NaN, limit: NaN }, 1, 5, ["minutes", "limit"]],
    [{ minutes: 2.5 }, 2, 50, ["minutes"]],
  ])("%j is clamped, and that is said", async (args, minutes, limit, clamped) => {
    const t = backend();
    await insertJobs(t, 51, "dead_letter");
    const said = await snapshot(t, args);
    expect([said.windowMinutes, said.toolJobs.recentDeadLetters.length, said.clamped]).toEqual([
      minutes,
      limit,
      clamped,
    ]);
  });

  test("may be more rows, where the knob allows them", async () => {
    vi.stubEnv("OPS_MAX_ROWS_PER_SECTION", "100");
    vi.stubEnv("OPS_DEFAULT_WINDOW_MINUTES", "30");
    const t = backend();
    await insertJobs(t, 60, "dead_letter");
    const said = await snapshot(t, { limit: 100 });
    expect([said.windowMinutes, said.toolJobs.recentDeadLetters.length]).toEqual([30, 60]);
    expect(said.clamped).toEqual([]);
  });
});

test("a dead letter shows codes of ours, and no word of a provider's own", async () => {
  const t = backend();
  for (const errorCode of ["canary_of_a_provider", "upstream_timeout"]) {
    const enqueued = await enqueue(t, "search_web");
    if (enqueued.kind !== "run") throw new Error("no slot is free");
    const { jobId, fence } = enqueued.claim;
    await t.mutation(internal.toolJobs.fail, { jobId, fence, errorCode, retryable: false });
  }
  const { recentDeadLetters } = (await snapshot(t)).toolJobs;
  expect(recentDeadLetters.map(({ errorCode }) => errorCode).sort()).toEqual([
    "other",
    "upstream_timeout",
  ]);
});

// The public original: operators were shown what users asked.
test("it holds no secret and nothing a user said, wherever that is stored", async () => {
  const CANARY = "canary-4711";
  for (const name of KNOB_NAMES) if (knobRow(name).secret) vi.stubEnv(name, `${CANARY}-${name}`);
  vi.stubEnv("RATE_LIMIT_GLOBAL_MAX", CANARY);
  vi.stubEnv("CHAT_MODEL_FAST_PRIMARY", `not a model: ${CANARY}`);
  vi.stubEnv("BULKHEAD_OR_PRI_MAX_CONCURRENT", "1");
  vi.stubEnv("BULKHEAD_OR_SEC_MAX_CONCURRENT", "1");
  const t = backend();
  const userId = `user-${CANARY}`;
  const turn = {
    userId,
    content: `say ${CANARY}`,
    clientMessageId: CANARY,
    addressKey: CANARY,
    idempotency: { key: CANARY, fingerprint: CANARY },
  };
  const { streamId } = await begin(t, turn);
  await settle(t, streamId, {
    content: CANARY,
    reasoning: CANARY,
    toolResults: [{ toolCallId: CANARY, name: "search_web", content: CANARY }],
    ending: "error_in_band",
  });
  for (let i = 0; i < 3; i++)
    await t.mutation(internal.chatTurns.admit, { request: { userId, content: CANARY } });
  await bury(t, JSON.stringify({ query: CANARY }));
  const enqueued = await enqueue(t, "search_products", JSON.stringify({ query: CANARY }));
  if (enqueued.kind !== "run") throw new Error("a slot is free");
  const { jobId, fence } = enqueued.claim;
  await t.mutation(internal.toolJobs.complete, {
    jobId,
    fence,
    resultJson: JSON.stringify(CANARY),
    cache: { namespace: "search_products_v1", key: CANARY, ttlMs: MINUTE, value: CANARY },
  });
  await t.run(async (ctx) => {
    await ctx.db.insert("providerTokens", { name: "ebay", token: CANARY, expiresAt: START_MS });
    await ctx.db.insert("webhookInbox", {
      state: "dead_letter",
      event: { type: "gmail_history", emailAddress: `${CANARY}@example.com`, historyId: "1" },
      attempts: 5,
      dueAtMs: START_MS,
      lastErrorCode: "internal_error",
      receivedAtMs: START_MS,
    });
  });
  const said = await snapshot(t);
  expect(JSON.stringify(said)).not.toContain(CANARY);
  // What was put in is there, without its contents.
  expect(said.configWarnings.map(({ name }) => name)).toContain("RATE_LIMIT_GLOBAL_MAX");
  expect(said.toolJobs).toMatchObject({ byStatus: { deadLetter: 1, completed: 1 } });
  expect(said).toMatchObject({
    replayProtection: { byScope: { chat: { totalKeys: 1 } } },
    rateLimitPressure: { sampledEvents: 1 },
    webhookInbox: { deadLetter: 1 },
  });
});
