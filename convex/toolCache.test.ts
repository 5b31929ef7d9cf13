import { describe, expect, test, vi } from "vitest";
import {
  backend,
  type Backend,
  rowCounts,
  settleAll,
  START_MS,
  useStillClock,
} from "../test/edge/backend";
import { begin, settle } from "../test/edge/chat";
import { complete, run } from "../test/edge/jobs";
import { DAY, MINUTE, SECOND } from "../src/core/time";
import { oneUse } from "../src/tools/cacheUse";
import { internal } from "./_generated/api";
import * as Counts from "./model/toolCacheCounts";
import * as ToolResults from "./model/toolResults";

useStillClock();

const get = (t: Backend, key: string, namespace = "web_v1") =>
  t.query(internal.toolCache.get, { namespace, key });
const lookup = (t: Backend, key: string, namespace = "web_v1") =>
  t.query(internal.toolCache.lookup, { namespace, key });
const set = (t: Backend, key: string, value: string, ttlMs = MINUTE) =>
  t.mutation(internal.toolCache.set, { namespace: "web_v1", key, value, ttlMs });
const fails = (t: Backend, key: string, code = "upstream_timeout") =>
  t.run((ctx) => ToolResults.storeFailure(ctx, { namespace: "web_v1", key, code }, Date.now()));
const stats = (t: Backend, limit?: number) =>
  t.query(internal.toolCache.listNamespaceStats, limit === undefined ? {} : { limit });
const at = (ms: number) => vi.setSystemTime(START_MS + ms);

describe("a cached value", () => {
  test("is had until it expires, whether or not it was cleaned up", async () => {
    const t = backend();
    expect(await get(t, "shoes")).toBeNull();
    expect(await set(t, "shoes", "{}")).toEqual({ key: "shoes", expiresAt: START_MS + MINUTE });
    at(MINUTE - 1);
    expect(await get(t, "shoes")).toBe("{}");
    at(MINUTE);
    expect(await get(t, "shoes")).toBeNull();
    expect(await rowCounts(t)).toMatchObject({ toolResultCache: 1 });
  });

  test("is found whatever the spelling of its key, in its own namespace", async () => {
    const t = backend();
    expect(await set(t, "  Red   SHOES ", "1")).toMatchObject({ key: "red shoes" });
    expect(await get(t, "red shoes")).toBe("1");
    expect(await get(t, "RED Shoes  ")).toBe("1");
    expect(await get(t, "red shoes", "web_v2")).toBeNull();
    await set(t, "red shoes", "2");
    expect(await get(t, "Red shoes")).toBe("2");
    expect(await rowCounts(t)).toMatchObject({ toolResultCache: 1 });
  });

  test.each([
    [0, 5 * SECOND],
    [-1, 5 * SECOND],
    [NaN, 5 * SECOND],
    [MINUTE, MINUTE],
    [Infinity, DAY],
    [2 * DAY, DAY],
  ])("to live %i ms lives %i", async (ttlMs, lifeMs) => {
    expect(await set(backend(), "k", "v", ttlMs)).toMatchObject({ expiresAt: START_MS + lifeMs });
  });

  // The public original: a large value was cut, and served as half a JSON text.
  test.each([
    ["ASCII", "x", 65_536],
    ["three bytes each", "語", 21_845],
    ["four bytes each", "🚀", 16_384],
  ])("of up to 64 KiB is stored whole, a larger one not at all: %s", async (_, character, fits) => {
    const t = backend();
    const whole = character.repeat(fits);
    expect(await set(t, "k", whole)).not.toBeNull();
    expect(await get(t, "k")).toBe(whole);
    expect(await set(t, "larger", character.repeat(fits + 1))).toBeNull();
    expect(await get(t, "larger")).toBeNull();
    // One that does not fit does not take the one away that did.
    expect(await set(t, "k", character.repeat(fits + 1))).toBeNull();
    expect(await get(t, "k")).toBe(whole);
  });

  test("with a long key is had by the whole key, not by its beginning", async () => {
    const t = backend();
    const long = "k".repeat(512);
    expect(await set(t, ` ${long} `, "exact")).toMatchObject({ key: long });
    const stored = await set(t, `${long}a`, "a");
    expect(stored?.key).toMatch(/^[0-9a-f]{64}$/);
    await set(t, `${long}b`, "b");
    expect([await get(t, long), await get(t, `${long}A`), await get(t, `${long}b`)]).toEqual([
      "exact",
      "a",
      "b",
    ]);
  });
});

