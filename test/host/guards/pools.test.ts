import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { MINUTE } from "../../../src/core/time";
import { crowd } from "./crowd";
import { type Guarded, permitOf, permitsOf, startGuarded, together } from "./guarded";

let app: Guarded;
beforeAll(async () => {
  app = await startGuarded({ latencyMs: 1, staleLag: 2 });
});
afterAll(() => app.close());

describe("a pool", () => {
  test("never has more holders than slots, however many ask at once", async () => {
    await app.setKnobs({ BULKHEAD_SERPER_MAX_CONCURRENT: "8" });
    const provider = "serper_search";
    const { calls, most, saturated } = await crowd(app, {
      provider,
      callers: 40,
      until: { asks: 100 },
      holdMs: 40,
    });
    expect(most).toBeLessThanOrEqual(8);
    expect(calls).toBeGreaterThanOrEqual(8);
    expect(saturated).toBeGreaterThan(0);
    expect(await app.inFlight(provider)).toBe(0);
  });

  test("resized while it is used admits up to its new size at once", async () => {
    const provider = "ebay_search";
    const resize = (size: number) => app.setKnobs({ BULKHEAD_EBAY_MAX_CONCURRENT: String(size) });
    const take = async (count: number) =>
      permitsOf(await together(count, () => app.admit(provider)));
    await resize(12);
    const first = await take(14);
    expect(first).toHaveLength(12);
    await resize(20);
    const more = await take(14);
    expect(more).toHaveLength(8);
    expect(new Set([...first, ...more].map(({ slotId }) => slotId)).size).toBe(20);
    // Those above the new size drain: as they end, nobody takes their slots again.
    await resize(3);
    expect(await take(5)).toHaveLength(0);
    await Promise.all([...first, ...more].map((permit) => app.settle(permit, "success")));
    expect(await take(8)).toHaveLength(3);
    expect(await app.inFlight(provider)).toBe(3);
  });

  test("with room for all loses and refuses none of many that come quickly", async () => {
    await app.setKnobs({ BULKHEAD_GLOBAL_SEARCH_MAX_CONCURRENT: "100" });
    const provider = "global_search";
    const seen = await crowd(app, { provider, callers: 12, until: { asks: 100 }, holdMs: 40 });
    expect(seen).toMatchObject({ saturated: 0, lost: 0 });
    expect(seen.calls).toBeGreaterThanOrEqual(100);
    expect(await app.inFlight(provider)).toBe(0);
  });
});

test("a slot is given back by its lease however lately it was taken", async () => {
  const pool = { provider: "crawler" };
  for (let i = 0; i < 40; i++) {
    const lease = { ...pool, leaseId: `lease ${i}` };
    const size = { maxConcurrent: 2, leaseTtlMs: MINUTE };
    const { acquired } = await app.run<{ acquired: boolean }>("bulkhead:acquireSlot", {
      ...lease,
      ...size,
    });
    const { released } = await app.run<{ released: boolean }>("bulkhead:releaseSlot", lease);
    expect([i, acquired, released]).toEqual([i, true, true]);
  }
});

describe("a caller that dies", () => {
  const provider = "gmail_oauth";

  test("after its admission leaves its slot to others after one lease, and no later", async () => {
    await app.setKnobs({
      BULKHEAD_GMAIL_OAUTH_MAX_CONCURRENT: "6",
      BULKHEAD_GMAIL_OAUTH_LEASE_TTL_MS: String(MINUTE),
    });
    const dead = permitsOf(await together(8, () => app.admit(provider)));
    expect(dead).toHaveLength(6);
    app.skip(MINUTE - 10_000);
    expect(permitsOf(await together(2, () => app.admit(provider)))).toHaveLength(0);
    app.skip(10_000);
    const next = permitsOf(await together(8, () => app.admit(provider)));
    expect(next).toHaveLength(6);
    // What the dead ones come back with frees nobody's slot, and counts for nothing.
    const late = await Promise.all(dead.map((permit) => app.settle(permit, "failure")));
    expect(late).toEqual(late.map(() => false));
    expect(await app.inFlight(provider)).toBe(6);
    expect(await app.status(provider)).toMatchObject({ state: "closed", callCount: 0 });
    await Promise.all(next.map((permit) => app.settle(permit, "success")));
    expect(await app.inFlight(provider)).toBe(0);
  });

  test("or is told twice that it ended, ends once", async () => {
    const permit = await permitOf(app, provider);
    const before = (await app.status(provider)).callCount;
    const told = await together(10, () => app.settle(permit, "failure"));
    expect(told.filter(Boolean)).toHaveLength(1);
    expect((await app.status(provider)).callCount).toBe(before + 1);
  });

  test("with its host is no different: the next host gives its slot away after its lease", async () => {
    const one = await startGuarded({
      latencyMs: 0,
      knobs: { BULKHEAD_SERPER_MAX_CONCURRENT: "1", BULKHEAD_SERPER_LEASE_TTL_MS: String(MINUTE) },
    });
    const permit = await permitOf(one, "serper_search");
    await one.stop();
    const knobs = { BULKHEAD_SERPER_MAX_CONCURRENT: "1" };
    const two = await startGuarded({ latencyMs: 0, dataDir: one.dataDir, knobs });
    try {
      expect(await two.admit("serper_search")).toMatchObject({ ok: false, code: "overloaded" });
      two.skip(MINUTE);
      expect(await two.admit("serper_search")).toMatchObject({ ok: true });
      expect(await two.settle(permit, "success")).toBe(false);
    } finally {
      await two.close();
    }
  });
});
