import { afterAll, beforeAll, expect, test } from "vitest";
import { hub256 } from "../../../src/sim/deliveries";
import { WriteConflict } from "../../../src/host/database";
import { HOUR } from "../../../src/core/time";
import { type Backend, startBackend } from "../../e2e/backend";
import { problemOf, refusal, send, type WireAnswer } from "../../e2e/wire";
import { delivery, TEXT_MESSAGE } from "../../vectors/whatsappDeliveries";

/** Waited for before each operation of a transaction, so that transactions overlap. */
let latencyMs = 0;
let commits = 0;
/** Commits that are still to be lost, as if another had written the same limit first. */
let toLose = 0;
/** How far what is read stale lies back, in batches of commits. */
let lag = 0;
let backend: Backend;
beforeAll(async () => {
  backend = await startBackend({
    injection: {
      databaseLatency: () =>
        latencyMs === 0
          ? undefined
          : new Promise((resolve) => setTimeout(resolve, Math.random() * latencyMs)),
      commitFailure: () => {
        commits += 1;
        if (toLose <= 0) return undefined;
        toLose -= 1;
        return new WriteConflict("limits");
      },
      staleLagBatches: () => lag,
    },
  });
});
afterAll(async () => {
  await backend.close();
});

interface Gate {
  readonly allowed: boolean;
  readonly permit?: unknown;
}

/** Runs calls that overlap; how each ended, and how often a commit was tried for it. */
async function together<T>(size: number, call: (i: number) => Promise<T>) {
  latencyMs = 6;
  commits = 0;
  const ended = await Promise.allSettled(Array.from({ length: size }, (_, i) => call(i)));
  latencyMs = 0;
  const values = ended.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
  return { values, lost: size - values.length, attempts: commits / size };
}

// Source: openclaw/clawhub#3432, openclaw/clawhub#3529
test("clawhub#3432, #3529: a hot limit that all users share loses no request to contention", async () => {
  const { lost, values } = await together(60, () =>
    backend.operator<{ allowed: boolean }>("rateLimit:checkAndIncrement", {
      key: "global:all",
      max: 18_000,
      windowMs: 60_000,
      shared: true,
    }),
  );
  expect([lost, values.filter(({ allowed }) => allowed).length]).toEqual([0, 60]);
});

const chat = async (user: string): Promise<WireAnswer> =>
  await send(`${backend.siteUrl}/api/chat`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      authorization: `Bearer ${await backend.token(user)}`,
    },
    body: '{"message":{"content":"[[words:2]] hi"}}',
  });

async function deliver(): Promise<WireAnswer> {
  const body = JSON.stringify(delivery({ messages: [TEXT_MESSAGE] }));
  return await send(`${backend.siteUrl}/api/whatsapp/webhook`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      "x-hub-signature-256": hub256(backend.secrets.WHATSAPP_APP_SECRET, body),
    },
    body,
  });
}

// Source: get-convex/better-auth#432, get-convex/resend#34, koala73/worldmonitor#8356, Emp1500/Code2Flow#11, liwala/ay-framework#93, cursor-boston#1335, upstash/ratelimit-js (timeout)
test("better-auth#432, resend#34, worldmonitor#8356, Code2Flow#11, ay-framework#93, cursor-boston#1335, upstash: where no limit can be counted, nobody gets through and nothing breaks", async () => {
  toLose = Infinity;
  const answers = await Promise.all([chat("ann"), deliver()]);
  toLose = 0;
  for (const answer of answers) {
    expect(refusal(answer)).toEqual([503, "rate_limit_unavailable"]);
    expect(problemOf(answer).retryable).toBe(true);
    expect(answer.headers["retry-after"]).toMatch(/^[1-9]\d*$/);
  }
  // It cost nobody anything: the same are served as soon as a limit can be counted.
  expect([(await chat("ann")).status, (await deliver()).status]).toEqual([200, 200]);
});

// Source: get-convex/convex-js#170
test("convex-js#170: whoever lost an admission and all its retries to contention is served all the same", async () => {
  // As often as the platform tries one transaction.
  toLose = 5;
  expect((await chat("bob")).status).toBe(200);
  expect(toLose).toBe(0);
});

const limited = (max: number, key: string, more = {}) =>
  together(max * 4, () =>
    backend.operator<{ allowed: boolean }>("rateLimit:checkAndIncrement", {
      key,
      max,
      windowMs: HOUR,
      ...more,
    }),
  );

