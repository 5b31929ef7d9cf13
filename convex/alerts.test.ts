import { describe, expect, test, vi } from "vitest";
import {
  advance,
  backend,
  type Backend,
  pending,
  rowCounts,
  START_MS,
  useStillClock,
} from "../test/edge/backend";
import { MINUTE } from "../src/core/time";
import { internal } from "./_generated/api";
import * as Alerts from "./model/alerts";

useStillClock();

const CONDITION: Alerts.Condition = {
  alertKey: "queue:queued_depth:search_web",
  kind: "queued_depth",
  severity: "warning",
  summary: "Queue of search_web: 201 jobs wait.",
  observed: 201,
  threshold: 200,
  windowMinutes: 5,
  cooldownMs: 15 * MINUTE,
};

const run = <T>(t: Backend, body: (ctx: Parameters<typeof Alerts.raise>[0]) => Promise<T>) =>
  t.run((ctx) => body(ctx as Parameters<typeof Alerts.raise>[0]));
const raise = (t: Backend, atMs = START_MS) =>
  t.mutation(internal.alerts.raise, { condition: CONDITION, atMs });
const clear = (t: Backend, atMs = START_MS) =>
  t.mutation(internal.alerts.clear, { alertKey: CONDITION.alertKey, atMs });
const claim = (t: Backend) => t.mutation(internal.alerts.claimDue, {});
const list = (t: Backend) => t.query(internal.alerts.listRecent, {});
const settle = async (t: Backend, ended: Alerts.SettledAttempt["ended"]) => {
  const [notice] = (await claim(t)).notices;
  if (notice === undefined) throw new Error("nothing is due");
  const { alertId, attempt } = notice;
  await t.mutation(internal.alerts.settleAttempt, { alertId, attempt, ended });
  return notice;
};
const deliveries = async (t: Backend) =>
  (await pending(t)).filter(({ name }) => name === "sentry:deliver").map(({ afterMs }) => afterMs);

describe("raising", () => {
  test("reads and writes nothing in the transaction that raises", async () => {
    const t = backend();
    await run(t, async (ctx) => {
      await Alerts.raise(ctx, CONDITION, START_MS);
      await Alerts.clear(ctx, "other", START_MS);
    });
    expect(await rowCounts(t)).toEqual({});
    expect((await pending(t)).map(({ name, afterMs }) => [name, afterMs])).toEqual([
      ["alerts:raise", 0],
      ["alerts:clear", 0],
    ]);
    await advance(t, 0);
    expect(await list(t)).toMatchObject([{ alertKey: CONDITION.alertKey, delivery: "pending" }]);
  });

  test("what is raised already changes nothing", async () => {
    const t = backend();
    expect([await raise(t), await raise(t)]).toEqual(["created", "unchanged"]);
    expect(await rowCounts(t)).toEqual({ alerts: 1 });
  });

  test("a report that was overtaken by the next changes nothing", async () => {
    const t = backend();
    await raise(t, START_MS + 1_000);
    expect(await clear(t, START_MS)).toBe("unchanged");
    expect(await clear(t, START_MS + 2_000)).toBe("recovered");
    expect(await raise(t, START_MS + 1_500)).toBe("unchanged");
    expect(await list(t)).toMatchObject([{ status: "resolved" }]);
  });

  test("a monitor raises from the threshold on and clears below it", async () => {
    const t = backend();
    const observe = (observed: number) =>
      run(t, (ctx) => Alerts.observe(ctx, { ...CONDITION, observed }, START_MS));
    expect(await observe(199)).toBe("unchanged");
    expect(await observe(200)).toBe("created");
    expect(await observe(300)).toBe("unchanged");
    expect(await observe(199)).toBe("recovered");
    expect(await observe(0)).toBe("unchanged");
    expect(await rowCounts(t)).toEqual({ alerts: 1 });
  });
});

