import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { backend, type Backend, START_MS, useStillClock } from "../../test/edge/backend";
import { MINUTE, SECOND } from "../../src/core/time";
import * as Slots from "./slots";

useStillClock();

const POOL = "pool";

const take = (
  t: Backend,
  nowMs: number,
  size: number,
  leaseMs = MINUTE,
): Promise<Slots.Lease | null> =>
  t.run(async (ctx) => {
    const request = { pool: POOL, size, holder: "h", leaseMs };
    const free = await Slots.findFree(ctx, request, nowMs);
    return free === null ? null : await Slots.take(ctx, free, nowMs);
  });

const release = (t: Backend, lease: Slots.Lease, nowMs: number, attempts = 1) =>
  t.run((ctx) => Slots.release(ctx, lease, { attempts, nowMs }));

const renew = (t: Backend, lease: Slots.Lease, nowMs: number, leaseMs = MINUTE) =>
  t.run((ctx) => Slots.renew(ctx, lease, { nowMs, leaseMs }));

const held = async (t: Backend, nowMs: number) =>
  (await t.run((ctx) => Slots.held(ctx, { pool: POOL, limit: 100 }, nowMs))).length;

type Step =
  | { readonly kind: "take" }
  | { readonly kind: "release"; readonly which: number }
  | { readonly kind: "renew"; readonly which: number }
  | { readonly kind: "wait"; readonly ms: number }
  | { readonly kind: "resize"; readonly size: number };

const steps = fc.array(
  fc.oneof(
    { weight: 5, arbitrary: fc.record({ kind: fc.constant("take" as const) }) },
    {
      weight: 4,
      arbitrary: fc.record({
        kind: fc.constantFrom("release" as const, "renew" as const),
        which: fc.nat(),
      }),
    },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant("wait" as const), ms: fc.nat(70) }) },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant("resize" as const),
        size: fc.integer({ min: 1, max: 5 }),
      }),
    },
  ) satisfies fc.Arbitrary<Step>,
  { size: "max", maxLength: 60 },
);

test("over any history, holders are the ones a list of leases has, and never more than the size", async () => {
  const LEASE_MS = 100;
  await fc.assert(
    fc.asyncProperty(steps, async (history) => {
      const t = backend();
      /** Every lease ever given, those lost to others included, and when it ends. */
      const given: { lease: Slots.Lease; untilMs: number; over: boolean }[] = [];
      let nowMs = START_MS;
      let size = 3;
      const current = () => given.filter(({ over, untilMs }) => !over && untilMs > nowMs);
      for (const step of history) {
        if (step.kind === "wait") nowMs += step.ms;
        if (step.kind === "resize") size = step.size;
        if (step.kind === "take") {
          const lease = await take(t, nowMs, size, LEASE_MS);
          const busy = current().filter(({ lease: { index } }) => index < size);
          // A place is found exactly where one is left.
          expect(lease === null).toBe(busy.length >= size);
          if (lease !== null) {
            expect(lease.index).toBeLessThan(size);
            for (const one of given) if (one.lease.index === lease.index) one.over = true;
            given.push({ lease, untilMs: nowMs + LEASE_MS, over: false });
          }
        }
        if (step.kind === "release" || step.kind === "renew") {
          const one = given[step.which % Math.max(1, given.length)];
          if (one === undefined) continue;
          const mine = !one.over;
          if (step.kind === "release") {
            expect(await release(t, one.lease, nowMs)).toBe(mine);
            one.over = true;
          } else {
            expect(await renew(t, one.lease, nowMs, LEASE_MS)).toBe(mine);
            if (mine && one.untilMs - nowMs < LEASE_MS / 2) one.untilMs = nowMs + LEASE_MS;
          }
        }
        expect(await held(t, nowMs)).toBe(current().length);
      }
    }),
    { numRuns: 12 },
  );
});

describe("a slot", () => {
  test("of an expired lease is taken over, and its late holder can do nothing to it", async () => {
    const t = backend();
    const first = await take(t, START_MS, 1);
    if (first === null) throw new Error("the pool is empty");
    expect(await take(t, START_MS + MINUTE - 1, 1)).toBeNull();
    const second = await take(t, START_MS + MINUTE, 1);
    expect(second).toEqual({ ...first, fence: first.fence + 1 });
    expect(await release(t, first, START_MS + MINUTE)).toBe(false);
    expect(await renew(t, first, START_MS + MINUTE)).toBe(false);
    expect(await held(t, START_MS + MINUTE)).toBe(1);
  });

  test("released twice is released once, and never frees the one who came after", async () => {
    const t = backend();
    const first = await take(t, START_MS, 1);
    if (first === null) throw new Error("the pool is empty");
    expect(await release(t, first, START_MS)).toBe(true);
    expect(await release(t, first, START_MS)).toBe(false);
    await take(t, START_MS, 1);
    expect(await release(t, first, START_MS)).toBe(false);
    expect(await held(t, START_MS)).toBe(1);
  });

  test("above the size drains: its holder keeps it, nobody takes it again", async () => {
    const t = backend();
    const leases = await Promise.all([0, 1, 2].map(() => take(t, START_MS, 3)));
    expect(await take(t, START_MS, 1)).toBeNull();
    for (const lease of leases)
      if (lease !== null && lease.index > 0) expect(await release(t, lease, START_MS)).toBe(true);
    expect(await take(t, START_MS, 1)).toBeNull();
    expect(await held(t, START_MS)).toBe(1);
  });
});

describe("the traffic of a pool", () => {
  const traffic = (t: Backend, nowMs: number) => t.run((ctx) => Slots.traffic(ctx, POOL, nowMs));

  test("is the calls and retries settled in the last two minutes", async () => {
    const t = backend();
    for (const attempts of [1, 3, 1]) {
      const lease = await take(t, START_MS, 1);
      if (lease !== null) await release(t, lease, START_MS, attempts);
    }
    expect(await traffic(t, START_MS)).toEqual({ calls: 3, retries: 2 });
    expect(await traffic(t, START_MS + 2 * MINUTE - 1)).toEqual({ calls: 3, retries: 2 });
    expect(await traffic(t, START_MS + 2 * MINUTE)).toEqual({ calls: 0, retries: 0 });
    const lease = await take(t, START_MS + 2 * MINUTE, 1);
    if (lease !== null) await release(t, lease, START_MS + 2 * MINUTE + SECOND, 2);
    expect(await traffic(t, START_MS + 2 * MINUTE + SECOND)).toEqual({ calls: 1, retries: 1 });
  });
});
