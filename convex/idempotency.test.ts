import { describe, expect, test, vi } from "vitest";
import {
  backend,
  type Backend,
  rowCounts,
  settleAll,
  START_MS,
  useStillClock,
} from "../test/edge/backend";
import { MINUTE } from "../src/core/time";
import { internal } from "./_generated/api";
import * as Claims from "./model/claims";

useStillClock();

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
