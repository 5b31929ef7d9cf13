import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { backend, type Backend, START_MS, useStillClock } from "../../test/edge/backend";
import { MINUTE } from "../../src/core/time";
import type { Doc } from "../_generated/dataModel";
import * as SlotPicks from "./slotPicks";
import * as Slots from "./slots";

useStillClock();

const POOL = "pool";

interface Taken extends Slots.Lease {
  readonly index: number;
}

const take = (t: Backend, nowMs: number, size: number, leaseMs = MINUTE): Promise<Taken | null> =>
  t.run(async (ctx) => {
    const request = { pool: POOL, size, holder: "h", leaseMs };
    const free = await Slots.findFree(ctx, request, nowMs);
    if (free === null) return null;
    return { index: free.index, ...(await Slots.take(ctx, free, nowMs)) };
  });

async function taken(t: Backend, nowMs: number, size: number): Promise<Taken> {
  const lease = await take(t, nowMs, size);
  if (lease === null) throw new Error("nothing is free");
  return lease;
}

/** Releases as settlements do: only what is still held. */
const release = (t: Backend, lease: Slots.Lease, nowMs: number, riding: Slots.Riding = {}) =>
  t.run(async (ctx) => {
    const row = await Slots.loadHeld(ctx, lease);
    if (row !== null) await Slots.release(ctx, row, nowMs, riding);
    return row !== null;
  });

const renew = (t: Backend, lease: Slots.Lease, nowMs: number, leaseMs = MINUTE) =>
  t.run((ctx) => Slots.renew(ctx, lease, { nowMs, leaseMs }));

const handOver = (t: Backend, lease: Slots.Lease, expiresAtMs: number, riding: Slots.Riding = {}) =>
  t.run(async (ctx) => {
    const row = await Slots.loadHeld(ctx, lease);
    if (row === null) return null;
    return await Slots.handOver(ctx, row, { holder: "next", expiresAtMs, ...riding });
  });

const held = async (t: Backend, nowMs: number) =>
  (await t.run((ctx) => Slots.held(ctx, POOL, nowMs))).length;

const rows = (t: Backend) => t.run((ctx) => Slots.ofPool(ctx, POOL));

/** Puts slots of the pool as they are given, by index; those left out were never taken. */
const put = (t: Backend, slots: Readonly<Record<number, number>>) =>
  t.run(async (ctx) => {
    for (const [index, e] of Object.entries(slots))
      await ctx.db.insert("slots", { p: POOL, i: Number(index), e, f: 1 });
  });

type Step =
  | { readonly kind: "take" }
  | { readonly kind: "release"; readonly which: number }
  | { readonly kind: "renew"; readonly which: number }
  | { readonly kind: "handOver"; readonly which: number }
  | { readonly kind: "wait"; readonly ms: number }
  | { readonly kind: "resize"; readonly size: number };

