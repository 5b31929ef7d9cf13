import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { backend, type Backend, refused, START_MS, useStillClock } from "../../test/edge/backend";
import { DAY, MINUTE, SECOND } from "../../src/core/time";
import * as Limits from "./limits";

useStillClock();

const REQUEST: Limits.LimitRequest = { name: "test", key: "user:1", max: 3, windowMs: MINUTE };

/** Takes where all agree, as admissions do. */
const ask = (t: Backend, request: Limits.LimitRequest, nowMs: number) =>
  t.run(async (ctx) => {
    const decision = await Limits.check(ctx, request, nowMs);
    if (decision.ok) await Limits.take(ctx, decision);
    return decision;
  });

const rows = (t: Backend) => t.run((ctx) => ctx.db.query("limits").take(200));

describe("a limit", () => {
  test("is checked without being taken", async () => {
    const t = backend();
    for (let i = 0; i < 5; i++)
      expect(await t.run((ctx) => Limits.check(ctx, REQUEST, START_MS))).toMatchObject({
        ok: true,
        info: { remaining: 2 },
      });
    expect(await rows(t)).toEqual([]);
  });

  test.each([
    ["of one document", {}],
    ["that is shared", { shared: true, max: 6_000 }],
    ["asked for more than a shard has", { shared: true, max: 6_000, weight: 5_000 }],
  ])("%s is neither read nor written where it is left out: it cannot conflict", async (_, more) => {
    const t = backend();
    const request = { ...REQUEST, ...more };
    await ask(t, request, START_MS);
    const before = await rows(t);
    const used = await t.run(async (ctx) => {
      const decision = await Limits.check(ctx, request, START_MS, ["other", "test"]);
      expect(decision).toMatchObject({ ok: true, source: "degraded", writes: [] });
      const { databaseQueries, documentsRead } = await ctx.meta.getTransactionMetrics();
      await Limits.take(ctx, decision);
      return [databaseQueries.used, documentsRead.used];
    });
    expect(used).toEqual([0, 0]);
    expect(await rows(t)).toEqual(before);
  });

  test("is one row for each key, which a refusal leaves as it is", async () => {
    const t = backend();
    for (let i = 0; i < 3; i++) expect((await ask(t, REQUEST, START_MS)).ok).toBe(true);
    await ask(t, { ...REQUEST, key: "user:2" }, START_MS);
    const before = await rows(t);
    expect(before).toMatchObject([
      { k: "test:user:1", t: START_MS + MINUTE },
      { k: "test:user:2", t: START_MS + MINUTE / 3 },
    ]);
    expect(await ask(t, REQUEST, START_MS + SECOND)).toEqual({
      ok: false,
      source: "exact",
      retryAfterMs: 19 * SECOND,
      info: {
        name: "test",
        limit: 3,
        windowMs: MINUTE,
        remaining: 0,
        resetMs: 59 * SECOND,
      },
    });
    expect(await rows(t)).toEqual(before);
  });

  test("counts a request for as many as it says", async () => {
    const t = backend();
    expect((await ask(t, { ...REQUEST, weight: 2 }, START_MS)).info.remaining).toBe(1);
    expect((await ask(t, { ...REQUEST, weight: 2 }, START_MS)).ok).toBe(false);
    expect((await ask(t, REQUEST, START_MS)).ok).toBe(true);
  });

  test("is mended by the first refusal after the clock was set back a day", async () => {
    const t = backend();
    for (let i = 0; i < 3; i++) await ask(t, REQUEST, START_MS);
    const nowMs = START_MS - DAY;
    const verdict = await ask(t, REQUEST, nowMs);
    expect(verdict).toMatchObject({ ok: false, retryAfterMs: 20 * SECOND });
    expect(await rows(t)).toMatchObject([{ t: nowMs + MINUTE }]);
    expect((await ask(t, REQUEST, nowMs + 20 * SECOND)).ok).toBe(true);
  });

  test("that was reset has its whole burst again", async () => {
    const t = backend();
    const shared = { ...REQUEST, max: 4_000, windowMs: 10 * SECOND, shared: true };
    for (const request of [REQUEST, shared]) {
      for (let i = 0; i < 3; i++) await ask(t, request, START_MS);
      await t.run((ctx) => Limits.reset(ctx, request));
    }
    expect(await rows(t)).toEqual([]);
  });
});

