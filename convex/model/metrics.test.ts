import { getConvexSize } from "convex/values";
import { describe, expect, test, vi } from "vitest";
import {
  advance,
  backend,
  type Backend,
  settleAll,
  START_MS,
  useStillClock,
} from "../../test/edge/backend";
import * as Histograms from "../../src/core/histogram";
import { DAY, HOUR, MINUTE } from "../../src/core/time";
import { internal } from "../_generated/api";
import * as Metrics from "./metrics";
import * as Refusals from "./refusals";

useStillClock();

const MINUTE_START = START_MS - (START_MS % MINUTE);
const SEARCH = "provider:serper_search";
const CALL = { key: SEARCH, latencyMs: 120, nowMs: START_MS } as const;

const record = (t: Backend, ...calls: Metrics.Measured[]): Promise<void> =>
  t.run(async (ctx) => {
    for (const call of calls) await Metrics.record(ctx, call);
  });
const rows = (t: Backend) => t.run((ctx) => ctx.db.query("metrics").take(100));
const rollups = (t: Backend) => t.run((ctx) => ctx.db.query("rollups").take(100));
const fold = (t: Backend, afterMs: number) => {
  vi.setSystemTime(START_MS + afterMs);
  return t.mutation(internal.metrics.fold, {});
};
const read = (t: Backend, minutes: number) => t.query(internal.metrics.read, { minutes });

describe("a call that ends", () => {
  test("is counted in one document while calls are few", async () => {
    const t = backend();
    await record(
      t,
      { ...CALL, outcome: "success" },
      { ...CALL, outcome: "failure", latencyMs: 5_000 },
      { ...CALL, outcome: "success", degraded: true },
      { ...CALL, outcome: "neutral", latencyMs: 1 },
      { ...CALL, outcome: "infrastructure", latencyMs: 1 },
    );
    const found = await rows(t);
    expect(found).toMatchObject([
      {
        key: SEARCH,
        minuteMs: MINUTE_START,
        shard: 0,
        counts: { success: 2, failure: 1, neutral: 1, infrastructure: 1, degraded: 1 },
      },
    ]);
    const latency = Histograms.decode(found[0]?.latency ?? new ArrayBuffer(0));
    expect(Histograms.total(latency)).toBe(3);
    expect(Histograms.quantileMs(latency, 0)).toBeCloseTo(120, -1);
  });

  test("of a busy minute leaves a document so small that counting in it stays cheap", async () => {
    const t = backend();
    // A row that took a call a second for a minute, scattered as providers scatter.
    for (let i = 0; i < 60; i++)
      await record(t, {
        key: "provider:openrouter_chat_secondary",
        outcome: i % 10 === 0 ? "failure" : "success",
        latencyMs: 300 * Math.exp(((i * 7) % 60) / 20),
        nowMs: MINUTE_START + i * 1_000,
      });
    const [row, more] = await rows(t);
    if (row === undefined || more !== undefined) throw new Error("expected one document");
    // Billed thrice when it is replaced: found, read again, and written.
    expect(getConvexSize(row)).toBeLessThan(400);
  });

  test("of a key that is settled often goes to one of many, and all of them are counted", async () => {
    const t = backend();
    for (let i = 0; i < 200; i++)
      await record(t, { ...CALL, outcome: "success", nowMs: START_MS + i * 10 });
    const found = await rows(t);
    expect(found.length).toBeGreaterThan(10);
    // The first one tells how often: whoever reads it must not meet all the others there.
    const director = found.find(({ shard }) => shard === 0);
    expect(director?.counts.success).toBeLessThan(60);
    vi.setSystemTime(START_MS + 2_000);
    expect(await read(t, 1)).toMatchObject({ keys: [{ key: SEARCH, total: 200 }] });
  });

  test("finds in a new minute how often its key was settled in the last", async () => {
    const t = backend();
    const lastMs = MINUTE_START + MINUTE - 1;
    for (let i = 0; i < 100; i++)
      await record(t, { ...CALL, outcome: "success", nowMs: lastMs - 1_000 + i * 10 });
    for (let i = 0; i < 10; i++)
      await record(t, { ...CALL, outcome: "success", nowMs: lastMs + 1 + i });
    const found = await rows(t);
    const next = found.filter(({ minuteMs }) => minuteMs === MINUTE_START + MINUTE);
    expect(next.length).toBeGreaterThan(3);
  });

  test("of a hot key has its minute folded as soon as it is closed", async () => {
    const t = backend();
    const lastMs = MINUTE_START + MINUTE - 1;
    for (let i = 0; i < 100; i++)
      await record(t, { ...CALL, outcome: "success", nowMs: lastMs - 1_000 + i * 10 });
    vi.setSystemTime(lastMs + 1);
    // Whether the first call of a minute is itself told to spread is a matter of chance.
    vi.spyOn(Math, "random").mockReturnValue(0.9);
    await record(t, { ...CALL, outcome: "success", nowMs: lastMs + 1 });
    await advance(t, 89_999);
    expect(await rollups(t)).toEqual([]);
    await advance(t, 1);
    expect(await rollups(t)).toHaveLength(2);
    expect(await rows(t)).toEqual([]);
  });
});

