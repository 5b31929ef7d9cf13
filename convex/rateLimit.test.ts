import { describe, expect, test, vi } from "vitest";
import {
  advance,
  backend,
  type Backend,
  pending,
  refused,
  rowCounts,
  settleAll,
  START_MS,
  type Tables,
  useStillClock,
} from "../test/edge/backend";
import { begin, settle } from "../test/edge/chat";
import { DAY, MINUTE } from "../src/core/time";
import { internal } from "./_generated/api";
import * as Refusals from "./model/refusals";
import schema from "./schema";

useStillClock();

test("cleanup deletes limits that say nothing any more, and counts of refusals after a week", async () => {
  const t = backend();
  await t.run(async (ctx) => {
    for (const [k, at] of [
      ["past", -1],
      ["now", 0],
      ["later", 1],
    ] as const)
      await ctx.db.insert("limits", { k, t: START_MS + at });
    for (const ageMs of [0, 7 * DAY, 7 * DAY + MINUTE])
      await Refusals.count(ctx, { bucket: "b", outcome: "blocked" }, START_MS - ageMs);
  });
  vi.setSystemTime(START_MS);
  expect(await t.mutation(internal.rateLimit.cleanupExpired, {})).toEqual({
    deleted: 3,
    deletedWindows: 1,
    deletedEvents: 2,
    deletedAlerts: 0,
  });
  const left = await t.run((ctx) => ctx.db.query("limits").take(10));
  expect(left.map(({ k }) => k)).toEqual(["now", "later"]);
});

test("cleanup goes on by itself in bounded batches", async () => {
  const t = backend({ documentsRead: 420 });
  for (let part = 0; part < 3; part++)
    await t.run(async (ctx) => {
      for (let i = 0; i < 150; i++) {
        await ctx.db.insert("limits", { k: `${part}:${i}`, t: 1 });
        await ctx.db.insert("rateLimitEvents", {
          bucket: "b",
          outcome: "blocked",
          minuteMs: MINUTE,
          shard: 0,
          count: 1,
        });
      }
    });
  expect(await t.mutation(internal.rateLimit.cleanupExpired, {})).toEqual({
    deleted: 200,
    deletedWindows: 200,
    deletedEvents: 0,
    deletedAlerts: 0,
  });
  await settleAll(t);
  const [limits, events] = await t.run(async (ctx) => [
    await ctx.db.query("limits").first(),
    await ctx.db.query("rateLimitEvents").first(),
  ]);
  expect([limits, events]).toEqual([null, null]);
});

describe("counting refusals", () => {
  const counted = async (t: Backend) =>
    await t.run((ctx) => ctx.db.query("rateLimitEvents").take(200));

  test("one after the other goes to a few rows", async () => {
    const t = backend();
    for (let i = 0; i < 100; i++)
      await t.run((ctx) => Refusals.count(ctx, { bucket: "b", outcome: "blocked" }, START_MS));
    const rows = await counted(t);
    expect(rows).toHaveLength(8);
    expect(rows.reduce((sum, row) => sum + row.count, 0)).toBe(100);
  });

  test("all at once gives each a row of its own, which nobody else writes", async () => {
    const t = backend();
    await t.run(async (ctx) => {
      // One transaction is one snapshot: each sees what all see who are refused at once.
      for (let i = 0; i < 100; i++)
        await Refusals.count(ctx, { bucket: "b", outcome: "blocked" }, START_MS);
    });
    expect((await counted(t)).map((row) => row.count)).toEqual(
      Array.from({ length: 100 }, () => 1),
    );
  });

  test("goes on to count known rows up, sampled once they are hot", async () => {
    const t = backend();
    await t.run(async (ctx) => {
      for (let shard = 0; shard < 8; shard++)
        await ctx.db.insert("rateLimitEvents", {
          bucket: "b",
          outcome: "blocked",
          minuteMs: START_MS - (START_MS % MINUTE),
          shard,
          count: 400,
        });
    });
    for (let i = 0; i < 400; i++)
      await t.run((ctx) => Refusals.count(ctx, { bucket: "b", outcome: "blocked" }, START_MS));
    const rows = await counted(t);
    expect(rows).toHaveLength(8);
    const added = rows.reduce((sum, row) => sum + row.count - 400, 0);
    expect(added).toBeGreaterThan(150);
    expect(added).toBeLessThan(750);
    expect(added % 8).toBe(0);
  });

  test("of late callers is sampled, on rows of their own", async () => {
    const t = backend();
    const refusal = { bucket: "b", outcome: "blocked" };
    for (let i = 0; i < 10; i++) await t.run((ctx) => Refusals.count(ctx, refusal, START_MS));
    const before = await counted(t);
    await t.run(async (ctx) => {
      for (let i = 0; i < 400; i++) await Refusals.countLate(ctx, refusal, START_MS);
    });
    const rows = await counted(t);
    // A row that others know is left as it was, so that nobody loses a race for it.
    expect(rows.filter((row) => before.some(({ _id }) => _id === row._id))).toEqual(before);
    const added = rows.slice(before.length).reduce((sum, row) => sum + row.count, 0);
    // Each of 400 is counted as four with a chance of a quarter: 1 in 10^9 is not in between.
    expect(added).toBeGreaterThan(180);
    expect(added).toBeLessThan(620);
  });
});

