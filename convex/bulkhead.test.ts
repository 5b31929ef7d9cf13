import { describe, expect, test, vi } from "vitest";
import {
  backend,
  type Backend,
  refused,
  rowCounts,
  settleAll,
  START_MS,
  useStillClock,
} from "../test/edge/backend";
import { DAY, MINUTE, SECOND } from "../src/core/time";
import { internal } from "./_generated/api";

useStillClock();

const PROVIDER = "crawler";
const { bulkhead } = internal;

const acquire = (t: Backend, leaseId: string, maxConcurrent = 2, leaseTtlMs = MINUTE) =>
  t.mutation(bulkhead.acquireSlot, { provider: PROVIDER, leaseId, maxConcurrent, leaseTtlMs });

const release = (t: Backend, leaseId: string, fence?: number) =>
  t.mutation(bulkhead.releaseSlot, {
    provider: PROVIDER,
    leaseId,
    ...(fence === undefined ? {} : { fence }),
  });

const list = (t: Backend, limit?: number) =>
  t.query(bulkhead.listInFlightByProvider, {
    provider: PROVIDER,
    ...(limit === undefined ? {} : { limit }),
  });

describe("acquireSlot", () => {
  test("takes one of as many slots as there are, and says when to come back", async () => {
    const t = backend();
    const taken = { acquired: true, retryAfterMs: 0, fence: 1 };
    expect(await acquire(t, "a")).toEqual({ ...taken, inFlight: 1 });
    expect(await acquire(t, "b")).toEqual({ ...taken, inFlight: 2 });
    const before = await list(t);
    expect(await acquire(t, "c")).toEqual({
      acquired: false,
      inFlight: 2,
      retryAfterMs: SECOND,
      fence: null,
    });
    expect(await list(t)).toEqual(before);
    expect(before.map(({ leaseId }) => leaseId).sort()).toEqual(["a", "b"]);
  });

  test("asked again for the same lease renews it, and takes no second slot", async () => {
    const t = backend();
    const { fence } = await acquire(t, "a");
    vi.setSystemTime(START_MS + 50 * SECOND);
    expect(await acquire(t, "a")).toEqual({ acquired: true, inFlight: 1, retryAfterMs: 0, fence });
    expect(await list(t)).toMatchObject([{ leaseId: "a", expiresAt: START_MS + 110 * SECOND }]);
  });

  test("asked again where the pool is full by others still has its own", async () => {
    const t = backend();
    for (const leaseId of ["a", "b"]) await acquire(t, leaseId);
    expect(await acquire(t, "b")).toMatchObject({ acquired: true, inFlight: 2 });
  });

  test("after the lease ended takes a slot anew", async () => {
    const t = backend();
    for (const leaseId of ["a", "b"]) await acquire(t, leaseId);
    vi.setSystemTime(START_MS + MINUTE - 1);
    expect((await acquire(t, "c")).acquired).toBe(false);
    vi.setSystemTime(START_MS + MINUTE);
    expect(await acquire(t, "c")).toMatchObject({ acquired: true, inFlight: 1, fence: 2 });
    expect(await acquire(t, "a")).toMatchObject({ acquired: true, inFlight: 2, fence: 2 });
  });

  test.each([
    [0, 15 * SECOND],
    [-1, 15 * SECOND],
    [NaN, 15 * SECOND],
    [15 * SECOND, 15 * SECOND],
    [90_000.7, 90_000],
  ])("for %d ms holds %d", async (leaseTtlMs, heldMs) => {
    const t = backend();
    await acquire(t, "a", 2, leaseTtlMs);
    expect(await list(t)).toMatchObject([{ expiresAt: START_MS + heldMs }]);
  });

  test.each([0, -1, 501, NaN, Infinity])("of %d slots is refused", async (maxConcurrent) => {
    const t = backend();
    await refused(acquire(t, "a", maxConcurrent), "invalid_request");
    expect(await rowCounts(t)).toEqual({});
  });

  test.each([Infinity, DAY + 1])("for %d ms, which is no lease, is refused", async (leaseTtlMs) => {
    const t = backend();
    await refused(acquire(t, "a", 2, leaseTtlMs), "invalid_request");
    expect(await rowCounts(t)).toEqual({});
  });

  test("with a smaller size lets those above it drain", async () => {
    const t = backend();
    for (const leaseId of ["a", "b", "c"]) await acquire(t, leaseId, 3);
    const high = (await list(t)).find(({ index }) => index === 2)?.leaseId ?? "";
    expect((await acquire(t, "d", 2)).acquired).toBe(false);
    expect(await release(t, high)).toEqual({ released: true });
    expect(await acquire(t, "d", 2)).toMatchObject({ acquired: false, inFlight: 2 });
    expect(await acquire(t, "d", 3)).toMatchObject({ acquired: true, inFlight: 3 });
  });
});