describe("delivering", () => {
  test("tells what is due once, with what an operator needs and no more", async () => {
    const t = backend();
    await raise(t);
    const { more, notices } = await claim(t);
    expect(more).toBe(false);
    const { cooldownMs, ...shown } = CONDITION;
    expect(cooldownMs).toBe(15 * MINUTE);
    expect(notices).toEqual([
      {
        ...shown,
        alertId: expect.any(String) as string,
        attempt: 1,
        notice: "raised",
        raisedAtMs: START_MS,
        resolvedAtMs: null,
        telling: expect.stringMatching(/:raised:0$/) as string,
      },
    ]);
    expect((await claim(t)).notices).toEqual([]);
  });

  test("is scheduled for each notice when it is due", async () => {
    const t = backend();
    vi.spyOn(Math, "random").mockReturnValue(0.5);
    await raise(t);
    expect(await deliveries(t)).toEqual([0]);
    await advance(t, 0);
    await settle(t, { kind: "failed", failure: "http_503", retryAfterMs: 0 });
    expect(await deliveries(t)).toEqual([2_500]);
    expect(await list(t)).toMatchObject([{ attempts: 1, lastFailure: "http_503" }]);
    await advance(t, 2_500);
    await settle(t, { kind: "sent" });
    expect(await deliveries(t)).toEqual([]);
    expect(await list(t)).toMatchObject([{ delivery: "sent", lastFailure: null }]);
    await clear(t, Date.now());
    expect(await deliveries(t)).toEqual([0]);
  });

  test("keeps one identity for all attempts of one telling, and another for the next", async () => {
    const t = backend();
    await raise(t);
    const first = await settle(t, { kind: "failed", failure: "timeout", retryAfterMs: 0 });
    vi.setSystemTime(START_MS + MINUTE);
    const second = await settle(t, { kind: "sent" });
    expect(second.telling).toBe(first.telling);
    vi.setSystemTime(START_MS + 20 * MINUTE);
    await raise(t, Date.now());
    const reminder = await settle(t, { kind: "sent" });
    expect(reminder.telling).not.toBe(first.telling);
  });

  test("a report of an attempt that was overtaken changes nothing", async () => {
    const t = backend();
    await raise(t);
    const [notice] = (await claim(t)).notices;
    vi.setSystemTime(START_MS + 2 * MINUTE);
    await claim(t);
    const alertId = notice?.alertId;
    if (alertId === undefined) throw new Error("nothing was due");
    const ended = { kind: "sent" } as const;
    await t.mutation(internal.alerts.settleAttempt, { alertId, attempt: 1, ended });
    expect(await list(t)).toMatchObject([{ delivery: "pending", attempts: 2 }]);
  });

  test("what a run that died left behind is taken up by the monitor", async () => {
    const t = backend();
    await raise(t);
    await advance(t, 0);
    await claim(t);
    const monitor = () => t.mutation(internal.rateLimit.monitorAndAlert, {});
    vi.setSystemTime(START_MS + 2 * MINUTE - 1);
    expect(await monitor()).toMatchObject({ overdue: 0 });
    expect(await deliveries(t)).toEqual([]);
    vi.setSystemTime(START_MS + 2 * MINUTE);
    expect(await monitor()).toMatchObject({ overdue: 1 });
    expect(await deliveries(t)).toEqual([0]);
  });

  test("says that there is nobody to tell, and counts what nobody was told of", async () => {
    const t = backend();
    const outbox = () => run(t, (ctx) => Alerts.outbox(ctx, Date.now()));
    const nothing = { waiting: 0, undelivered: 0, notConfigured: 0, oldestWaitingAgeMs: null };
    expect(await outbox()).toEqual(nothing);
    await raise(t);
    vi.setSystemTime(START_MS + MINUTE);
    expect(await outbox()).toEqual({ ...nothing, waiting: 1, oldestWaitingAgeMs: MINUTE });
    await settle(t, { kind: "not_configured" });
    expect(await outbox()).toEqual({ ...nothing, notConfigured: 1 });
    expect(await list(t)).toMatchObject([{ delivery: "not_configured", status: "active" }]);
  });

  test("takes ten at a time and says when there are more", async () => {
    const t = backend();
    for (let i = 0; i < 12; i++)
      await t.mutation(internal.alerts.raise, {
        condition: { ...CONDITION, alertKey: `k:${i}` },
        atMs: START_MS,
      });
    expect(await claim(t)).toMatchObject({ more: true, notices: { length: 10 } });
    expect(await claim(t)).toMatchObject({ more: false, notices: { length: 2 } });
  });
});