const count = async (t: Backend, times: number, refusal: Refusals.Refusal, atMs = START_MS) => {
  for (let i = 0; i < times; i++) await t.run((ctx) => Refusals.count(ctx, refusal, atMs));
};

describe("refusals", () => {
  const BLOCKED = { bucket: "chat_stream", outcome: "blocked" };

  test("are summed by source, bucket, outcome and reason, of the window alone", async () => {
    const t = backend();
    await count(t, 3, BLOCKED);
    await count(t, 2, { ...BLOCKED, bucket: "serper_search", outcome: "circuit_open" });
    await count(t, 7, BLOCKED, START_MS - 20 * MINUTE);
    await t.mutation(internal.rateLimit.recordEvent, {
      source: "chat_http",
      bucket: "chat_stream",
      outcome: "contention_fallback",
      reason: "admission",
    });
    expect(await t.query(internal.rateLimit.getEventSummary, { minutes: 15 })).toMatchObject({
      total: 6,
      windowMinutes: 15,
      truncated: false,
      bySourceBucketOutcome: {
        "guard:chat_stream:blocked": 3,
        "guard:serper_search:circuit_open": 2,
        "chat_http:chat_stream:contention_fallback": 1,
      },
      byBucketOutcome: {
        "chat_stream:blocked": 3,
        "serper_search:circuit_open": 2,
        "chat_stream:contention_fallback": 1,
      },
      byBucketOutcomeReason: {
        "chat_stream:blocked:none": 3,
        "serper_search:circuit_open:none": 2,
        "chat_stream:contention_fallback:admission": 1,
      },
    });
  });

  test("are the same after they were folded, and listed newest first", async () => {
    const t = backend();
    await count(t, 3, BLOCKED);
    await count(t, 2, { ...BLOCKED, bucket: "global" }, START_MS + MINUTE);
    vi.setSystemTime(START_MS + 3 * MINUTE);
    const open = await t.query(internal.rateLimit.listRecentEvents, {});
    expect(open).toMatchObject([
      { bucket: "global", count: 2 },
      { bucket: "chat_stream", outcome: "blocked", reason: null, source: null, count: 3 },
    ]);
    await t.mutation(internal.metrics.fold, {});
    expect(await rowCounts(t)).toEqual({ rollups: 2 });
    expect(await t.query(internal.rateLimit.listRecentEvents, {})).toEqual(open);
    expect(
      await t.query(internal.rateLimit.listRecentEvents, { bucket: "chat_stream", limit: 1 }),
    ).toEqual(open.slice(1));
  });

  test("with names that are too long are refused", async () => {
    const event = { bucket: "x".repeat(65), outcome: "blocked" };
    await refused(backend().mutation(internal.rateLimit.recordEvent, event), "invalid_request");
  });
});