describe("a value that is no longer fresh", () => {
  const found = (freshness: string, askFromMs: number | null = null) => ({
    freshness,
    value: "v",
    createdAt: START_MS,
    askFromMs,
  });

  test("is stale, then kept for errors, then gone", async () => {
    const t = backend();
    await set(t, "k", "v");
    const seen = [];
    for (const ms of [0, MINUTE - 1, MINUTE, 6 * MINUTE - 1, 6 * MINUTE, DAY + MINUTE - 1])
      seen.push((at(ms), await lookup(t, "k")));
    expect(seen).toEqual([
      found("fresh"),
      found("fresh"),
      found("stale"),
      found("stale"),
      found("error_only"),
      found("error_only"),
    ]);
    at(DAY + MINUTE);
    expect(await lookup(t, "k")).toBeNull();
  });

  test.each([
    [{ TOOL_CACHE_REVALIDATE_MS: "0" }, "error_only"],
    [{ TOOL_CACHE_REVALIDATE_MS: "2000" }, "stale"],
    [{ TOOL_CACHE_REVALIDATE_MS: "500", TOOL_CACHE_STALE_ON_ERROR_MS: "2000" }, "error_only"],
    [{ TOOL_CACHE_REVALIDATE_MS: "500", TOOL_CACHE_STALE_ON_ERROR_MS: "1000" }, undefined],
    [{ TOOL_CACHE_REVALIDATE_MS: "0", TOOL_CACHE_STALE_ON_ERROR_MS: "0" }, undefined],
  ])("one second later, with %o, is %s: a window holds at once", async (variables, freshness) => {
    const t = backend();
    await set(t, "k", "v");
    at(MINUTE + SECOND);
    for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value);
    expect((await lookup(t, "k"))?.freshness).toBe(freshness);
  });

  test("is not had as a fresh one", async () => {
    const t = backend();
    await set(t, "k", "v");
    at(MINUTE);
    expect(await get(t, "k")).toBeNull();
  });

  test("whose renewal failed is served without asking for a while", async () => {
    const t = backend();
    await set(t, "k", "v");
    at(MINUTE);
    await fails(t, " K ");
    expect(await lookup(t, "k")).toEqual(found("stale", START_MS + MINUTE + 15 * SECOND));
    at(MINUTE + 15 * SECOND);
    expect(await lookup(t, "k")).toEqual(found("stale"));
    await fails(t, "k");
    at(MINUTE + 16 * SECOND);
    await set(t, "k", "renewed");
    expect(await lookup(t, "k")).toMatchObject({ freshness: "fresh", value: "renewed" });
    // Nothing of the failure is left to delay the next renewal.
    at(2 * MINUTE + 16 * SECOND);
    expect(await lookup(t, "k")).toMatchObject({ freshness: "stale", askFromMs: null });
  });

  test("is read as one document", async () => {
    const t = backend({ documentsRead: 1 });
    const times = { createdAt: 0, expiresAt: START_MS + 1, goneAt: START_MS + 1 };
    for (const key of ["j", "k", "l"])
      await t.run(async (ctx) => {
        const entry = { namespace: "web_v1", key, value: key, ...times };
        await ctx.db.insert("toolResultCache", entry);
      });
    expect(await lookup(t, "k")).toMatchObject({ freshness: "fresh", value: "k" });
  });
});

