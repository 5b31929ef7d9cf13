import { describe, expect, test, vi } from "vitest";
import {
  backend,
  type Backend,
  refused,
  rowCounts,
  START_MS,
  useStillClock,
} from "../test/edge/backend";
import { stored } from "../test/edge/chat";
import { MINUTE, SECOND } from "../src/core/time";
import { internal } from "./_generated/api";
import type { Permit } from "./model/permit";

useStillClock();

type Outcome = "success" | "failure" | "neutral" | "infrastructure";

const admit = (t: Backend, provider = "serper_search") =>
  t.mutation(internal.outbound.admit, { provider });

const settle = (
  t: Backend,
  held: Permit,
  outcome: Outcome,
  { attempts = 1, latencyMs = 100 }: { attempts?: number; latencyMs?: number } = {},
) => t.mutation(internal.outbound.settle, { permit: held, outcome, attempts, latencyMs });

async function permit(t: Backend): Promise<Permit> {
  const verdict = await admit(t);
  if (!verdict.ok) throw new Error(JSON.stringify(verdict));
  return verdict.permit;
}

const call = async (t: Backend, outcome: Outcome, attempts = 1) =>
  settle(t, await permit(t), outcome, { attempts });

/** A provider whose circuit opened once, with its cooldown over. */
async function halfOpen(t: Backend): Promise<void> {
  vi.stubEnv("CIRCUIT_SERPER_THRESHOLD", "1");
  vi.stubEnv("CIRCUIT_SERPER_COOLDOWN_MS", "60000");
  await call(t, "failure");
  vi.setSystemTime(START_MS + MINUTE);
}

const probes = (t: Backend) => t.run((ctx) => ctx.db.query("breakerProbes").take(100));

const breaker = async (t: Backend) => (await stored(t)).breakers[0];

describe("a call to a provider", () => {
  test("holds a slot from its admission to its settlement", async () => {
    const t = backend();
    const held = await permit(t);
    const [slot] = (await stored(t)).slots;
    expect(held).toEqual({
      provider: "serper_search",
      generation: 0,
      slotId: slot?._id,
      fence: 1,
      admittedAtMs: START_MS,
    });
    expect(slot).toMatchObject({ p: "serper_search", f: 1, e: START_MS + MINUTE });
    vi.setSystemTime(START_MS + SECOND);
    expect(await settle(t, held, "success", { attempts: 3 })).toEqual({ released: true });
    expect((await stored(t)).slots).toMatchObject([
      { e: START_MS + SECOND, f: 2, t: { c: { c: 1, r: 2 }, l: START_MS + SECOND } },
    ]);
    // A healthy provider costs no row of a breaker.
    expect(await rowCounts(t)).toEqual({ slots: 1, metrics: 1 });
  });

  test("is refused where all slots are taken, and only that is counted", async () => {
    vi.stubEnv("BULKHEAD_SERPER_MAX_CONCURRENT", "2");
    const t = backend();
    await permit(t);
    await permit(t);
    const { slots } = await stored(t);
    expect(await admit(t)).toEqual({ ok: false, code: "overloaded", retryAfterMs: SECOND });
    const after = await stored(t);
    expect(after.slots).toEqual(slots);
    expect(after.refusals).toMatchObject([
      { bucket: "serper_search", outcome: "bulkhead_saturated", count: 1 },
    ]);
  });

  test("settled twice counts once, and a late one neither frees nor counts", async () => {
    vi.stubEnv("BULKHEAD_SERPER_MAX_CONCURRENT", "1");
    const t = backend();
    const first = await permit(t);
    await settle(t, first, "failure");
    expect(await settle(t, first, "failure")).toEqual({ released: false });
    const lost = await permit(t);
    vi.setSystemTime(START_MS + MINUTE);
    await permit(t);
    expect(await settle(t, lost, "failure")).toEqual({ released: false });
    const { breakers, slots } = await stored(t);
    expect(breakers).toEqual([]);
    expect(slots).toMatchObject([{ e: START_MS + 2 * MINUTE, t: { c: { c: 1, f: 1 } } }]);
  });

  test("settled after its lease, but before anybody took its slot, counts", async () => {
    const t = backend();
    const held = await permit(t);
    vi.setSystemTime(START_MS + 2 * MINUTE);
    expect(await settle(t, held, "failure")).toEqual({ released: true });
    expect((await stored(t)).slots).toMatchObject([
      { e: START_MS + 2 * MINUTE, t: { c: { f: 1 } } },
    ]);
  });

  test("settled by a permit that was altered frees and counts nothing, of any provider", async () => {
    const t = backend();
    const held = await permit(t);
    const other = await admit(t, "ebay_search");
    if (!other.ok) throw new Error("ebay_search has room");
    const before = await stored(t);
    const altered: Permit[] = [
      { ...held, provider: "ebay_search" },
      { ...held, slotId: other.permit.slotId },
      { ...held, fence: held.fence + 1 },
      { ...held, fence: NaN },
      { ...held, provider: "nobody" },
    ];
    for (const one of altered) expect(await settle(t, one, "failure")).toEqual({ released: false });
    expect(await stored(t)).toEqual(before);
    expect(await settle(t, held, "success")).toEqual({ released: true });
  });

  test.each([NaN, Infinity, -1, 1.5, 2 ** 53])(
    "settled after %d attempts is refused, and nothing is changed",
    async (attempts) => {
      const t = backend();
      const held = await permit(t);
      const before = await stored(t);
      await refused(settle(t, held, "success", { attempts }), "invalid_request");
      expect(await stored(t)).toEqual(before);
    },
  );

  test.each([NaN, -5, Infinity])("that took %d ms by its clocks is settled", async (latencyMs) => {
    vi.stubEnv("CIRCUIT_CALLS_MIN", "1");
    const t = backend();
    expect(await settle(t, await permit(t), "success", { latencyMs })).toEqual({ released: true });
    expect((await stored(t)).slots).toMatchObject([{ t: { c: { c: 1 } } }]);
  });

  test("to a provider nobody knows is a fault of ours", async () => {
    await expect(admit(backend(), "nobody")).rejects.toThrow("nobody");
  });
});