describe("the monitor", () => {
  const monitor = (t: Backend) => t.mutation(internal.rateLimit.monitorAndAlert, {});
  const alerts = (t: Backend) => t.query(internal.rateLimit.listRecentAlerts, {});

  test.each([
    ["chat_stream", "blocked", 25],
    ["chat_stream", "contention_fallback", 3],
    ["whatsapp_webhook", "blocked", 40],
    ["whatsapp_webhook", "contention_fallback", 5],
    ["gmail_push", "blocked", 40],
    ["gmail_push", "contention_fallback", 5],
  ])("raises an alert for %s %s from %d in five minutes", async (bucket, outcome, threshold) => {
    const t = backend();
    await count(t, threshold - 1, { bucket, outcome });
    expect(await monitor(t)).toEqual({
      createdAlerts: 0,
      recoveredAlerts: 0,
      overdue: 0,
      windowMinutes: 5,
    });
    expect(await rowCounts(t)).toEqual({ rateLimitEvents: Math.min(8, threshold - 1) });
    await count(t, 1, { bucket, outcome });
    expect(await monitor(t)).toMatchObject({ createdAlerts: 1 });
    expect(await monitor(t)).toMatchObject({ createdAlerts: 0 });
    expect(await alerts(t)).toMatchObject([
      {
        alertKey: `limiter:${bucket}:${outcome}`,
        status: "active",
        delivery: "pending",
        observed: threshold,
        threshold,
        windowMinutes: 5,
      },
    ]);
    expect(await pending(t)).toMatchObject([{ name: "sentry:deliver", afterMs: 0 }]);
  });

  test("clears it when the refusals have ended", async () => {
    const t = backend();
    await count(t, 25, { bucket: "chat_stream", outcome: "blocked" });
    await monitor(t);
    vi.setSystemTime(START_MS + 7 * MINUTE);
    expect(await monitor(t)).toMatchObject({ recoveredAlerts: 1 });
    expect(await alerts(t)).toMatchObject([{ status: "resolved" }]);
    expect(await monitor(t)).toMatchObject({ recoveredAlerts: 0 });
  });

  const minuteMs = START_MS - (START_MS % MINUTE);

  test("sees the refusals of a deployment whose calls alone are more than one reading takes", async () => {
    const t = backend();
    await count(t, 20, { bucket: "chat_stream", outcome: "blocked" });
    await t.run(async (ctx) => {
      for (let i = 0; i < 400; i++)
        await ctx.db.insert("metrics", {
          minuteMs,
          key: `provider:p${Math.floor(i / 40)}`,
          shard: i % 40,
          counts: { success: 9 },
          latency: new ArrayBuffer(0),
        });
      await ctx.db.insert("rollups", {
        span: "minute",
        startMs: minuteMs - 2 * MINUTE,
        calls: [],
        refusals: [{ bucket: "chat_stream", outcome: "blocked", count: 5 }],
      });
    });
    expect(await monitor(t)).toMatchObject({ createdAlerts: 1 });
    const summary = await t.query(internal.rateLimit.getEventSummary, { minutes: 5 });
    expect(summary).toMatchObject({ total: 25, truncated: false });
  });

  test("takes nothing for over while it cannot see all refusals", async () => {
    const t = backend();
    await count(t, 25, { bucket: "chat_stream", outcome: "blocked" });
    await count(t, 1, { bucket: "serper_search", outcome: "bulkhead_saturated" });
    await advance(t, 0);
    await monitor(t);
    vi.setSystemTime(START_MS + 7 * MINUTE);
    await t.run(async (ctx) => {
      for (let i = 0; i < 300; i++)
        await ctx.db.insert("rateLimitEvents", {
          bucket: "whatsapp_webhook",
          outcome: "blocked",
          minuteMs: minuteMs + 7 * MINUTE,
          shard: 0,
          count: 1,
        });
    });
    expect(await monitor(t)).toMatchObject({ createdAlerts: 1, recoveredAlerts: 0 });
    vi.setSystemTime(START_MS + 15 * MINUTE);
    expect(await monitor(t)).toMatchObject({ recoveredAlerts: 3 });
  });

  test("writes nothing where nothing happens", async () => {
    const t = backend();
    await monitor(t);
    await t.mutation(internal.metrics.fold, {});
    await t.mutation(internal.rateLimit.cleanupExpired, {});
    expect(await rowCounts(t)).toEqual({});
    expect(await pending(t)).toEqual([]);
  });

  test("writes nothing, and nor does another cron, once what happened is over", async () => {
    const t = backend();
    await settle(t, (await begin(t)).streamId);
    await count(t, 30, { bucket: "chat_stream", outcome: "blocked" });
    const crons = async (): Promise<void> => {
      await t.mutation(internal.rateLimit.cleanupExpired, {});
      await t.mutation(internal.idempotency.cleanupExpired, {});
      await t.mutation(internal.bulkhead.cleanupExpiredLeases, {});
      await t.mutation(internal.toolCache.cleanupExpired, {});
      await t.mutation(internal.toolJobs.cleanupExpired, {});
      await t.mutation(internal.chatTurns.cleanupExpired, {});
      await t.mutation(internal.integrations.inbox.cleanupExpired, {});
      await t.mutation(internal.metrics.fold, {});
      await t.mutation(internal.rateLimit.monitorAndAlert, {});
      await t.mutation(internal.toolJobs.monitorQueueHealth, {});
    };
    const told = async (): Promise<void> => {
      const { notices } = await t.mutation(internal.alerts.claimDue, {});
      for (const { alertId, attempt } of notices)
        await t.mutation(internal.alerts.settleAttempt, {
          ...{ alertId, attempt, ended: { kind: "sent" as const } },
        });
    };
    const everything = () =>
      t.run(async (ctx) => {
        const rows: unknown[] = [];
        for (const name of Object.keys(schema.tables) as Tables[])
          rows.push(await ctx.db.query(name).take(100));
        return rows;
      });
    // The alert is told, its end as well, and minutes become hours.
    for (const minutes of [1, 10, 80]) {
      vi.setSystemTime(START_MS + minutes * MINUTE);
      await crons();
      await told();
    }
    await settleAll(t);
    const before = await everything();
    for (const minutes of [100, 105, 110]) {
      vi.setSystemTime(START_MS + minutes * MINUTE);
      await crons();
    }
    expect(await everything()).toEqual(before);
    expect(await pending(t)).toEqual([]);
  });

  test("tells of a circuit whose opening nobody told of, and that it closed", async () => {
    const t = backend();
    const open = (kind: "open" | "closed") =>
      t.run(async (ctx) => {
        const state =
          kind === "closed"
            ? ({ kind } as const)
            : ({ kind, openedAtMs: START_MS, openings: 1, reason: "failure_rate" } as const);
        const row = await ctx.db.query("circuitBreakers").first();
        const fields = { provider: "serper_search", state, generation: 1, updatedAt: START_MS };
        if (row === null) await ctx.db.insert("circuitBreakers", fields);
        else await ctx.db.replace("circuitBreakers", row._id, fields);
      });
    await open("open");
    expect(await monitor(t)).toMatchObject({ createdAlerts: 1 });
    expect(await monitor(t)).toMatchObject({ createdAlerts: 0 });
    await open("closed");
    expect(await monitor(t)).toMatchObject({ recoveredAlerts: 1 });
    expect(await t.query(internal.alerts.listRecent, {})).toMatchObject([
      { alertKey: "circuit:serper_search", kind: "circuit_open", severity: "critical" },
    ]);
  });

  test("tells of a pool at once that only late callers found saturated, once", async () => {
    const t = backend();
    const refusal = { bucket: "serper_search", outcome: "bulkhead_saturated" };
    vi.spyOn(Math, "random").mockReturnValue(0);
    for (let i = 0; i < 3; i++) await t.run((ctx) => Refusals.countLate(ctx, refusal, START_MS));
    await count(t, 3, refusal);
    expect((await pending(t)).map(({ name }) => name)).toEqual(["alerts:lookAtProvider"]);
  });

  test("tells of a saturated pool at once, once, and that it is over", async () => {
    const t = backend();
    await count(t, 5, { bucket: "serper_search", outcome: "bulkhead_saturated" });
    expect(await pending(t)).toMatchObject([{ name: "alerts:lookAtProvider", afterMs: 0 }]);
    await advance(t, 0);
    const outcome = "bulkhead_saturated";
    await t.mutation(internal.alerts.lookAtProvider, { provider: "serper_search", outcome });
    const list = () => t.query(internal.alerts.listRecent, { kind: "bulkhead_saturated" });
    expect(await list()).toMatchObject([{ alertKey: "bulkhead:serper_search", status: "active" }]);
    expect(await monitor(t)).toMatchObject({ recoveredAlerts: 0 });
    vi.setSystemTime(START_MS + 7 * MINUTE);
    expect(await monitor(t)).toMatchObject({ recoveredAlerts: 1 });
  });
});