const steps = fc.array(
  fc.oneof(
    { weight: 5, arbitrary: fc.record({ kind: fc.constant("take" as const) }) },
    {
      weight: 5,
      arbitrary: fc.record({
        kind: fc.constantFrom("release" as const, "release" as const, "renew", "handOver"),
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

/** Every lease ever given, those lost to others included, and when it ends. */
interface Given {
  readonly lease: Taken;
  untilMs: number;
  over: boolean;
}

const LEASE_MS = 100;

test("over any history, holders are the ones a list of leases has, and never more than the size", async () => {
  await fc.assert(
    fc.asyncProperty(steps, async (history) => {
      const t = backend();
      const given: Given[] = [];
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
        if ("which" in step) await end(t, given, step, nowMs);
        expect(await held(t, nowMs)).toBe(current().length);
      }
      const fences = given.map(({ lease: { fence, index } }) => `${index}:${fence}`);
      expect(new Set(fences).size).toBe(given.length);
    }),
    { numRuns: 15 },
  );
});

/** What is done to any lease ever given works exactly while it is the slot's last one. */
async function end(
  t: Backend,
  given: Given[],
  { kind, which }: Extract<Step, { which: number }>,
  nowMs: number,
): Promise<void> {
  const one = given[which % Math.max(1, given.length)];
  if (one === undefined) return;
  const mine = !one.over;
  switch (kind) {
    case "release":
      expect(await release(t, one.lease, nowMs)).toBe(mine);
      one.over = true;
      return;
    case "renew":
      expect(await renew(t, one.lease, nowMs, LEASE_MS)).toBe(mine);
      if (mine && one.untilMs - nowMs < LEASE_MS / 2) one.untilMs = nowMs + LEASE_MS;
      return;
    case "handOver": {
      const next = await handOver(t, one.lease, nowMs + LEASE_MS);
      expect(next !== null).toBe(mine);
      one.over = true;
      if (next === null) return;
      const lease = { ...next, index: one.lease.index };
      given.push({ lease, untilMs: nowMs + LEASE_MS, over: false });
    }
  }
}

describe("a slot", () => {
  test("of an expired lease is taken over, and its late holder can do nothing to it", async () => {
    const t = backend();
    const first = await taken(t, START_MS, 1);
    expect(await take(t, START_MS + MINUTE - 1, 1)).toBeNull();
    const second = await take(t, START_MS + MINUTE, 1);
    expect(second).toEqual({ ...first, fence: first.fence + 1 });
    expect(await release(t, first, START_MS + MINUTE)).toBe(false);
    expect(await renew(t, first, START_MS + MINUTE)).toBe(false);
    expect(await held(t, START_MS + MINUTE)).toBe(1);
  });

  test("released twice is released once, and never frees the one who came after", async () => {
    const t = backend();
    const first = await taken(t, START_MS, 1);
    expect(await release(t, first, START_MS)).toBe(true);
    expect(await release(t, first, START_MS)).toBe(false);
    await take(t, START_MS, 1);
    expect(await release(t, first, START_MS)).toBe(false);
    expect(await held(t, START_MS)).toBe(1);
  });

  test("above the size drains: its holder keeps it, nobody takes it again", async () => {
    const t = backend();
    const leases = await Promise.all([0, 1, 2].map(() => taken(t, START_MS, 3)));
    expect(await take(t, START_MS, 1)).toBeNull();
    for (const lease of leases)
      if (lease.index > 0) expect(await release(t, lease, START_MS)).toBe(true);
    expect(await take(t, START_MS, 1)).toBeNull();
    expect(await held(t, START_MS)).toBe(1);
  });

  test("is renewed once half of its lease has passed, and not written before", async () => {
    const t = backend();
    const lease = await taken(t, START_MS, 1);
    expect(await renew(t, lease, START_MS + MINUTE / 2)).toBe(true);
    expect(await rows(t)).toMatchObject([{ e: START_MS + MINUTE }]);
    expect(await renew(t, lease, START_MS + MINUTE / 2 + 1)).toBe(true);
    expect(await rows(t)).toMatchObject([{ e: START_MS + 1.5 * MINUTE + 1, f: lease.fence }]);
  });

  test("keeps what rides on it through every holder, and each holder's name no longer than that", async () => {
    const t = backend();
    const riding = { n: "job", d: 3, q: 2, t: { g: 1, w: 5, c: { c: 7 } } };
    await release(t, await taken(t, START_MS, 1), START_MS, riding);
    const [free] = await rows(t);
    expect(free).toMatchObject({ ...riding, e: START_MS, f: 2 });
    expect(free).not.toHaveProperty("h");
    const lease = await taken(t, START_MS, 1);
    expect(await rows(t)).toMatchObject([{ ...riding, h: "h", f: 3 }]);
    await handOver(t, lease, START_MS + MINUTE, { d: 4 });
    expect(await rows(t)).toMatchObject([{ ...riding, d: 4, h: "next", f: 4 }]);
    await release(t, { ...lease, fence: 4 }, START_MS + 1);
    expect(await rows(t)).toMatchObject([{ ...riding, d: 4, e: START_MS + 1, f: 5 }]);
  });
});

describe("a pick", () => {
  const pick = (t: Backend, from: number, looks = 100, size = 8) =>
    t.run((ctx) =>
      SlotPicks.pick(ctx, { pool: POOL, size, points: [from], looks, late: false }, START_MS),
    );
  const FREE = START_MS;
  const BUSY = START_MS + 1;

  interface Case {
    readonly what: string;
    readonly slots: Readonly<Record<number, number>>;
    readonly from: number;
    readonly index: number;
    readonly gap: number;
  }
  const CASES: readonly Case[] = [
    { what: "a slot never taken, at the start", slots: {}, from: 5, index: 5, gap: 0 },
    { what: "a slot that is free since now", slots: { 5: FREE }, from: 5, index: 5, gap: 0 },
    {
      what: "the next free one after busy ones",
      slots: { 2: BUSY, 3: BUSY, 4: FREE },
      from: 2,
      index: 4,
      gap: 2,
    },
    { what: "a gap in the numbers", slots: { 2: BUSY, 4: BUSY }, from: 2, index: 3, gap: 1 },
    { what: "one past the last row", slots: { 6: BUSY }, from: 6, index: 7, gap: 1 },
    { what: "one round the end", slots: { 0: BUSY, 6: BUSY, 7: BUSY }, from: 6, index: 1, gap: 3 },
    {
      what: "none beyond the size",
      slots: { 6: BUSY, 7: BUSY, 8: FREE },
      from: 6,
      index: 0,
      gap: 2,
    },
  ];
  test.each(CASES)("finds $what", async ({ slots, from, index, gap }) => {
    const t = backend();
    await put(t, slots);
    const picked = await pick(t, from);
    expect([picked.free?.index, picked.gap, picked.busy.length]).toEqual([index, gap, gap]);
    expect(picked.free?.id === null).toBe(!(index in slots));
  });

  test("finds none where all are busy, and looks no further than it may", async () => {
    const t = backend();
    await put(t, Object.fromEntries(Array.from({ length: 8 }, (_, i) => [i, BUSY])));
    expect(await pick(t, 3)).toMatchObject({ free: null, gap: 8 });
    expect(await pick(t, 3, 4)).toMatchObject({ free: null, gap: 4 });
    const ids = (await rows(t)).map(({ _id }) => _id);
    expect((await pick(t, 6, 4)).busy).toEqual([ids[6], ids[7], ids[0], ids[1]]);
  });
});

test("a pick looks here and there before it walks, and takes the first that is free", async () => {
  const t = backend();
  await put(t, { 0: START_MS + 1, 1: START_MS + 1, 2: START_MS, 3: START_MS });
  const picked = (points: number[]) =>
    t.run((ctx) =>
      SlotPicks.pick(ctx, { pool: POOL, size: 6, points, looks: 6, late: false }, START_MS),
    );
  expect((await picked([0, 3, 2, 1])).free).toMatchObject({ index: 3, sinceMs: START_MS });
  expect((await picked([1, 5, 2, 0])).free).toEqual({ index: 5, id: null, sinceMs: 0 });
  expect(await picked([0, 1, 1, 0])).toMatchObject({ free: { index: 2 }, gap: 2 });
});

describe("a scarce slot of a crowded pool", () => {
  /** Of 64 slots one is free, 40 after where the pick starts. */
  async function crowd(freeSinceMs: number): Promise<Backend> {
    const t = backend();
    const busyUntilMs = START_MS + MINUTE;
    const slots = Array.from({ length: 64 }, (_, i) => [i, i === 40 ? freeSinceMs : busyUntilMs]);
    await put(t, Object.fromEntries(slots) as Record<number, number>);
    return t;
  }
  const findWith = (t: Backend, roll: number) => {
    // Both picks, the short one and the whole one, look at the first slot four times and walk on
    // from there; the last roll is about leaving what was found.
    const rolls = [...Array.from({ length: 8 }, () => 0), roll];
    vi.spyOn(Math, "random").mockImplementation(() => rolls.shift() ?? 0);
    return take(t, START_MS, 64);
  };

  test("just freed is left to others by most who see it", async () => {
    const t = await crowd(START_MS - 100);
    expect(await findWith(t, 0.21)).toBeNull();
    expect(await findWith(t, 0.19)).toMatchObject({ index: 40 });
  });

  test("is left by whoever may have lost races already, and that is no small pool's way", async () => {
    const ask = (t: Backend, askedAtMs: number, size: number) =>
      t.run((ctx) =>
        Slots.findFree(ctx, { pool: POOL, size, leaseMs: MINUTE, askedAtMs }, START_MS),
      );
    vi.spyOn(Math, "random").mockReturnValue(0);
    const t = await crowd(START_MS - 100);
    expect(await ask(t, START_MS - 121, 64)).toBeNull();
    expect(await ask(t, START_MS - 120, 64)).toMatchObject({ index: 40 });
    const small = backend();
    const busy = Array.from({ length: 12 }, (_, i) => [i, START_MS + (i === 11 ? 0 : MINUTE)]);
    await put(small, Object.fromEntries(busy) as Record<number, number>);
    expect(await ask(small, START_MS - MINUTE, 12)).toMatchObject({ index: 11 });
  });

  test("is refused to a late caller; where a few are free, it takes any of those", async () => {
    // Of the sixteen slots from the 56th on, round the end, these are free.
    const pick = async (free: readonly number[], draw: number) => {
      const t = backend();
      const slots = Array.from({ length: 64 }, (_, i) => [
        i,
        START_MS + (free.includes(i) ? 0 : 1),
      ]);
      await put(t, Object.fromEntries(slots.slice(0, 63)) as Record<number, number>);
      const points = [draw, 0, 56];
      const request = { pool: POOL, size: 64, points, looks: 16, late: true };
      return await t.run((ctx) => SlotPicks.pick(ctx, request, START_MS));
    };
    // The last slot was never taken, and is free as well; the 20th is not looked at.
    expect(await pick([57, 3, 20], 0)).toMatchObject({ free: null, crowded: true });
    const found = [];
    for (const draw of [0, 1, 2, 3, 4])
      found.push((await pick([57, 3, 7, 20], draw)).free?.index ?? null);
    expect(found).toEqual([57, 63, 3, 7, 57]);
  });

  test("free for long is taken: nobody races for it", async () => {
    expect(await findWith(await crowd(START_MS - 251), 0.99)).toMatchObject({ index: 40 });
  });
});

describe("a stored tally", () => {
  const counts = fc.record({
    calls: fc.nat(5),
    failures: fc.nat(2),
    slow: fc.nat(2),
    retries: fc.nat(2),
  });
  const tallies = fc.record({
    generation: fc.nat(3),
    halfFromMs: fc.nat(),
    current: counts,
    previous: counts,
    lastSuccessMs: fc.nat(2),
    runMs: fc.array(fc.nat(), { maxLength: 4 }),
  });

  test("is read back as it was, and its zeros are not stored", () => {
    fc.assert(
      fc.property(tallies, (tally) => {
        const t = Slots.storedTally(tally);
        expect(Slots.tallyOf({ t } as Doc<"slots">)).toEqual(tally);
        expect(JSON.stringify({ ...t, g: 1, w: 1 })).not.toMatch(/:0[,}]|\[\]/);
      }),
    );
  });

  test("of a slot that counted nothing is none", () => {
    expect(Slots.tallyOf({ p: POOL, i: 0, e: 0, f: 0 } as Doc<"slots">)).toBeNull();
  });
});