describe("the circuit of a provider", () => {
  test("opens on failures in a row, admits one probe, and closes on its success", async () => {
    vi.stubEnv("CIRCUIT_SERPER_THRESHOLD", "3");
    vi.stubEnv("CIRCUIT_SERPER_COOLDOWN_MS", "60000");
    const t = backend();
    for (let i = 0; i < 3; i++) await call(t, "failure");
    expect(await breaker(t)).toMatchObject({
      state: { kind: "open", reason: "consecutive_failures", openings: 1 },
    });
    expect(await admit(t)).toEqual({
      ok: false,
      code: "upstream_unavailable",
      retryAfterMs: MINUTE,
    });
    expect((await admit(t, "ebay_search")).ok).toBe(true);
    vi.setSystemTime(START_MS + MINUTE);
    // The public original: everybody was a probe.
    const probe = await permit(t);
    for (let i = 0; i < 20; i++) expect((await admit(t)).ok).toBe(false);
    await settle(t, probe, "success");
    expect(await breaker(t)).toMatchObject({ state: { kind: "closed" }, generation: 2 });
    expect(await probes(t)).toEqual([]);
    // What was counted before says nothing any more.
    for (let i = 0; i < 2; i++) await call(t, "failure");
    expect(await breaker(t)).toMatchObject({ state: { kind: "closed" }, generation: 2 });
  });

  // The public original: a late success closed an open circuit.
  test("hears of calls admitted before it opened no more", async () => {
    vi.stubEnv("CIRCUIT_SERPER_THRESHOLD", "1");
    const t = backend();
    const [early, another] = [await permit(t), await permit(t)];
    await call(t, "failure");
    await settle(t, early, "success");
    await settle(t, another, "failure");
    expect(await breaker(t)).toMatchObject({
      state: { kind: "open", openings: 1, openedAtMs: START_MS },
      generation: 1,
    });
  });

  // The public original: four errors in five never opened it.
  test("opens on a rate of failures that never come in a row", async () => {
    vi.stubEnv("CIRCUIT_SERPER_THRESHOLD", "5");
    const t = backend();
    const outcomes = ["failure", "failure", "failure", "failure", "success"] as const;
    for (let i = 0; i < 19; i++) {
      await call(t, outcomes[i % 5] ?? "success");
      vi.setSystemTime(START_MS + i + 1);
    }
    expect(await breaker(t)).toBeUndefined();
    await call(t, "success");
    expect(await breaker(t)).toBeUndefined();
    vi.setSystemTime(START_MS + 20);
    await call(t, "failure");
    expect(await breaker(t)).toMatchObject({ state: { kind: "open", reason: "failure_rate" } });
  });

  test("opens where every call is slow, though each succeeds", async () => {
    vi.stubEnv("CIRCUIT_CALLS_MIN", "3");
    const t = backend();
    const slow = async () => settle(t, await permit(t), "success", { latencyMs: 8 * MINUTE });
    await slow();
    await slow();
    expect(await breaker(t)).toBeUndefined();
    await slow();
    expect(await breaker(t)).toMatchObject({ state: { kind: "open", reason: "slow_call_rate" } });
  });

  // The public original: contention counted against the provider.
  test.each(["neutral", "infrastructure"] as const)(
    "is not moved by what is %s",
    async (outcome) => {
      vi.stubEnv("CIRCUIT_SERPER_THRESHOLD", "1");
      vi.stubEnv("CIRCUIT_CALLS_MIN", "1");
      const t = backend();
      for (let i = 0; i < 3; i++)
        await settle(t, await permit(t), outcome, { latencyMs: 8 * MINUTE });
      expect((await stored(t)).breakers).toEqual([]);
    },
  );

  test("is not written by successes", async () => {
    const t = backend();
    await halfOpen(t);
    await call(t, "success");
    const before = await breaker(t);
    vi.setSystemTime(START_MS + MINUTE + SECOND);
    for (let i = 0; i < 3; i++) await call(t, "success");
    expect(await breaker(t)).toEqual(before);
  });

  test.each(["neutral", "infrastructure"] as const)(
    "whose probe is %s lets the next one through",
    async (outcome) => {
      const t = backend();
      await halfOpen(t);
      await call(t, outcome);
      expect((await admit(t)).ok).toBe(true);
      expect((await admit(t)).ok).toBe(false);
    },
  );

  test("whose probe fails opens again at once, for twice as long", async () => {
    const t = backend();
    await halfOpen(t);
    await call(t, "failure");
    expect(await breaker(t)).toMatchObject({
      state: { kind: "open", openings: 2, reason: "failed_probe" },
      generation: 2,
    });
    expect(await admit(t)).toMatchObject({ ok: false, retryAfterMs: 2 * MINUTE });
  });
});

