import fc from "fast-check";
import { expect, test, vi } from "vitest";
import { internal } from "../../convex/_generated/api";
import * as Limits from "../../convex/model/limits";
import { throughContention } from "../../src/channels/contention";
import { decide, shardPolicy, shardsFor } from "../../src/core/limiter";
import { MINUTE, SECOND } from "../../src/core/time";
import { errorData } from "../../src/errors/appError";
import { errorSpec } from "../../src/errors/table";
import { retryAfterSeconds } from "../../src/http/problem";
import { guardsOf } from "../../src/http/guards";
import { ROUTE_IDS, routeRow } from "../../src/http/routes";
import {
  backend,
  type Backend,
  pending,
  rowCounts,
  START_MS,
  useStillClock,
} from "../edge/backend";
import { admit } from "./guards";

useStillClock();

const at = (afterMs: number): void => void vi.setSystemTime(START_MS + afterMs);

const ask = (t: Backend, max: number, windowMs: number, more: { shared?: boolean } = {}) =>
  t.mutation(internal.rateLimit.checkAndIncrement, { key: "chat:all", max, windowMs, ...more });

const LOST = new Error(
  'Documents read from or written to the "limits" table changed while this mutation was being run ' +
    "and on every subsequent retry.",
);

// Source: openclaw/clawhub#3529
test("clawhub#3529: shards are chosen from the configured rate, not by hand and once more by hand", () => {
  const perSecond = (rate: number) => shardsFor({ max: rate * 60, windowMs: MINUTE });
  expect([1, 10, 50, 106, 300].map(perSecond)).toEqual([4, 64, 64, 64, 64]);
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1e6 }),
      fc.integer({ min: 1, max: 3_600_000 }),
      (max, windowMs) => {
        const shards = shardsFor({ max, windowMs });
        const parts = Array.from({ length: shards }, (_, i) =>
          shardPolicy({ max, windowMs }, i, shards),
        );
        // No shard is without its part, and together they are the limit, not more.
        expect(Math.min(...parts.map((part) => part.max))).toBeGreaterThanOrEqual(1);
        expect(parts.reduce((sum, part) => sum + part.max, 0)).toBe(max);
      },
    ),
  );
});

// Source: openclaw/clawhub#3063
test("clawhub#3063: a limit keeps nothing beside its count, so that nothing else can be contended for", async () => {
  const t = backend();
  // The first request of a key, a later one, and one after the count was whole again.
  for (const afterMs of [0, 1, 0, 2 * MINUTE]) {
    at(afterMs);
    const written = await t.run(async (ctx) => {
      const request = { name: "chat", key: "all", max: 3, windowMs: MINUTE };
      await Limits.take(ctx, await Limits.check(ctx, request, START_MS + afterMs));
      return (await ctx.meta.getTransactionMetrics()).documentsWritten.used;
    });
    expect(written).toBe(1);
  }
  expect(await rowCounts(t)).toEqual({ limits: 1 });
  // What tells the cleanup that a key is not needed is the count itself.
  at(10 * MINUTE);
  await t.mutation(internal.rateLimit.cleanupExpired, {});
  expect(await rowCounts(t)).toEqual({});
});

// Source: get-convex/convex-js#170
test("convex-js#170: an admission that the platform gave up on is tried again here, not by whoever asked", async () => {
  const waits: number[] = [];
  const io = { random: () => 0.5, sleep: async (ms: number) => void waits.push(ms) };
  let asked = 0;
  const admitted = await throughContention(
    async () => {
      asked += 1;
      if (asked < 3) throw LOST;
      return "admitted";
    },
    { io },
  );
  expect([admitted, waits.length, Math.min(...waits) > 0]).toEqual(["admitted", 2, true]);
});

// Source: get-convex/better-auth#432, get-convex/resend#34
test("better-auth#432, resend#34: a limiter that cannot be had is no crash of what it guards", () => {
  const data = errorData(LOST);
  expect([data.code, errorSpec(data.code).status]).toEqual(["rate_limit_unavailable", 503]);
  expect(data.retryAfterMs).toBeGreaterThan(0);
});

// Source: get-convex/rate-limiter#53
test("rate-limiter#53: a decision is made on the present state, never on a stale one", async () => {
  const t = backend();
  const answers = await Promise.all(Array.from({ length: 12 }, () => ask(t, 5, MINUTE)));
  expect(answers.filter(({ allowed }) => allowed)).toHaveLength(5);
});

// Source: koala73/worldmonitor#6547
test("worldmonitor#6547: a refused request writes nothing, so refusals cannot conflict", async () => {
  const t = backend();
  for (let i = 0; i < 3; i++) await ask(t, 3, MINUTE);
  const refused = await t.run(async (ctx) => {
    const request = { name: "chat", key: "all", max: 3, windowMs: MINUTE };
    const { ok } = await Limits.check(ctx, request, START_MS);
    const { documentsWritten } = await ctx.meta.getTransactionMetrics();
    return [ok, documentsWritten.used];
  });
  expect(refused).toEqual([false, 0]);
  const before = await t.run((ctx) => ctx.db.query("limits").collect());
  for (let i = 0; i < 20; i++) expect((await ask(t, 3, MINUTE)).allowed).toBe(false);
  expect(await t.run((ctx) => ctx.db.query("limits").collect())).toEqual(before);
  expect(await rowCounts(t)).toEqual({ limits: 1 });
});

