import { beforeEach, describe, expect, test, vi } from "vitest";
import { DAY, HOUR, MINUTE, SECOND } from "../../../src/core/time";
import { PROVIDER_IDS } from "../../../src/providers/table";
import {
  backend,
  type Backend,
  refused,
  rowCounts,
  settleAll,
  START_MS,
  useStillClock,
} from "../../edge/backend";
import { type Args, call } from "./registry";

useStillClock();
beforeEach(() => {
  vi.spyOn(console, "log").mockImplementation(() => undefined);
});

const at = (afterMs: number): void => void vi.setSystemTime(START_MS + afterMs);

describe("circuitBreaker", () => {
  const provider = "serper_search";
  interface Gate {
    readonly allowed: boolean;
    readonly state: string;
    readonly retryAfterMs: number;
    readonly permit?: Args;
  }
  const gate = (t: Backend) => call<Gate>(t, "circuitBreaker:checkGate", { provider });
  const record = (t: Backend, name: "recordSuccess" | "recordFailure", permit: Args | undefined) =>
    call<Args>(t, `circuitBreaker:${name}`, { permit, provider });
  async function failTimes(t: Backend, times: number): Promise<Args> {
    let last: Args = {};
    for (let i = 0; i < times; i++) last = await record(t, "recordFailure", (await gate(t)).permit);
    return last;
  }

  test("checkGate allows while closed, refuses while open, and probes after the cooldown", async () => {
    const t = backend();
    expect(await gate(t)).toMatchObject({ allowed: true, state: "closed", retryAfterMs: 0 });
    await failTimes(t, 4);
    expect(await gate(t)).toEqual({ allowed: false, state: "open", retryAfterMs: 2 * MINUTE });
    at(2 * MINUTE);
    expect(await gate(t)).toMatchObject({ allowed: true, state: "half_open" });
    expect(await gate(t)).toMatchObject({ allowed: false, state: "half_open" });
    await refused(call(t, "circuitBreaker:checkGate", { provider: "nobody" }), "invalid_request");
  });

  test("recordFailure opens at the threshold, says until when, and a failed probe opens again", async () => {
    const t = backend();
    expect(await failTimes(t, 3)).toMatchObject({
      opened: false,
      state: "closed",
      failureCount: 3,
    });
    expect(await failTimes(t, 1)).toMatchObject({
      opened: true,
      state: "open",
      cooldownUntil: START_MS + 2 * MINUTE,
    });
    at(2 * MINUTE);
    // The second cooldown is longer than the first.
    expect(await failTimes(t, 1)).toMatchObject({
      opened: true,
      cooldownUntil: START_MS + 6 * MINUTE,
    });
  });

  test("recordSuccess of the probe closes and forgets; given back twice it changes nothing", async () => {
    const t = backend();
    await failTimes(t, 4);
    at(2 * MINUTE);
    const { permit } = await gate(t);
    for (const name of ["recordSuccess", "recordFailure"])
      await refused(
        call(t, `circuitBreaker:${name}`, { permit, provider: "ebay_search" }),
        "invalid_request",
      );
    expect(await record(t, "recordSuccess", permit)).toEqual({ released: true, state: "closed" });
    expect(await record(t, "recordSuccess", permit)).toEqual({ released: false, state: "closed" });
    expect(await record(t, "recordFailure", permit)).toMatchObject({
      released: false,
      failureCount: 0,
    });
  });

  test("listStatuses lists every provider, the open ones first, as many as asked for", async () => {
    const t = backend();
    await failTimes(t, 4);
    const list = (limit?: number) =>
      call<{ provider: string; state: string }[]>(
        t,
        "circuitBreaker:listStatuses",
        limit === undefined ? {} : { limit },
      );
    const all = await list();
    expect(all[0]).toMatchObject({ provider, state: "open", failureCount: 0 });
    expect(all.map((status) => status.provider).sort()).toEqual([...PROVIDER_IDS].sort());
    for (const [limit, length] of [
      [2, 2],
      [0, 1],
      [-1, 1],
      [1e9, PROVIDER_IDS.length],
      [NaN, 1],
    ] as const)
      expect([limit, (await list(limit)).length]).toEqual([limit, length]);
  });
});

