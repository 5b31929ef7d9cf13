import { afterAll, beforeAll, expect, test } from "vitest";
import { type Backend, startBackend } from "../../e2e/backend";

/** Waited for before each operation of a transaction, so that transactions overlap. */
let latencyMs = 0;
let commits = 0;
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
        return undefined;
      },
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

test("the original's acquisitions of one provider all waited for each other", async () => {
  const { attempts, lost, values } = await together(24, () =>
    backend.operator<{ ok: boolean }>("outbound:admit", { provider: "openrouter_chat_primary" }),
  );
  expect([lost, values.filter(({ ok }) => ok).length]).toEqual([0, 24]);
  // Each takes a place of its own; a few meet, and no more.
  expect(attempts).toBeLessThan(3);
});

test("bullmq#3210: with a concurrency of 1 one runs, with transactions that overlap", async () => {
  await backend.setEnv({ TOOL_JOB_RUNMAX_GLOB: "1" });
  const { values } = await together(12, (i) =>
    backend.operator<{ kind: string }>("toolJobs:enqueue", {
      source: "operator",
      toolName: "search_global",
      argsJson: JSON.stringify({ query: `boats ${i}` }),
    }),
  );
  expect(values.filter(({ kind }) => kind === "run").length).toBeLessThanOrEqual(1);
  const stats = await backend.operator<{
    byTool: Record<string, { running: number }>;
  }>("toolJobs:getQueueStats");
  expect(stats.byTool["search_global"]?.running).toBe(1);
});