describe("releaseSlot", () => {
  test("frees what the lease holds, once", async () => {
    const t = backend();
    await acquire(t, "a", 1);
    expect(await release(t, "a")).toEqual({ released: true });
    expect(await release(t, "a")).toEqual({ released: false });
    expect(await list(t)).toEqual([]);
    expect((await acquire(t, "b", 1)).acquired).toBe(true);
  });

  test("of another's, an unknown or an earlier holding frees nothing", async () => {
    const t = backend();
    const first = await acquire(t, "a", 1);
    await release(t, "a");
    const second = await acquire(t, "a", 1);
    expect(second.fence).not.toBe(first.fence);
    expect(await release(t, "b")).toEqual({ released: false });
    expect(await release(t, "a", first.fence ?? 0)).toEqual({ released: false });
    expect(await list(t)).toHaveLength(1);
    expect(await release(t, "a", second.fence ?? 0)).toEqual({ released: true });
  });

  test("of a lease that ended and was taken over frees nothing", async () => {
    const t = backend();
    await acquire(t, "a", 1);
    vi.setSystemTime(START_MS + MINUTE);
    await acquire(t, "b", 1);
    expect(await release(t, "a")).toEqual({ released: false });
    expect(await list(t)).toMatchObject([{ leaseId: "b" }]);
  });
});

describe("listInFlightByProvider", () => {
  test("shows the holders of one provider, up to a limit", async () => {
    const t = backend();
    for (let i = 0; i < 5; i++) await acquire(t, `lease ${i}`, 5);
    const all = await list(t);
    expect(all.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4]);
    expect(all[0]).toEqual({
      provider: PROVIDER,
      index: 0,
      leaseId: all[0]?.leaseId,
      expiresAt: START_MS + MINUTE,
    });
    for (const [limit, shown] of [
      [2, 2],
      [0, 1],
      [NaN, 1],
      [1_000, 5],
    ] as const)
      expect(await list(t, limit)).toHaveLength(shown);
    const other = { provider: "other" };
    expect(await t.query(bulkhead.listInFlightByProvider, other)).toEqual([]);
  });
});

describe("cleanupExpiredLeases", () => {
  test("forgets holders whose leases ran out, and nobody else's", async () => {
    const t = backend();
    await acquire(t, "short", 3, 20 * SECOND);
    const { fence } = await acquire(t, "long", 3, 2 * MINUTE);
    await acquire(t, "over", 3);
    await release(t, "over");
    vi.setSystemTime(START_MS + MINUTE);
    const clean = () => t.mutation(bulkhead.cleanupExpiredLeases, {});
    expect(await clean()).toEqual({ deleted: 1 });
    expect(await clean()).toEqual({ deleted: 0 });
    const rows = await t.run((ctx) => ctx.db.query("slots").take(10));
    expect(rows.flatMap(({ h }) => h ?? [])).toEqual(["long"]);
    expect(await release(t, "long", fence ?? 0)).toEqual({ released: true });
  });

  test("of any number of slots goes on by itself in batches that fit a transaction", async () => {
    const t = backend();
    await t.run(async (ctx) => {
      for (let i = 0; i < 1_200; i++)
        await ctx.db.insert("slots", { p: `pool ${i % 3}`, i, e: START_MS - 1, f: 1, h: "gone" });
    });
    const { deleted } = await t.mutation(bulkhead.cleanupExpiredLeases, {});
    expect(deleted).toBeLessThanOrEqual(500);
    await settleAll(t);
    const rows = await t.run((ctx) => ctx.db.query("slots").take(2_000));
    expect(rows.filter(({ h }) => h !== undefined)).toEqual([]);
    expect(new Set(rows.map(({ f }) => f))).toEqual(new Set([2]));
  });
});