describe("bulkhead", () => {
  interface Acquired {
    readonly acquired: boolean;
    readonly inFlight: number;
    readonly retryAfterMs: number;
  }
  const acquire = (t: Backend, leaseId: string, more: Args = {}) =>
    call<Acquired>(t, "bulkhead:acquireSlot", {
      provider: "gmail_oauth",
      leaseId,
      maxConcurrent: 2,
      leaseTtlMs: MINUTE,
      ...more,
    });
  const release = (t: Backend, leaseId: string) =>
    call(t, "bulkhead:releaseSlot", { provider: "gmail_oauth", leaseId });
  const list = (t: Backend, limit?: number) =>
    call<{ leaseId: string; expiresAt: number }[]>(t, "bulkhead:listInFlightByProvider", {
      provider: "gmail_oauth",
      ...(limit === undefined ? {} : { limit }),
    });

  test("acquireSlot takes one of so many, once per lease id, and else says when to come back", async () => {
    const t = backend();
    expect(await acquire(t, "a")).toMatchObject({ acquired: true, inFlight: 1, retryAfterMs: 0 });
    expect(await acquire(t, "a")).toMatchObject({ acquired: true, inFlight: 1 });
    expect(await acquire(t, "b")).toMatchObject({ acquired: true, inFlight: 2 });
    const full = await acquire(t, "c");
    expect(full).toMatchObject({ acquired: false, inFlight: 2 });
    expect(full.retryAfterMs).toBeGreaterThanOrEqual(SECOND);
    for (const maxConcurrent of [0, -1, 501, NaN, Infinity])
      await refused(acquire(t, "d", { maxConcurrent }), "invalid_request");
  });

  test("acquireSlot holds for 15 seconds at least, whatever is asked for", async () => {
    const t = backend();
    for (const [leaseTtlMs, heldMs] of [
      [1, 15 * SECOND],
      [NaN, 15 * SECOND],
      [-5, 15 * SECOND],
      [40 * SECOND, 40 * SECOND],
    ] as const) {
      await acquire(t, "a", { leaseTtlMs });
      expect(await list(t)).toMatchObject([{ leaseId: "a", expiresAt: START_MS + heldMs }]);
      await release(t, "a");
    }
  });

  test("releaseSlot frees its own lease once, and none that was taken over", async () => {
    const t = backend();
    await acquire(t, "a", { maxConcurrent: 1 });
    expect(await release(t, "b")).toEqual({ released: false });
    expect(await release(t, "a")).toEqual({ released: true });
    expect(await release(t, "a")).toEqual({ released: false });
    await acquire(t, "a", { maxConcurrent: 1 });
    at(MINUTE);
    expect(await acquire(t, "b", { maxConcurrent: 1 })).toMatchObject({ acquired: true });
    expect(await release(t, "a")).toEqual({ released: false });
    expect(await list(t)).toMatchObject([{ leaseId: "b" }]);
  });

  test("cleanupExpiredLeases counts what had expired, and nothing waits for it", async () => {
    const t = backend();
    await acquire(t, "a");
    await acquire(t, "b", { leaseTtlMs: HOUR });
    at(MINUTE);
    expect(await list(t)).toMatchObject([{ leaseId: "b" }]);
    expect(await call(t, "bulkhead:cleanupExpiredLeases")).toEqual({ deleted: 1 });
    expect(await call(t, "bulkhead:cleanupExpiredLeases")).toEqual({ deleted: 0 });
  });

  test("listInFlightByProvider lists the held ones of one provider, as many as asked for", async () => {
    const t = backend();
    for (const leaseId of ["a", "b", "c"]) await acquire(t, leaseId, { maxConcurrent: 9 });
    await acquire(t, "x", { provider: "ebay_search" });
    expect(await list(t)).toHaveLength(3);
    for (const [limit, length] of [
      [2, 2],
      [0, 1],
      [1e9, 3],
    ] as const)
      expect(await list(t, limit)).toHaveLength(length);
  });
});