test.each([
  { observed: NaN },
  { observed: Infinity },
  { observed: -1 },
  { threshold: NaN },
  { bucket: "b".repeat(65) },
])("an alert of %j is refused", async (bad) => {
  const t = backend();
  const rule = { bucket: "chat_stream", outcome: "blocked", threshold: 10, observed: 10 } as const;
  await refused(
    t.mutation(internal.rateLimit.raiseAlertIfNeeded, { ...rule, ...bad }),
    "invalid_request",
  );
  expect(await rowCounts(t)).toEqual({});
});

test("an alert is raised by hand from its threshold on, and cleanup forgets it after 30 days", async () => {
  const t = backend();
  const rule = { bucket: "chat_stream", outcome: "blocked", threshold: 10 } as const;
  const raise = (observed: number) =>
    t.mutation(internal.rateLimit.raiseAlertIfNeeded, { ...rule, observed });
  expect(await raise(9)).toEqual({ created: false });
  expect(await raise(10)).toMatchObject({ created: true });
  expect(await raise(11)).toMatchObject({ created: false });
  vi.setSystemTime(START_MS + 30 * DAY);
  expect(await t.mutation(internal.rateLimit.cleanupExpired, {})).toMatchObject({
    deletedAlerts: 0,
  });
  vi.setSystemTime(START_MS + 30 * DAY + 1);
  expect(await t.mutation(internal.rateLimit.cleanupExpired, {})).toMatchObject({
    deletedAlerts: 1,
  });
});