describe("folding", () => {
  const SUCCESS = { ...CALL, outcome: "success" } as const;

  test("makes one row of a closed minute, of all keys and refusals", async () => {
    const t = backend();
    await record(
      t,
      SUCCESS,
      { ...SUCCESS, latencyMs: 240 },
      { ...SUCCESS, key: "route:chat", outcome: "failure" },
    );
    await t.run(async (ctx) => {
      for (let i = 0; i < 5; i++)
        await Refusals.count(ctx, { bucket: "chat_stream", outcome: "blocked" }, START_MS);
    });
    const before = await t.query(internal.metrics.read, { minutes: 15 });
    expect(before.refusals).toEqual([{ bucket: "chat_stream", outcome: "blocked", count: 5 }]);
    expect(await fold(t, 2 * MINUTE)).toEqual({ folded: expect.any(Number) as number, expired: 0 });
    expect(await rollups(t)).toMatchObject([
      {
        span: "minute",
        startMs: MINUTE_START,
        calls: [
          { key: SEARCH, counts: { success: 2 } },
          { key: "route:chat", counts: { failure: 1 } },
        ],
        refusals: [{ bucket: "chat_stream", outcome: "blocked", count: 5 }],
      },
    ]);
    expect(await rows(t)).toEqual([]);
    const after = await t.query(internal.metrics.read, { minutes: 15 });
    expect({ ...after, fromMs: 0 }).toEqual({ ...before, fromMs: 0 });
  });

  test("leaves a minute alone while somebody may still count in it, and writes nothing then", async () => {
    const t = backend();
    await record(t, SUCCESS);
    const openMs = MINUTE_START + MINUTE - START_MS;
    expect(await fold(t, openMs + 29_999)).toEqual({ folded: 0, expired: 0 });
    expect(await fold(t, openMs + 30_000)).toEqual({ folded: 1, expired: 0 });
    expect(await fold(t, openMs + 30_000)).toEqual({ folded: 0, expired: 0 });
  });

  test("adds what is counted late to what was folded", async () => {
    const t = backend();
    await record(t, SUCCESS);
    await fold(t, 2 * MINUTE);
    await record(t, { ...SUCCESS, outcome: "failure" });
    await fold(t, 3 * MINUTE);
    expect(await rollups(t)).toMatchObject([{ calls: [{ counts: { success: 1, failure: 1 } }] }]);
  });

  test("moves minutes into their hour once they are an hour old, and counts nothing twice", async () => {
    const t = backend();
    for (let minute = 0; minute < 90; minute++)
      await record(t, { ...SUCCESS, nowMs: START_MS + minute * MINUTE });
    for (const minute of [30, 60, 91, 91, 100]) await fold(t, minute * MINUTE);
    const found = await rollups(t);
    const hours = found.filter(({ span }) => span === "hour");
    expect(hours.length).toBeGreaterThanOrEqual(1);
    expect(found.length).toBeLessThan(65);
    expect(await read(t, 600)).toMatchObject({
      truncated: false,
      keys: [{ key: SEARCH, success: 90, total: 90 }],
    });
    // The last ten minutes of counting ended ten minutes ago.
    expect(await read(t, 20)).toMatchObject({ keys: [{ total: 10 }] });
  });

  test("keeps a rollup of any number of keys one small document, and its total", async () => {
    const t = backend();
    await t.run(async (ctx) => {
      for (let i = 0; i < 250; i++)
        await ctx.db.insert("metrics", {
          minuteMs: MINUTE_START,
          key: `route:${i}`,
          shard: 0,
          counts: { success: 1 + (i % 7) },
          latency: new ArrayBuffer(0),
        });
    });
    await fold(t, 2 * MINUTE);
    await settleAll(t);
    expect(await rows(t)).toEqual([]);
    const [row] = await rollups(t);
    expect(row?.calls.length).toBeLessThanOrEqual(100);
    const total = row?.calls.reduce((sum, { counts }) => sum + (counts.success ?? 0), 0);
    expect(total).toBe(Array.from({ length: 250 }, (_, i) => 1 + (i % 7)).reduce((a, b) => a + b));
  });

  test("forgets after 30 days", async () => {
    const t = backend();
    await record(t, SUCCESS);
    await fold(t, 2 * HOUR);
    expect(await rollups(t)).toMatchObject([{ span: "hour" }]);
    expect(await fold(t, 30 * DAY)).toMatchObject({ expired: 0 });
    expect(await fold(t, 30 * DAY + HOUR)).toMatchObject({ expired: 1 });
    expect(await rollups(t)).toEqual([]);
  });

  test("goes on by itself where one transaction is not enough", async () => {
    const t = backend({ documentsRead: 420 });
    for (let i = 0; i < 300; i++)
      await record(t, { ...SUCCESS, key: `route:${i}`, nowMs: START_MS + (i % 3) * MINUTE });
    await fold(t, 10 * MINUTE);
    await advance(t, 1);
    expect(await rows(t)).toEqual([]);
    const { keys } = await t.run((ctx) => Metrics.read(ctx, { nowMs: Date.now(), minutes: 15 }));
    expect(keys).toHaveLength(300);
  });
});