describe("several probes", () => {
  test("are admitted at once, and close the circuit when all of them succeed", async () => {
    vi.stubEnv("CIRCUIT_PROBES", "3");
    const t = backend();
    await halfOpen(t);
    const held = [await permit(t), await permit(t), await permit(t)];
    expect((await admit(t)).ok).toBe(false);
    expect(new Set((await probes(t)).map(({ place }) => place)).size).toBe(3);
    for (const one of held.slice(1)) await settle(t, one, "success");
    // A place whose probe succeeded is not given away again.
    expect((await admit(t)).ok).toBe(false);
    expect((await breaker(t))?.state.kind).toBe("open");
    const [last] = held;
    if (last !== undefined) await settle(t, last, "success");
    expect(await breaker(t)).toMatchObject({ state: { kind: "closed" }, generation: 2 });
    expect(await probes(t)).toEqual([]);
  });

  test("fail together where one does, and those that come later change nothing", async () => {
    vi.stubEnv("CIRCUIT_PROBES", "3");
    const t = backend();
    await halfOpen(t);
    const held = [await permit(t), await permit(t), await permit(t)];
    for (const [i, one] of held.entries()) await settle(t, one, i === 1 ? "failure" : "success");
    expect(await breaker(t)).toMatchObject({ state: { kind: "open", openings: 2 }, generation: 2 });
    expect(await probes(t)).toEqual([]);
  });

  test("that are lost give their places up, and their late reports are not heard", async () => {
    const t = backend();
    await halfOpen(t);
    const lost = await permit(t);
    vi.setSystemTime(START_MS + 2 * MINUTE - 1);
    expect(await admit(t)).toMatchObject({ ok: false, retryAfterMs: 1 });
    vi.setSystemTime(START_MS + 2 * MINUTE);
    const next = await permit(t);
    expect(await probes(t)).toHaveLength(1);
    await settle(t, lost, "failure");
    expect(await breaker(t)).toMatchObject({ state: { kind: "open", openings: 1 }, generation: 1 });
    await settle(t, next, "success");
    expect(await breaker(t)).toMatchObject({ state: { kind: "closed" } });
  });
});

