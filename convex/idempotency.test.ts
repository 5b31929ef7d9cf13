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
import { DAY, MINUTE } from "../src/core/time";
import { internal } from "./_generated/api";
import * as Claims from "./model/claims";

useStillClock();

/** Of whichever row it is. */
const keyId = expect.any(String) as string;

const KEY = { scope: "whatsapp_message", key: "m1" };

const find = (t: Backend, nowMs: number, key = KEY) => t.run((ctx) => Claims.find(ctx, key, nowMs));
const put = (t: Backend, nowMs: number, extra: Partial<Claims.NewClaim> = {}) =>
  t.run((ctx) => Claims.put(ctx, { ...KEY, ttlMs: MINUTE, ...extra }, nowMs));

describe("a claim", () => {
  test("is found until it expires, whether or not it was cleaned up", async () => {
    const t = backend();
    await put(t, START_MS, { fingerprint: "f", reference: "r" });
    expect(await find(t, START_MS + MINUTE - 1)).toMatchObject({
      fingerprint: "f",
      reference: "r",
    });
    expect(await find(t, START_MS + MINUTE)).toBeNull();
  });

  test("is of one scope and key", async () => {
    const t = backend();
    await put(t, START_MS);
    expect(await find(t, START_MS, { ...KEY, scope: "other" })).toBeNull();
    expect(await find(t, START_MS, { ...KEY, key: "other" })).toBeNull();
  });

  test("takes the place of one that has expired, in the same row and with nothing of it", async () => {
    const t = backend();
    await put(t, START_MS, { fingerprint: "f", reference: "r" });
    await put(t, START_MS + MINUTE);
    expect(await rowCounts(t)).toEqual({ idempotencyKeys: 1 });
    const claim = await find(t, START_MS + MINUTE);
    expect(claim).toMatchObject({
      firstSeenAt: START_MS + MINUTE,
      expiresAt: START_MS + 2 * MINUTE,
    });
    expect(claim).not.toHaveProperty("reference");
  });

  test("is given back by whoever it leads to, and by nobody else", async () => {
    const t = backend();
    await put(t, START_MS, { reference: "r" });
    await t.run((ctx) => Claims.release(ctx, { ...KEY, reference: "other" }));
    expect(await find(t, START_MS)).not.toBeNull();
    await t.run((ctx) => Claims.release(ctx, { ...KEY, reference: "r" }));
    expect(await rowCounts(t)).toEqual({});
  });
});