describe("a reading", () => {
  test("gives ratios and percentiles of what providers are judged by", async () => {
    const t = backend();
    for (let i = 1; i <= 4; i++)
      await record(t, { ...CALL, latencyMs: 100 * i, outcome: i === 4 ? "failure" : "success" });
    await record(
      t,
      { ...CALL, outcome: "neutral", latencyMs: 90_000 },
      { ...CALL, outcome: "success", latencyMs: 100, degraded: true },
    );
    const { keys } = await read(t, 1);
    expect(keys).toMatchObject([
      { success: 4, failure: 1, neutral: 1, degraded: 1, total: 5, errorRatio: 0.2 },
    ]);
    expect(keys[0]?.degradedRatio).toBe(0.25);
    expect(keys[0]?.p50Ms).toBeGreaterThan(190);
    expect(keys[0]?.p50Ms).toBeLessThan(210);
    expect(keys[0]?.p99Ms).toBeLessThan(420);
  });

  test("says when there was more than it may read", async () => {
    const t = backend();
    await record(
      t,
      ...Array.from({ length: 30 }, (_, i) => ({
        ...CALL,
        key: `route:${i}`,
        outcome: "success" as const,
      })),
    );
    await t.run((ctx) =>
      ctx.db.insert("rollups", {
        span: "minute",
        startMs: MINUTE_START - 2 * MINUTE,
        calls: [{ key: "route:folded", counts: { success: 1 }, latency: new ArrayBuffer(0) }],
        refusals: [],
      }),
    );
    const batch = { rowsLeft: 20, bytesLeft: 1_000_000, full: false };
    const reading = await t.run((ctx) => Metrics.read(ctx, { nowMs: START_MS, minutes: 5 }, batch));
    expect(reading.truncated).toBe(true);
    // Rows of open minutes take three quarters, and leave the others to what was folded.
    expect(reading.keys).toHaveLength(16);
    expect(reading.keys.map(({ key }) => key)).toContain("route:folded");
    expect(batch.rowsLeft).toBe(4);
  });

  test("of one hour begins there, and a longer one holds every minute of its first hour", async () => {
    const t = backend();
    const hour = { span: "hour" as const, refusals: [] };
    const minute = { span: "minute" as const, refusals: [] };
    const one = [{ key: "route:chat", counts: { success: 1 }, latency: new ArrayBuffer(0) }];
    const endMs = MINUTE_START - (MINUTE_START % HOUR) + 4 * HOUR + 34 * MINUTE;
    vi.setSystemTime(endMs + 20_000);
    await t.run(async (ctx) => {
      await ctx.db.insert("rollups", { ...hour, startMs: endMs - 94 * MINUTE, calls: one });
      // Three are older than an hour, and wait for the next fold.
      for (let back = 0; back <= 63; back++)
        await ctx.db.insert("rollups", { ...minute, startMs: endMs - back * MINUTE, calls: one });
    });
    const total = async (minutes: number) => (await read(t, minutes)).keys[0]?.total;
    expect([await total(59), await total(60), await total(61)]).toEqual([60, 61, 65]);
  });

  test("of nothing is nothing", async () => {
    expect(await read(backend(), 60)).toMatchObject({ keys: [], refusals: [], truncated: false });
  });
});