// Source: koala73/worldmonitor#6706
test("worldmonitor#6706: cleanup goes in bounded batches, and leaves what still says something", async () => {
  const t = backend();
  await t.run(async (ctx) => {
    for (let i = 0; i < 250; i++) await ctx.db.insert("limits", { k: `old:${i}`, t: START_MS - 1 });
  });
  await ask(t, 3, MINUTE);
  await t.mutation(internal.rateLimit.cleanupExpired, {});
  // One batch is gone, and the next is on its way by itself.
  const left = (await rowCounts(t)).limits ?? 0;
  expect([left < 251, left > 1]).toEqual([true, true]);
  expect((await pending(t)).map(({ name }) => name)).toEqual(["rateLimit:cleanupExpired"]);
});

// Source: koala73/worldmonitor#8356, Emp1500/Code2Flow#11, liwala/ay-framework#93
test("worldmonitor#8356, Code2Flow#11, ay-framework#93: no limit lets anybody through because it failed", () => {
  const limits = ROUTE_IDS.flatMap((id) => routeRow(id).guards);
  expect(limits.length).toBeGreaterThan(0);
  expect(limits.filter(({ onFault }) => onFault !== "reject")).toEqual([]);
});

// Source: cursor-boston#1335
test("cursor-boston#1335: a limit that is used up and one that is not to be had are told apart", () => {
  for (const id of ROUTE_IDS)
    for (const { name, refuses } of guardsOf(routeRow(id)).filter((one) =>
      one.name.startsWith("limit"),
    ))
      expect([name, refuses]).toEqual([
        name,
        expect.arrayContaining(["rate_limited", "rate_limit_unavailable"]),
      ]);
  expect(errorData(LOST).code).not.toBe("rate_limited");
});

// Source: animir/node-rate-limiter-flexible (Retry-After)
test("rate-limiter-flexible: Retry-After is a whole number of seconds, and never too early", () => {
  fc.assert(
    fc.property(
      fc.double({ min: 0, max: 1e9, noNaN: true }),
      fc.double({ min: 0, max: 0.999, noNaN: true }),
      (waitMs, draw) => {
        const seconds = retryAfterSeconds(
          { code: "rate_limited", retryAfterMs: waitMs },
          () => draw,
        );
        expect(Number.isInteger(seconds)).toBe(true);
        expect(seconds ?? 0).toBeGreaterThanOrEqual(Math.min(86_400, Math.max(1, waitMs / SECOND)));
      },
    ),
  );
});

// Source: upstash/ratelimit-js (timeout)
test("upstash: no answer says that it is allowed because nobody answered in time", async () => {
  const t = backend();
  const sources = new Set<string>();
  for (const shared of [false, true])
    for (let i = 0; i < 5; i++) sources.add((await ask(t, 600, MINUTE, { shared })).source);
  // What a decision was made on is said: on all there is, or on a shard of it.
  expect([...sources].sort()).toEqual(["exact", "sharded"]);
});

// Source: W2-29
test("the original admitted 240 of 120 requests within 2 ms, across the edge of a window", async () => {
  const t = backend();
  let passed = 0;
  // A window of the clock ends in between: one began with the epoch, and so with every whole minute.
  const edgeMs = MINUTE - (START_MS % MINUTE);
  for (const afterMs of [edgeMs - 1, edgeMs, edgeMs + 1]) {
    at(afterMs);
    for (let i = 0; i < 120; i++) if ((await ask(t, 120, MINUTE)).allowed) passed += 1;
  }
  expect(passed).toBe(120);
});

// Source: W2-29
test("the original's windows admit twice their maximum; here any interval holds burst and rate", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 50 }),
      fc.array(fc.integer({ min: 0, max: 400 }), { minLength: 1, maxLength: 120, size: "max" }),
      (max, gaps) => {
        const policy = { max, windowMs: 1_000 };
        let arrival: number | null = null;
        let nowMs = START_MS;
        const passed: number[] = [];
        for (const gapMs of gaps) {
          nowMs += gapMs;
          const verdict = decide(arrival, nowMs, policy);
          if (!verdict.ok) continue;
          arrival = verdict.arrivalMs;
          passed.push(nowMs);
        }
        for (const [i, fromMs] of passed.entries())
          for (let j = i; j < passed.length; j++) {
            const lengthMs = (passed[j] ?? 0) - fromMs;
            expect(j - i + 1).toBeLessThanOrEqual(max + (max * lengthMs) / policy.windowMs);
          }
      },
    ),
    { numRuns: 60 },
  );
});

// Source: W2-44
test("the original made all users of a shared key wait for one document", async () => {
  const t = backend();
  for (let i = 0; i < 100; i++) await ask(t, 6_000, MINUTE, { shared: true });
  const rows = await t.run((ctx) => ctx.db.query("limits").collect());
  expect(rows.length).toBeGreaterThan(8);
});

// Source: W2-53
test("the original scheduled one mutation for every request it refused", async () => {
  const t = backend();
  for (let i = 0; i < 12; i++) await admit(t);
  const before = (await pending(t)).length;
  for (let i = 0; i < 60; i++) expect((await admit(t)).ok).toBe(false);
  // Refusals are counted where they are made; one look at the provider is on its way, for an alert.
  expect((await pending(t)).length - before).toBe(1);
});
