import { expect, test, vi } from "vitest";
import { backend, rowCounts, settleAll, START_MS, useStillClock } from "../test/edge/backend";
import { DAY, MINUTE } from "../src/core/time";
import { internal } from "./_generated/api";
import * as Refusals from "./model/refusals";

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
    deletedLimits: 1,
    deletedEvents: 2,
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
    deletedLimits: 200,
    deletedEvents: 0,
  });
  await settleAll(t);
  const [limits, events] = await t.run(async (ctx) => [
    await ctx.db.query("limits").first(),
    await ctx.db.query("rateLimitEvents").first(),
  ]);
  expect([limits, events]).toEqual([null, null]);
});

test("a crowd of refusals is counted well enough, in a few rows", async () => {
  const t = backend();
  for (let part = 0; part < 12; part++)
    await t.run(async (ctx) => {
      for (let i = 0; i < 100; i++)
        await Refusals.count(ctx, { bucket: "b", outcome: "blocked" }, START_MS);
    });
  const rows = await t.run((ctx) => ctx.db.query("rateLimitEvents").take(100));
  expect(rows).toHaveLength(8);
  const count = rows.reduce((sum, row) => sum + row.count, 0);
  expect(count).toBeGreaterThan(1_050);
  expect(count).toBeLessThan(1_350);
  expect(await rowCounts(t)).toEqual({ rateLimitEvents: 8 });
});