describe("the retry budget of a provider", () => {
  const mayRetry = (t: Backend, provider = "serper_search") =>
    t.query(internal.outbound.mayRetry, { provider });

  test("is ten of them however few its calls are, in any window", async () => {
    const t = backend();
    for (let i = 0; i < 3; i++) await call(t, "success", 4);
    expect(await mayRetry(t)).toBe(true);
    await call(t, "failure", 2);
    expect(await mayRetry(t)).toBe(false);
    vi.setSystemTime(START_MS + 2 * MINUTE);
    expect(await mayRetry(t)).toBe(true);
  });

  test("is a tenth of its calls where these are many", async () => {
    const t = backend();
    const settledWith = (retries: number, i: number) =>
      t.run(async (ctx) => {
        const tally = { g: 0, w: START_MS, c: { c: 60, r: retries } };
        await ctx.db.insert("slots", { p: "serper_search", i, e: START_MS, f: 2, t: tally });
      });
    await settledWith(11, 0);
    expect(await mayRetry(t)).toBe(false);
    await settledWith(0, 1);
    expect(await mayRetry(t)).toBe(true);
    await call(t, "success", 2);
    expect(await mayRetry(t)).toBe(false);
  });

  test("is for the first in flight: none of their retries is known yet", async () => {
    vi.stubEnv("BULKHEAD_SERPER_MAX_CONCURRENT", "20");
    const t = backend();
    for (let i = 0; i < 20; i++) await permit(t);
    const { slots } = await stored(t);
    const inOrder = slots.sort((a, b) => a.i - b.i).map(({ _id }) => _id);
    const granted = async (attempts: number) => {
      const asked = { provider: "serper_search", attempts };
      const answers = [];
      for (const slotId of inOrder)
        answers.push(await t.query(internal.outbound.mayRetry, { ...asked, slotId }));
      return answers.filter(Boolean).length;
    };
    expect([await granted(1), await granted(2)]).toEqual([10, 0]);
  });

  test("is drawn for by those in flight who know no slot of theirs", async () => {
    vi.stubEnv("BULKHEAD_SERPER_MAX_CONCURRENT", "20");
    const t = backend();
    for (let i = 0; i < 20; i++) await permit(t);
    const draw = vi.spyOn(Math, "random");
    for (const [drawn, granted] of [
      [0, true],
      [0.49, true],
      [0.5, false],
      [0.99, false],
    ] as const) {
      draw.mockReturnValue(drawn);
      expect(await mayRetry(t)).toBe(granted);
    }
  });

  test("is none where its circuit is not closed: a probe is one request", async () => {
    vi.stubEnv("CIRCUIT_SERPER_THRESHOLD", "1");
    const t = backend();
    expect(await mayRetry(t)).toBe(true);
    await call(t, "failure");
    expect(await mayRetry(t)).toBe(false);
    vi.setSystemTime(START_MS + 2 * MINUTE);
    await call(t, "neutral");
    expect(await mayRetry(t)).toBe(false);
    await call(t, "success");
    expect(await mayRetry(t)).toBe(true);
  });

  test("of a provider nobody knows is none", async () => {
    expect(await mayRetry(backend(), "nobody")).toBe(false);
  });
});

describe("a provider's token", () => {
  const load = (t: Backend) => t.query(internal.outbound.loadToken, { name: "ebay" });
  const store = (t: Backend, token: string, expiresAtMs: number) =>
    t.mutation(internal.outbound.storeToken, { name: "ebay", token, expiresAtMs });

  test("is handed out until it expires, the newest one only", async () => {
    const t = backend();
    expect(await load(t)).toBeNull();
    await store(t, "a", START_MS + SECOND);
    await store(t, "b", START_MS + MINUTE);
    expect(await load(t)).toEqual({ token: "b", expiresAtMs: START_MS + MINUTE });
    expect(await rowCounts(t)).toEqual({ providerTokens: 1 });
    vi.setSystemTime(START_MS + MINUTE);
    expect(await load(t)).toBeNull();
  });
});
