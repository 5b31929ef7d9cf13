import { expect, test, vi } from "vitest";
import { internal } from "../../convex/_generated/api";
import * as Alerts from "../../convex/model/alerts";
import * as Refusals from "../../convex/model/refusals";
import { MINUTE } from "../../src/core/time";
import {
  backend,
  type Backend,
  pending,
  rowCounts,
  settleAll,
  START_MS,
  useStillClock,
} from "../edge/backend";

useStillClock();

const BLOCKED = { bucket: "chat_stream", outcome: "blocked" };

const refuse = (t: Backend, times: number, atMs = START_MS): Promise<void> =>
  t.run(async (ctx) => {
    for (let i = 0; i < times; i++) await Refusals.count(ctx, BLOCKED, atMs);
  });
const monitor = (t: Backend) => t.mutation(internal.rateLimit.monitorAndAlert, {});
const told = async (t: Backend, ended: Alerts.SettledAttempt["ended"]): Promise<number> => {
  const { notices } = await t.mutation(internal.alerts.claimDue, {});
  for (const { alertId, attempt } of notices)
    await t.mutation(internal.alerts.settleAttempt, { alertId, attempt, ended });
  return notices.length;
};

// In the original the alert row was inserted before it was sent, and a failed send was never repeated.
// Source: W2-39
test("the original lost alerts that could not be sent: here one is sent later", async () => {
  const t = backend();
  await refuse(t, 60);
  await monitor(t);
  expect(await told(t, { kind: "failed", failure: "http_500", retryAfterMs: 0 })).toBe(1);
  vi.setSystemTime(START_MS + MINUTE);
  expect(await told(t, { kind: "sent" })).toBe(1);
});

// In the original: slots of half an hour by the clock, so that 29:59 and 30:01 both sent the same alert.
// Source: W2-39
test("the original sent an alert twice when half an hour had ended on the clock", async () => {
  const t = backend();
  const halfHourMs = 30 * MINUTE;
  const edgeMs = Math.ceil(START_MS / halfHourMs) * halfHourMs;
  vi.setSystemTime(edgeMs - 1_000);
  await refuse(t, 60, edgeMs - 1_000);
  await monitor(t);
  expect(await told(t, { kind: "sent" })).toBe(1);
  vi.setSystemTime(edgeMs + 1_000);
  await refuse(t, 60, edgeMs + 1_000);
  await monitor(t);
  expect(await told(t, { kind: "sent" })).toBe(0);
});

// In the original each refusal scheduled a mutation of its own, of which a transaction has a thousand.
// Source: W2-53
test("the original scheduled a write for each refusal: here a crowd fills a few rows", async () => {
  const t = backend();
  // One after the other: a crowd of one moment is a row each, which nobody waits for.
  for (let i = 0; i < 120; i++) await refuse(t, 1);
  expect(await pending(t)).toEqual([]);
  expect((await rowCounts(t)).rateLimitEvents).toBeLessThanOrEqual(8);
});

// In the original the newest 2,000 rows were reported as all there was.
// Source: W2-50
test("the original called a part of the events their total: here a summary that is cut short says so", async () => {
  const t = backend();
  await t.run(async (ctx) => {
    for (let i = 0; i < 300; i++)
      await ctx.db.insert("rateLimitEvents", {
        bucket: `b${i}`,
        outcome: "blocked",
        minuteMs: START_MS - (START_MS % MINUTE),
        shard: 0,
        count: 1,
      });
  });
  const summary = () => t.query(internal.rateLimit.getEventSummary, { minutes: 5 });
  expect(await summary()).toMatchObject({ truncated: true });
  vi.setSystemTime(START_MS + 3 * MINUTE);
  await t.mutation(internal.metrics.fold, {});
  await settleAll(t);
  expect(await summary()).toMatchObject({ truncated: false, total: 300 });
});