// Source: get-convex/rate-limiter#53
test("rate-limiter#53: no more pass than may, however old the state is that a choice was made on", async () => {
  lag = 3;
  const one = await limited(8, "exact:all");
  expect(one.values.filter(({ allowed }) => allowed)).toHaveLength(8);
  const many = await limited(32, "spread:all", { shared: true });
  expect(many.values.filter(({ allowed }) => allowed).length).toBeLessThanOrEqual(32);
  lag = 0;
});

// Source: koala73/worldmonitor#6547
test("worldmonitor#6547: a crowd that is refused waits for nobody, for it writes nothing", async () => {
  const { attempts, lost, values } = await limited(8, "exact:all");
  expect([lost, values.filter(({ allowed }) => allowed).length]).toEqual([0, 0]);
  expect(attempts).toBeLessThan(1.1);
});

// Source: PrefectHQ/prefect#21794
test("prefect#21794: a release that fails is no release, and what is in flight is what is held", async () => {
  const inFlight = async () =>
    (
      await backend.operator<unknown[]>("bulkhead:listInFlightByProvider", {
        provider: "serper_search",
      })
    ).length;
  const admitted = await backend.operator<{ permit: unknown }>("outbound:admit", {
    provider: "serper_search",
  });
  const release = () =>
    backend.operator<{ released: boolean }>("outbound:settle", {
      permit: admitted.permit,
      outcome: "success",
      attempts: 1,
      latencyMs: 1,
    });
  toLose = Infinity;
  await expect(release()).rejects.toThrow();
  toLose = 0;
  expect(await inFlight()).toBe(1);
  expect(await release()).toEqual({ released: true });
  expect(await inFlight()).toBe(0);
  expect(await release()).toEqual({ released: false });
});

// Source: koala73/worldmonitor#6706
test("worldmonitor#6706: a cleanup under load neither loses requests nor stops", async () => {
  await together(30, (i) =>
    backend.operator("rateLimit:checkAndIncrement", { key: `old:${i}`, max: 1, windowMs: 1 }),
  );
  const { lost } = await together(30, (i) =>
    i === 0
      ? backend.operator("rateLimit:cleanupExpired")
      : backend.operator("rateLimit:checkAndIncrement", {
          key: `new:${i}`,
          max: 5,
          windowMs: 60_000,
        }),
  );
  expect(lost).toBe(0);
});

// Source: resilience4j/resilience4j#1432
test("resilience4j#1432: of 40 callers at once one is the probe, with transactions that overlap", async () => {
  await backend.setEnv({ CIRCUIT_EBAY_THRESHOLD: "1", CIRCUIT_EBAY_COOLDOWN_MS: "1000" });
  const gate = () =>
    backend.operator<Gate>("circuitBreaker:checkGate", { provider: "ebay_search" });
  const { permit } = await gate();
  await backend.operator("circuitBreaker:recordFailure", { permit });
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  const { values } = await together(40, gate);
  expect(values.filter(({ allowed }) => allowed)).toHaveLength(1);
});

// Source: W2-43
test("the original's acquisitions of one provider all waited for each other", async () => {
  const { attempts, lost, values } = await together(24, () =>
    backend.operator<{ ok: boolean }>("outbound:admit", { provider: "openrouter_chat_primary" }),
  );
  expect([lost, values.filter(({ ok }) => ok).length]).toEqual([0, 24]);
  // Each takes a place of its own; a few meet, and no more.
  expect(attempts).toBeLessThan(3);
});

// Source: taskforcesh/bullmq#3210, timgit/pg-boss (groupConcurrency)
test("bullmq#3210, pg-boss: with a concurrency of 1 one runs, with transactions that overlap", async () => {
  await backend.setEnv({ TOOL_JOB_RUNMAX_GLOB: "1" });
  // The slot looks free to all of them for longer than it is.
  lag = 3;
  const { values } = await together(12, (i) =>
    backend.operator<{ kind: string }>("toolJobs:enqueue", {
      source: "operator",
      toolName: "search_global",
      argsJson: JSON.stringify({ query: `boats ${i}` }),
    }),
  );
  lag = 0;
  expect(values.filter(({ kind }) => kind === "run").length).toBeLessThanOrEqual(1);
  const stats = await backend.operator<{
    byTool: Record<string, { running: number }>;
  }>("toolJobs:getQueueStats");
  expect(stats.byTool["search_global"]?.running).toBe(1);
});
