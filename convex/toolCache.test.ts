import { describe, expect, test, vi } from "vitest";
import {
  backend,
  type Backend,
  rowCounts,
  settleAll,
  START_MS,
  useStillClock,
} from "../test/edge/backend";
import { DAY, MINUTE, SECOND } from "../src/core/time";
import { internal } from "./_generated/api";

useStillClock();

const get = (t: Backend, key: string, namespace = "web_v1") =>
  t.query(internal.toolCache.get, { namespace, key });
const set = (t: Backend, key: string, value: string, ttlMs = MINUTE) =>
  t.mutation(internal.toolCache.set, { namespace: "web_v1", key, value, ttlMs });

describe("a cached value", () => {
  test("is had until it expires, whether or not it was cleaned up", async () => {
    const t = backend();
    expect(await get(t, "shoes")).toBeNull();
    expect(await set(t, "shoes", "{}")).toEqual({ key: "shoes", expiresAt: START_MS + MINUTE });
    vi.setSystemTime(START_MS + MINUTE - 1);
    expect(await get(t, "shoes")).toBe("{}");
    vi.setSystemTime(START_MS + MINUTE);
    expect(await get(t, "shoes")).toBeNull();
    expect(await rowCounts(t)).toEqual({ toolResultCache: 1 });
  });

  test("is found whatever the spelling of its key, in its own namespace", async () => {
    const t = backend();
    expect(await set(t, "  Red SHOES ", "1")).toMatchObject({ key: "red shoes" });
    expect(await get(t, "red shoes")).toBe("1");
    expect(await get(t, "RED Shoes  ")).toBe("1");
    expect(await get(t, "red shoes", "web_v2")).toBeNull();
    await set(t, "red shoes", "2");
    expect(await get(t, "Red shoes")).toBe("2");
    expect(await rowCounts(t)).toEqual({ toolResultCache: 1 });
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

  // Weakness W2-24 of the public original: a large value was cut, and served as half a JSON text.
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

  test("with a key of more than 512 characters is not stored", async () => {
    const t = backend();
    expect(await set(t, "k".repeat(513), "v")).toBeNull();
    expect(await set(t, ` ${"k".repeat(512)} `, "v")).not.toBeNull();
  });
});

const fill = async (t: Backend, count: number, value = "v") => {
  for (let done = 0; done < count; done += 100)
    await t.run(async (ctx) => {
      for (let i = done; i < Math.min(count, done + 100); i++)
        await ctx.db.insert("toolResultCache", {
          namespace: "web_v1",
          key: String(i).padStart(6, "0"),
          value,
          createdAt: 0,
          expiresAt: START_MS + i,
        });
    });
};

const keysLeft = async (t: Backend) =>
  (await t.run((ctx) => ctx.db.query("toolResultCache").take(1_000))).map(({ key }) => Number(key));

describe("cleanup", () => {
  test("deletes what has expired, and that alone", async () => {
    const t = backend();
    await fill(t, 3);
    vi.setSystemTime(START_MS + 1);
    expect(await t.mutation(internal.toolCache.cleanupExpired, {})).toEqual({ deleted: 2 });
    expect(await keysLeft(t)).toEqual([2]);
  });

  test("of the largest values goes on by itself in batches that fit a transaction", async () => {
    const t = backend({ bytesRead: 5 * 1024 * 1024 });
    await fill(t, 100, "x".repeat(65_536));
    vi.setSystemTime(START_MS + DAY);
    const { deleted } = await t.mutation(internal.toolCache.cleanupExpired, {});
    expect(deleted).toBeGreaterThan(10);
    expect(deleted).toBeLessThan(100);
    await settleAll(t);
    expect(await keysLeft(t)).toEqual([]);
  });
});

describe("clearing a namespace", () => {
  const clear = (t: Backend, maxDeletes?: number) =>
    t.mutation(internal.toolCache.clearNamespace, {
      namespace: "web_v1",
      ...(maxDeletes === undefined ? {} : { maxDeletes }),
    });

  test.each([
    [undefined, 450, { deleted: 200, hasMore: true }, 0],
    [undefined, 200, { deleted: 200, hasMore: false }, 0],
    [300, 450, { deleted: 200, hasMore: true }, 150],
    [50, 100, { deleted: 50, hasMore: true }, 50],
    [100, 100, { deleted: 100, hasMore: false }, 0],
    [0, 10, { deleted: 0, hasMore: true }, 10],
    [-1, 10, { deleted: 0, hasMore: true }, 10],
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
  });
});