describe("a failure that is remembered", () => {
  test("says when to ask again, and is over then", async () => {
    const t = backend();
    await fails(t, "K  k", "upstream_bad_request");
    const askFromMs = START_MS + 15 * SECOND;
    const negative = { freshness: "negative", code: "upstream_bad_request", askFromMs };
    expect(await lookup(t, "k k")).toEqual(negative);
    expect(await get(t, "k k")).toBeNull();
    at(15 * SECOND - 1);
    expect(await lookup(t, "k k")).toEqual(negative);
    at(15 * SECOND);
    expect(await lookup(t, "k k")).toBeNull();
  });

  test.each([
    ["1000", START_MS + SECOND],
    ["0", undefined],
  ])("lasts %s ms", async (value, askFromMs) => {
    vi.stubEnv("TOOL_CACHE_NEGATIVE_MS", value);
    const t = backend();
    await fails(t, "k");
    expect((await lookup(t, "k"))?.askFromMs).toBe(askFromMs);
  });

  test("never hides a success, before it or after it", async () => {
    const t = backend();
    await fails(t, "k");
    await set(t, "k", "later");
    expect(await lookup(t, "k")).toMatchObject({ freshness: "fresh", value: "later" });
    await fails(t, "k");
    expect(await lookup(t, "k")).toMatchObject({ freshness: "fresh", askFromMs: null });
    expect(await rowCounts(t)).toMatchObject({ toolResultCache: 1 });
  });

  test("is no answer, so it is not counted as one", async () => {
    const t = backend();
    await fails(t, "k");
    expect((await stats(t)).sampledActiveEntries).toBe(0);
    await set(t, "k", "v");
    await fails(t, "k");
    await set(t, "k", "w");
    expect((await stats(t)).byNamespace).toEqual({ web_v1: 1 });
  });
});

const fill = async (t: Backend, count: number, value = "v") => {
  for (let done = 0; done < count; done += 50)
    await t.run(async (ctx) => {
      for (let i = done; i < Math.min(count, done + 50); i++)
        await ToolResults.store(
          ctx,
          { namespace: "web_v1", key: String(i).padStart(6, "0"), value, ttlMs: i },
          START_MS,
        );
    });
};

const keysLeft = async (t: Backend) =>
  (await t.run((ctx) => ctx.db.query("toolResultCache").take(1_000))).map(({ key }) => Number(key));

describe("cleanup", () => {
  test("deletes what no window reaches any more, and that alone", async () => {
    const t = backend();
    await fill(t, 3);
    at(DAY + 1);
    expect(await t.mutation(internal.toolCache.cleanupExpired, {})).toEqual({ deleted: 2 });
    expect(await keysLeft(t)).toEqual([2]);
    expect((await stats(t)).byNamespace).toEqual({ web_v1: 1 });
  });

  test("takes failures as soon as they are over", async () => {
    const t = backend();
    await fails(t, "k");
    at(15 * SECOND - 1);
    expect(await t.mutation(internal.toolCache.cleanupExpired, {})).toEqual({ deleted: 0 });
    at(15 * SECOND);
    expect(await t.mutation(internal.toolCache.cleanupExpired, {})).toEqual({ deleted: 1 });
  });

  test("of the largest values goes on by itself in batches that fit a transaction", async () => {
    const t = backend({ bytesRead: 5 * 1024 * 1024 });
    await fill(t, 100, "x".repeat(65_536));
    at(2 * DAY);
    const { deleted } = await t.mutation(internal.toolCache.cleanupExpired, {});
    expect(deleted).toBeGreaterThan(10);
    expect(deleted).toBeLessThan(100);
    await settleAll(t);
    // The counters of a namespace that holds nothing go as well.
    expect(await rowCounts(t)).toEqual({});
  });

  test("takes counts of use after two days", async () => {
    const t = backend();
    await t.run((ctx) => Counts.recordUse(ctx, [oneUse("web_v1", "hits")], START_MS));
    at(2 * DAY - 5 * MINUTE);
    await t.mutation(internal.toolCache.cleanupExpired, {});
    expect(await rowCounts(t)).toEqual({ toolCacheUse: 1 });
    at(2 * DAY + 5 * MINUTE);
    await t.mutation(internal.toolCache.cleanupExpired, {});
    expect(await rowCounts(t)).toEqual({});
  });
});