describe("work claimed by its key", () => {
  const claim = (
    t: Backend,
    more: { fingerprint?: string; leaseMs?: number; ttlMs?: number } = {},
  ) => t.mutation(internal.idempotency.claimKey, { ...KEY, fingerprint: "f", ...more });
  const complete = (t: Backend, fence: number, reply?: string) =>
    t.mutation(internal.idempotency.completeKey, {
      ...KEY,
      fence,
      ...(reply === undefined ? {} : { reply }),
    });

  test("is in progress for others until it is reported, and then replayed", async () => {
    const t = backend();
    const fence = START_MS;
    const first = { duplicate: false, state: "claimed", fence, firstSeenAt: START_MS, keyId };
    expect(await claim(t)).toEqual(first);
    const before = await t.run((ctx) => ctx.db.query("idempotencyKeys").take(10));
    vi.setSystemTime(START_MS + 10_000);
    expect(await claim(t)).toEqual({
      duplicate: true,
      state: "in_progress",
      retryAfterMs: 50_000,
      firstSeenAt: START_MS,
      keyId,
    });
    expect(await claim(t, { fingerprint: "g" })).toMatchObject({ state: "conflict" });
    // A duplicate writes nothing and so extends nothing.
    expect(await t.run((ctx) => ctx.db.query("idempotencyKeys").take(10))).toEqual(before);
    expect(await complete(t, START_MS, "42")).toEqual({ ok: true });
    expect(await claim(t)).toEqual({
      duplicate: true,
      state: "completed",
      reply: "42",
      firstSeenAt: START_MS,
      keyId,
    });
  });

  test("is taken over once its lease has run out, and the first one's report is refused", async () => {
    const t = backend();
    await claim(t, { leaseMs: 5_000, ttlMs: 2 * MINUTE });
    vi.setSystemTime(START_MS + 5_000);
    const second = START_MS + 5_000;
    const taken = { state: "claimed", fence: second, firstSeenAt: START_MS, keyId };
    expect(await claim(t)).toMatchObject(taken);
    expect(await complete(t, START_MS, "late")).toEqual({ ok: false });
    expect(await complete(t, second)).toEqual({ ok: true });
    expect(await claim(t)).toMatchObject({ state: "completed", reply: null });
    // The takeover did not make it live longer either.
    vi.setSystemTime(START_MS + 2 * MINUTE);
    expect(await claim(t)).toMatchObject({ state: "claimed", fence: START_MS + 2 * MINUTE });
  });

  test("and forgotten is not ended by who claimed it before", async () => {
    const t = backend();
    await claim(t, { ttlMs: MINUTE });
    vi.setSystemTime(START_MS + MINUTE);
    expect(await t.mutation(internal.idempotency.cleanupExpired, {})).toEqual({ deleted: 1 });
    await claim(t);
    expect(await complete(t, START_MS, "of another life")).toEqual({ ok: false });
    expect(await t.mutation(internal.idempotency.failKey, { ...KEY, fence: START_MS })).toEqual({
      ok: false,
    });
    expect(await claim(t)).toMatchObject({ state: "in_progress" });
  });

  test("may be tried again at once after it failed", async () => {
    const t = backend();
    await claim(t);
    expect(await t.mutation(internal.idempotency.failKey, { ...KEY, fence: START_MS })).toEqual({
      ok: true,
    });
    expect(await claim(t)).toMatchObject({ state: "claimed", fence: START_MS + 1 });
  });

  test("keeps no half of a reply, and takes no key without end", async () => {
    const t = backend();
    await claim(t);
    await expect(complete(t, START_MS, "x".repeat(20_000))).rejects.toThrow("too large");
    expect(await claim(t)).toMatchObject({ state: "in_progress" });
    const long = { scope: "s", key: "k".repeat(513) };
    await expect(t.mutation(internal.idempotency.claimKey, long)).rejects.toThrow("512");
  });

  test("is listed by its scope, the newest first, without replies", async () => {
    const t = backend();
    await claim(t);
    await complete(t, START_MS, "secret reply");
    vi.setSystemTime(START_MS + 1);
    await t.mutation(internal.idempotency.claimKey, { ...KEY, key: "m2" });
    const { scope } = KEY;
    const list = (limit?: number) =>
      t.query(internal.idempotency.listRecentByScope, {
        scope,
        ...(limit === undefined ? {} : { limit }),
      });
    expect(await list()).toMatchObject([
      { key: "m2", state: "in_progress" },
      { key: "m1", state: "completed" },
    ]);
    expect(JSON.stringify(await list())).not.toContain("secret");
    expect(await list(1)).toHaveLength(1);
  });
});

test("a nonce passes once, and its timestamp never after it was forgotten", async () => {
  const t = backend();
  const claim = (timestampMs: number, nonce = "n") =>
    t.mutation(internal.idempotency.claimNonce, { scope: "s", nonce, timestampMs, skewMs: MINUTE });
  const ahead = START_MS + MINUTE;
  expect(await claim(ahead + 1)).toBe("untimely");
  expect(await claim(START_MS - MINUTE - 1)).toBe("untimely");
  expect(await claim(ahead)).toBe("accepted");
  for (const laterMs of [0, MINUTE, 2 * MINUTE, 2 * MINUTE + 1]) {
    vi.setSystemTime(START_MS + laterMs);
    expect(await claim(ahead)).toBe(laterMs <= 2 * MINUTE ? "replayed" : "untimely");
  }
});

test.each([NaN, Infinity, -1, DAY + 1])(
  "a nonce of a window of %d ms is refused",
  async (skewMs) => {
    const t = backend();
    const nonce = { scope: "s", nonce: "n", timestampMs: START_MS, skewMs };
    await refused(t.mutation(internal.idempotency.claimNonce, nonce), "invalid_request");
    expect(await rowCounts(t)).toEqual({});
  },
);

describe("cleanup", () => {
  test("deletes what has expired, and that alone", async () => {
    const t = backend();
    await put(t, START_MS);
    await put(t, START_MS + 1, { key: "m2" });
    vi.setSystemTime(START_MS + MINUTE);
    expect(await t.mutation(internal.idempotency.cleanupExpired, {})).toEqual({ deleted: 1 });
    expect(await find(t, START_MS + MINUTE, { ...KEY, key: "m2" })).not.toBeNull();
  });

  test("goes on by itself in bounded batches", async () => {
    const t = backend({ documentsRead: 420 });
    for (let part = 0; part < 3; part++)
      await t.run(async (ctx) => {
        for (let i = 0; i < 150; i++)
          await ctx.db.insert("idempotencyKeys", {
            scope: "s",
            key: `${part}:${i}`,
            firstSeenAt: 0,
            expiresAt: 1,
          });
      });
    expect(await t.mutation(internal.idempotency.cleanupExpired, {})).toEqual({ deleted: 200 });
    await settleAll(t);
    expect(await t.run((ctx) => ctx.db.query("idempotencyKeys").first())).toBeNull();
  });
});