test.each([
  { weight: 4 },
  { weight: NaN },
  { weight: -2 },
  { max: Infinity },
  { windowMs: 0 },
  { reserveMs: -1 },
  { weight: 65, max: 64, windowMs: SECOND, shared: true, reserveMs: MINUTE },
])("what is no limit is refused, whoever asks: %j", async (wrong) => {
  const t = backend();
  await refused(ask(t, { ...REQUEST, ...wrong }, START_MS), "invalid_request");
  expect(await rows(t)).toEqual([]);
});

test.each([{ max: NaN }, { max: 1.5 }, { windowMs: 0 }])(
  "of what is no limit nothing is forgotten: %j",
  async (wrong) => {
    const t = backend();
    await ask(t, REQUEST, START_MS);
    const before = await rows(t);
    const reset = t.run((ctx) => Limits.reset(ctx, { ...REQUEST, ...wrong }));
    await refused(reset, "invalid_request");
    expect(await rows(t)).toEqual(before);
  },
);

describe("a shared limit", () => {
  const SHARED: Limits.LimitRequest = {
    name: "global",
    key: "all",
    max: 64,
    windowMs: SECOND,
    shared: true,
  };

  test("is spread over rows by its rate, and passes no more than one row would", async () => {
    const t = backend();
    let passed = 0;
    for (let i = 0; i < 160; i++) if ((await ask(t, SHARED, START_MS)).ok) passed += 1;
    expect(passed).toBe(64);
    expect((await rows(t)).map(({ k }) => k.split("#")[0])).toEqual(
      Array.from({ length: 16 }, () => "global:all"),
    );
  });

  test("in any interval passes at most its burst and rate", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(100), { minLength: 50, maxLength: 120 }), async (gaps) => {
        const t = backend();
        const limit = { ...SHARED, max: 16 };
        let nowMs = START_MS;
        const passed: number[] = [];
        for (const gapMs of gaps) {
          nowMs += gapMs < 60 ? 0 : gapMs;
          if ((await ask(t, limit, nowMs)).ok) passed.push(nowMs);
        }
        for (const [i, from] of passed.entries())
          for (let j = i; j < passed.length; j++) {
            const bound = limit.max + (limit.max * ((passed[j] ?? 0) - from)) / limit.windowMs;
            if (j - i + 1 > bound) throw new Error(`${j - i + 1} passed where ${bound} may`);
          }
      }),
      { numRuns: 5 },
    );
  });

  test("lets a request pass that weighs more than one shard's part, exactly as often as it may", async () => {
    const t = backend();
    const heavy = { ...SHARED, weight: 24 };
    const asked = [await ask(t, heavy, START_MS), await ask(t, heavy, START_MS)];
    expect(asked.map(({ ok }) => ok)).toEqual([true, true]);
    const before = await rows(t);
    const third = await ask(t, heavy, START_MS);
    expect(third).toMatchObject({ ok: false, info: { limit: 64, remaining: 16 } });
    expect(await rows(t)).toEqual(before);
    if (third.ok) throw new Error("it was refused");
    expect((await ask(t, heavy, START_MS + third.retryAfterMs - 1)).ok).toBe(false);
    expect((await ask(t, heavy, START_MS + third.retryAfterMs)).ok).toBe(true);
    let light = 0;
    for (let i = 0; i < 64; i++) if ((await ask(t, SHARED, START_MS)).ok) light += 1;
    expect(light).toBeLessThanOrEqual(16);
  });

  test("with a small rate is one row", async () => {
    const t = backend();
    await ask(t, { ...SHARED, max: 3, windowMs: MINUTE }, START_MS);
    expect(await rows(t)).toMatchObject([{ k: "global:all" }]);
  });
});