describe("statistics", () => {
  test("count answers by namespace and stay exact through renewal, failure and deletion", async () => {
    const t = backend();
    for (let i = 0; i < 40; i++) await set(t, String(i), "v");
    await set(t, "0", "renewed");
    await t.mutation(internal.toolCache.set, {
      namespace: "other",
      key: "0",
      value: "v",
      ttlMs: MINUTE,
    });
    const all = {
      sampledActiveEntries: 41,
      byNamespace: { web_v1: 40, other: 1 },
      use: [],
      useFromMs: null,
      truncated: false,
    };
    expect(await stats(t)).toEqual(all);
    await t.mutation(internal.toolCache.clearNamespace, { namespace: "web_v1", maxDeletes: 15 });
    expect((await stats(t)).byNamespace).toEqual({ web_v1: 25, other: 1 });
    await t.mutation(internal.toolCache.clearNamespace, { namespace: "web_v1" });
    expect((await stats(t)).byNamespace).toEqual({ other: 1 });
  });

  test.each([
    [undefined, false],
    [1, true],
    [NaN, false],
    [20_000, false],
  ])("of more counters than a limit of %s lets them read say so", async (limit, truncated) => {
    const t = backend();
    await t.run(async (ctx) => {
      for (let i = 0; i < 101; i++)
        await ctx.db.insert("toolCacheCounts", { namespace: `n${i}`, shard: 0, answers: 1 });
    });
    expect(await stats(t, limit)).toMatchObject({
      sampledActiveEntries: truncated ? 100 : 101,
      truncated,
    });
  });
});

describe("what the cache was to turns", () => {
  const record = (t: Backend, kind: Parameters<typeof oneUse>[1], namespace = "web_v1") =>
    t.run((ctx) => Counts.recordUse(ctx, [oneUse(namespace, kind)], Date.now()));
  const used = (t: Backend, sinceMs: number, rowsMax = 100) =>
    t.run((ctx) => Counts.used(ctx, sinceMs, rowsMax));

  test("adds up over shards and rows of the window", async () => {
    const t = backend();
    const startMs = Math.floor(START_MS / (5 * MINUTE)) * 5 * MINUTE;
    for (let i = 0; i < 20; i++) await record(t, "hits");
    await record(t, "degraded");
    await record(t, "misses", "products_v1");
    at(10 * MINUTE);
    await record(t, "negative");
    const web = { namespace: "web_v1", hits: 20, misses: 0, stale: 0, degraded: 1, negative: 1 };
    const { use, ...all } = await used(t, START_MS);
    expect(use.find(({ namespace }) => namespace === "web_v1")).toEqual(web);
    expect(use.find(({ namespace }) => namespace === "products_v1")?.misses).toBe(1);
    expect(all).toEqual({ fromMs: startMs, truncated: false });
    const latest = await used(t, START_MS + 10 * MINUTE);
    expect(latest.use).toEqual([oneUse("web_v1", "negative")]);
    expect(await used(t, START_MS, 1)).toMatchObject({ use: latest.use, truncated: true });
  });

  test("is told of the last hour, beside what is held", async () => {
    const t = backend();
    const hour = 60 * MINUTE;
    await record(t, "hits");
    at(hour);
    await record(t, "misses");
    await record(t, "degraded", "products_v1");
    const { use, useFromMs, ...held } = await stats(t);
    expect(held).toEqual({ sampledActiveEntries: 0, byNamespace: {}, truncated: false });
    expect(use).toHaveLength(2);
    expect(use).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ namespace: "web_v1", misses: 1 }),
        oneUse("products_v1", "degraded"),
      ]),
    );
    at(3 * hour);
    expect(await stats(t)).toMatchObject({ use: [], useFromMs: null });
    expect(useFromMs).toBeLessThanOrEqual(START_MS + hour);
  });

  test("comes with the settlement of a turn, and once", async () => {
    const t = backend();
    const { streamId } = await begin(t);
    const cacheUse = [{ ...oneUse("web_v1", "hits"), stale: 2 }, oneUse("products_v1", "misses")];
    await settle(t, streamId, { cacheUse });
    await settle(t, streamId, { cacheUse });
    expect((await used(t, START_MS)).use).toEqual(cacheUse);
  });

  test("writes nothing for a turn without tools", async () => {
    const t = backend();
    await t.run((ctx) => Counts.recordUse(ctx, [], START_MS));
    expect(await rowCounts(t)).toEqual({});
  });

  test("of a crowd is sampled, each count for as many as it stands for", async () => {
    const t = backend();
    const random = vi.spyOn(Math, "random").mockReturnValue(0);
    for (let i = 0; i < 101; i++) await record(t, "hits");
    random.mockReturnValueOnce(0).mockReturnValueOnce(0.9);
    await record(t, "hits");
    const rows = await t.run((ctx) => ctx.db.query("toolCacheUse").take(10));
    expect(rows).toMatchObject([{ turns: 102, use: [{ hits: 102 }] }]);
  });
});