describe("rateLimit", () => {
  const key = "whatsapp_link:user:u1";
  const ask = (t: Backend, more: Args = {}) =>
    call<Args>(t, "rateLimit:checkAndIncrement", { key, max: 2, windowMs: MINUTE, ...more });

  test("checkAndIncrement allows the burst, then says exactly when the next may come", async () => {
    const t = backend();
    expect(await ask(t)).toMatchObject({ allowed: true, remaining: 1, retryAfterMs: 0 });
    expect(await ask(t)).toMatchObject({ allowed: true, remaining: 0, retryAfterMs: 0 });
    expect(await ask(t)).toMatchObject({ allowed: false, retryAfterMs: MINUTE / 2 });
    expect(await ask(t, { key: "whatsapp_link:user:u2" })).toMatchObject({ allowed: true });
    at(MINUTE / 2 - 1);
    expect(await ask(t)).toMatchObject({ allowed: false, retryAfterMs: 1 });
    at(MINUTE / 2);
    expect(await ask(t)).toMatchObject({ allowed: true });
  });

  test("checkAndIncrement takes nothing from a limit that is left out, and counts that", async () => {
    const t = backend();
    const shared = { shared: true, max: 6_000 };
    expect(await ask(t)).toMatchObject({ source: "exact" });
    expect(await ask(t, { key: "everyone:all", ...shared })).toMatchObject({ source: "sharded" });
    const before = await t.run((ctx) => ctx.db.query("limits").collect());
    for (const more of [{}, shared])
      expect(await ask(t, { ...more, leaveOut: ["whatsapp_link"] })).toEqual({
        allowed: true,
        remaining: 0,
        retryAfterMs: 0,
        waitMs: 0,
        source: "degraded",
      });
    await settleAll(t);
    expect(await t.run((ctx) => ctx.db.query("limits").collect())).toEqual(before);
    expect(await call(t, "rateLimit:getEventSummary")).toMatchObject({
      total: 2,
      byBucketOutcome: { "whatsapp_link:degraded": 2 },
    });
    // Another's name, or a part of its own, leaves nothing out; a look counts nothing.
    const leaveOut = ["whatsapp", "everyone", "whatsapp_link:user:u1"];
    expect(await ask(t, { leaveOut })).toMatchObject({ source: "exact", remaining: 0 });
    expect(await ask(t, { leaveOut })).toMatchObject({ allowed: false });
    const asked = { key, max: 2, windowMs: MINUTE, leaveOut: ["whatsapp_link"] };
    expect(await call(t, "rateLimit:check", asked)).toMatchObject({ source: "degraded" });
    await settleAll(t);
    expect(await call(t, "rateLimit:getEventSummary")).toMatchObject({ total: 2 });
  });

  test.each([
    { max: 0 },
    { max: 1.5 },
    { max: NaN },
    { windowMs: 0 },
    { windowMs: Infinity },
    { weight: 0 },
    { weight: -1 },
    { reserveMs: -1 },
    { reserveMs: NaN },
    { key: "x".repeat(257) },
    { max: 0, leaveOut: ["whatsapp_link"] },
  ])("checkAndIncrement refuses %j, which is no limit", async (wrong) => {
    const t = backend();
    await refused(ask(t, wrong), "invalid_request");
    expect(await rowCounts(t)).toEqual({});
  });

  test("cleanupExpired forgets limits that are whole again, and those alone", async () => {
    const t = backend();
    await ask(t);
    await ask(t, { key: "chat_stream:user:u1", windowMs: HOUR });
    at(MINUTE);
    await call(t, "rateLimit:cleanupExpired");
    expect(await rowCounts(t)).toEqual({ limits: 1 });
    expect(await ask(t, { key: "chat_stream:user:u1", windowMs: HOUR })).toMatchObject({
      remaining: 0,
    });
  });
});

describe("idempotency", () => {
  const claim = (t: Backend, more: Args = {}) =>
    call<Args>(t, "idempotency:claimKey", { scope: "whatsapp_message", key: "wamid.1", ...more });
  const list = (t: Backend, more: Args = {}) =>
    call<{ key: string; expiresAt: number }[]>(t, "idempotency:listRecentByScope", {
      scope: "whatsapp_message",
      ...more,
    });

  test("claimKey grants once, for a day by default, and a duplicate extends nothing", async () => {
    const t = backend();
    const first = await claim(t);
    expect(first).toMatchObject({ duplicate: false, firstSeenAt: START_MS });
    expect(await list(t)).toMatchObject([{ key: "wamid.1", expiresAt: START_MS + DAY }]);
    at(SECOND);
    const { keyId } = first;
    expect(await claim(t)).toMatchObject({ duplicate: true, firstSeenAt: START_MS, keyId });
    expect(await list(t)).toMatchObject([{ expiresAt: START_MS + DAY }]);
    expect(await claim(t, { scope: "gmail_push_history" })).toMatchObject({ duplicate: false });
    at(DAY);
    expect(await claim(t)).toMatchObject({ duplicate: false, firstSeenAt: START_MS + DAY });
  });

  test("claimKey keeps a key for a minute at least, and refuses what is no key", async () => {
    const t = backend();
    for (const ttlMs of [1, 0, -1, NaN]) {
      const key = `ttl-${ttlMs}`;
      await claim(t, { key, ttlMs });
      expect((await list(t)).find((row) => row.key === key)?.expiresAt).toBe(START_MS + MINUTE);
    }
    for (const wrong of [{ key: "" }, { scope: "" }, { key: "x".repeat(513) }])
      await refused(claim(t, wrong), "invalid_request");
  });

  test("cleanupExpired deletes what has expired, and that alone", async () => {
    const t = backend();
    await claim(t, { ttlMs: MINUTE });
    await claim(t, { key: "wamid.2", ttlMs: HOUR });
    at(MINUTE);
    expect(await call(t, "idempotency:cleanupExpired")).toEqual({ deleted: 1 });
    expect(await list(t)).toMatchObject([{ key: "wamid.2" }]);
  });

  test("listRecentByScope lists the newest of one scope, 200 at most", async () => {
    const t = backend();
    await t.run(async (ctx) => {
      for (let i = 0; i < 250; i++)
        await ctx.db.insert("idempotencyKeys", {
          scope: i < 210 ? "whatsapp_message" : "other",
          key: `k${i}`,
          firstSeenAt: START_MS + i,
          expiresAt: START_MS + DAY,
        });
    });
    for (const [limit, length] of [
      [1e9, 200],
      [3, 3],
      [0, 1],
      [NaN, 1],
    ] as const)
      expect([limit, (await list(t, { limit })).length]).toEqual([limit, length]);
    expect((await list(t, { limit: 2 })).map(({ key }) => key)).toEqual(["k209", "k208"]);
  });
});
