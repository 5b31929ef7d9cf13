import { expect, test, vi } from "vitest";
import { internal } from "../../convex/_generated/api";
import { HOUR, MINUTE } from "../../src/core/time";
import { backend, pending, rowCounts, START_MS, useStillClock } from "../edge/backend";
import { busy, complete, enqueue, fail, run, stats } from "../edge/jobs";

useStillClock();

// Source: W2-49
test("the original's snapshot failed at five thousand cached answers, which it read in full", async () => {
  // A fraction of what a query may read.
  const t = backend({ bytesRead: 512 * 1024, documentsRead: 500 });
  const value = JSON.stringify("x".repeat(40_000));
  for (let i = 0; i < 25; i++)
    await t.mutation(internal.toolCache.set, {
      namespace: "search_web_v1",
      key: `q=${i}`,
      value,
      ttlMs: HOUR,
    });
  const resultJson = JSON.stringify({ kind: "complete", value: "y".repeat(60_000) });
  for (let i = 0; i < 12; i++) await complete(t, await run(t), { resultJson });
  const snapshot = (await t.query(internal.ops.getReliabilitySnapshot, {})) as {
    toolCache: { byNamespace: Record<string, number> };
  };
  expect(snapshot.toolCache.byNamespace).toMatchObject({ search_web_v1: 25 });
});

// Source: W2-50
test("the original reported a sample of the newest as the total", async () => {
  vi.stubEnv("TOOL_JOB_QMAX_WEB", "400");
  const t = backend();
  await busy(t);
  for (let i = 0; i < 120; i++) await enqueue(t);
  expect((await stats(t)).byStatus).toMatchObject({ queued: 120, running: 2 });
});

// Source: W2-51
test("the original took any limit for its snapshot and did as it pleased", async () => {
  const t = backend();
  const ask = async (args: { minutes?: number; limit?: number }) =>
    ((await t.query(internal.ops.getReliabilitySnapshot, args)) as { clamped: string[] }).clamped;
  expect(await ask({ limit: 150 })).toEqual(["limit"]);
  expect((await ask({ limit: 1, minutes: 1e9 })).sort()).toEqual(["limit", "minutes"]);
  expect(await ask({ limit: 10, minutes: 15 })).toEqual([]);
});

// Source: W2-14
test("the original's snapshot held what users had asked and what providers had said", async () => {
  const t = backend();
  const claim = await run(t, { argsJson: '{"query":"canary-of-a-user"}', maxAttempts: 1 });
  await fail(t, claim, { errorCode: "canary: what a provider wrote" });
  const snapshot = await t.query(internal.ops.getReliabilitySnapshot, {});
  expect(JSON.stringify(snapshot)).not.toContain("canary");
});

// Source: W2-52
test("the original's cleanups deleted all there was in one transaction", async () => {
  const t = backend({ documentsRead: 1_200 });
  for (let i = 0; i < 4; i++)
    await t.run(async (ctx) => {
      for (let j = 0; j < 200; j++)
        await ctx.db.insert("idempotencyKeys", {
          scope: "old",
          key: `${i}.${j}`,
          firstSeenAt: 0,
          expiresAt: START_MS - 1,
        });
    });
  await t.mutation(internal.idempotency.cleanupExpired, {});
  const { idempotencyKeys = 0 } = await rowCounts(t);
  expect([idempotencyKeys > 0, idempotencyKeys < 800]).toEqual([true, true]);
  expect((await pending(t)).map(({ name }) => name)).toEqual(["idempotency:cleanupExpired"]);
  await t.run(async (ctx) => {
    for (let i = 0; i < 300; i++)
      await ctx.db.insert("toolResultCache", {
        namespace: "old",
        key: `${i}`,
        value: "v",
        createdAt: 0,
        expiresAt: 0,
        goneAt: START_MS + HOUR,
      });
  });
  const cleared = await t.mutation(internal.toolCache.clearNamespace, { namespace: "old" });
  expect(cleared).toEqual({ deleted: 200, hasMore: true });
  expect((await pending(t)).map(({ name }) => name)).toContain("toolCache:clearNamespace");
});

// Source: W2-39
test("the original's alerts came again at the edge of a slot of the clock, or were lost with one message", async () => {
  const t = backend();
  const refusals = { bucket: "chat_stream", outcome: "blocked" as const, threshold: 25 };
  const raise = (observed: number) =>
    t.mutation(internal.rateLimit.raiseAlertIfNeeded, { ...refusals, observed });
  expect(await raise(24)).toEqual({ created: false });
  expect(await raise(25)).toMatchObject({ created: true });
  // However the clock stands to any half hour, a moment later is a moment later.
  for (const afterMs of [1, MINUTE, 29 * MINUTE]) {
    vi.setSystemTime(START_MS + afterMs);
    expect(await raise(30)).toMatchObject({ created: false });
  }
  // It stays in a table until somebody was told of it.
  const alerts = await t.query(internal.rateLimit.listRecentAlerts, {});
  expect(alerts).toMatchObject([{ kind: "limiter", threshold: 25 }]);
  expect(alerts[0]?.delivery).not.toBe("delivered");
});