describe("clearing a namespace", () => {
  const clear = (t: Backend, maxDeletes?: number) =>
    t.mutation(internal.toolCache.clearNamespace, {
      namespace: "web_v1",
      ...(maxDeletes === undefined ? {} : { maxDeletes }),
    });

  test("keeps out what was asked for before, and lets in what is asked for after", async () => {
    const t = backend();
    const cache = { namespace: "web_v1", key: "k" };
    const entry = { ...cache, value: "v", ttlMs: MINUTE };
    const other = { ...entry, namespace: "other" };
    const [before, beside] = [await run(t), await run(t)];
    at(1);
    await clear(t);
    expect(await complete(t, before, { cache: entry })).toMatchObject({ ok: true });
    expect(await get(t, "k")).toBeNull();
    await complete(t, beside, { cache: other });
    expect(await get(t, "k", "other")).toBe("v");
    at(2);
    await complete(t, await run(t, { cache }), { cache: entry });
    expect(await get(t, "k")).toBe("v");
  });

  test("keeps out the failure of what was asked for before as well", async () => {
    const t = backend();
    const cache = { namespace: "web_v1", key: "k" };
    const failed = async () => {
      const { fence, jobId } = await run(t, { maxAttempts: 1 });
      return () =>
        t.mutation(internal.toolJobs.fail, { jobId, fence, errorCode: "upstream_error", cache });
    };
    const before = await failed();
    at(1);
    await clear(t);
    expect(await before()).toMatchObject({ status: "dead_letter" });
    expect(await rowCounts(t)).not.toHaveProperty("toolResultCache");
    at(2);
    await (
      await failed()
    )();
    expect(await rowCounts(t)).toMatchObject({ toolResultCache: 1 });
  });

  test("of which nothing is to be deleted keeps nothing out", async () => {
    const t = backend();
    const claim = await run(t);
    at(1);
    await clear(t, 0);
    const cache = { namespace: "web_v1", key: "k", value: "v", ttlMs: MINUTE };
    await complete(t, claim, { cache });
    expect(await get(t, "k")).toBe("v");
  });

  test("is remembered for a day", async () => {
    const t = backend();
    await clear(t);
    await clear(t);
    expect(await rowCounts(t)).toEqual({ toolCacheClears: 1 });
    at(DAY);
    await t.mutation(internal.toolCache.cleanupExpired, {});
    expect(await rowCounts(t)).toEqual({ toolCacheClears: 1 });
    at(DAY + 1);
    await t.mutation(internal.toolCache.cleanupExpired, {});
    expect(await rowCounts(t)).toEqual({});
  });

  test.each([
    [undefined, 450, { deleted: 200, hasMore: true }, 0],
    [undefined, 200, { deleted: 200, hasMore: false }, 0],
    [300, 450, { deleted: 200, hasMore: true }, 150],
    [50, 100, { deleted: 50, hasMore: true }, 50],
    [100, 100, { deleted: 100, hasMore: false }, 0],
    [0, 10, { deleted: 0, hasMore: true }, 10],
    [-1, 10, { deleted: 0, hasMore: true }, 10],
    [NaN, 10, { deleted: 0, hasMore: true }, 10],
    [Infinity, 450, { deleted: 200, hasMore: true }, 0],
  ])("of at most %s of %i", async (maxDeletes, count, answer, left) => {
    const t = backend();
    await fill(t, count);
    await t.mutation(internal.toolCache.set, {
      namespace: "other",
      key: "999999",
      value: "v",
      ttlMs: MINUTE,
    });
    expect(await clear(t, maxDeletes)).toEqual(answer);
    await settleAll(t);
    expect(await keysLeft(t)).toHaveLength(left + 1);
    expect(await get(t, "999999", "other")).toBe("v");
    expect((await stats(t)).sampledActiveEntries).toBe(left + 1);
  });
});
