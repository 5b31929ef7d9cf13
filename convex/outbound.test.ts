import { describe, expect, test, vi } from "vitest";
import { backend, type Backend, rowCounts, START_MS, useStillClock } from "../test/edge/backend";
import { stored } from "../test/edge/chat";
import { MINUTE, SECOND } from "../src/core/time";
import { internal } from "./_generated/api";
import type { Permit } from "./model/permit";

useStillClock();

type Outcome = "success" | "failure" | "neutral" | "infrastructure";

const admit = (t: Backend, provider = "serper_search") =>
  t.mutation(internal.outbound.admit, { provider, holder: "h" });

const settle = (t: Backend, permit: Permit, outcome: Outcome, attempts = 1) =>
  t.mutation(internal.outbound.settle, { permit, outcome, attempts });

async function permit(t: Backend): Promise<Permit> {
  const verdict = await admit(t);
  if (!verdict.ok) throw new Error(JSON.stringify(verdict));
  return verdict.permit;
}

const call = async (t: Backend, outcome: Outcome, attempts = 1) =>
  settle(t, await permit(t), outcome, attempts);

describe("a call to a provider", () => {
  test("holds a slot from its admission to its settlement", async () => {
    const t = backend();
    const held = await permit(t);
    expect(held).toEqual({
      provider: "serper_search",
      generation: 0,
      pool: "serper_search",
      index: held.index,
      fence: 1,
      admittedAtMs: START_MS,
    });
    expect((await stored(t)).slots).toMatchObject([{ holder: "h", expiresAt: START_MS + MINUTE }]);
    expect(await settle(t, held, "success", 3)).toEqual({ released: true });
    expect((await stored(t)).slots).toMatchObject([{ holder: null, calls: 1, retries: 2 }]);
    // A healthy provider costs no row of a breaker.
    expect(await rowCounts(t)).toEqual({ slots: 1 });
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
    expect(breakers).toMatchObject([{ state: { kind: "closed", failures: 1 } }]);
    expect(slots).toMatchObject([{ holder: "h", calls: 1 }]);
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
    expect(await admit(t)).toEqual({
      ok: false,
      code: "upstream_unavailable",
      retryAfterMs: MINUTE,
    });
    expect((await admit(t, "ebay_search")).ok).toBe(true);
    vi.setSystemTime(START_MS + MINUTE);
    // Weakness W2-16 of the public original: everybody was a probe.
    const probe = await permit(t);
    for (let i = 0; i < 20; i++) expect((await admit(t)).ok).toBe(false);
    await settle(t, probe, "success");
    expect((await stored(t)).breakers).toMatchObject([{ state: { kind: "closed", failures: 0 } }]);
  });

  // Weakness W2-17 of the public original: a late success closed an open circuit.
  test("hears of calls admitted before it opened no more", async () => {
    vi.stubEnv("CIRCUIT_SERPER_THRESHOLD", "1");
    const t = backend();
    const early = await permit(t);
    await call(t, "failure");
    await settle(t, early, "success");
    expect((await stored(t)).breakers).toMatchObject([{ state: { kind: "open" }, generation: 1 }]);
  });

  // Weakness W2-36 of the public original: contention counted against the provider.
  test.each(["neutral", "infrastructure"] as const)(
    "is not moved by what is %s",
    async (outcome) => {
      vi.stubEnv("CIRCUIT_SERPER_THRESHOLD", "1");
      const t = backend();
      for (let i = 0; i < 3; i++) await call(t, outcome);
      expect((await stored(t)).breakers).toEqual([]);
    },
  );

  test("is not written by successes", async () => {
    const t = backend();
    await call(t, "failure");
    await call(t, "success");
    const { breakers } = await stored(t);
    vi.setSystemTime(START_MS + SECOND);
    for (let i = 0; i < 3; i++) await call(t, "success");
    expect((await stored(t)).breakers).toEqual(breakers);
  });

  test("whose probe is neutral lets the next one through", async () => {
    vi.stubEnv("CIRCUIT_SERPER_THRESHOLD", "1");
    vi.stubEnv("CIRCUIT_SERPER_COOLDOWN_MS", "60000");
    const t = backend();
    await call(t, "failure");
    vi.setSystemTime(START_MS + MINUTE);
    await call(t, "infrastructure");
    expect((await admit(t)).ok).toBe(true);
    expect((await admit(t)).ok).toBe(false);
  });
});

describe("the retry budget of a provider", () => {
  const mayRetry = (t: Backend, provider = "serper_search") =>
    t.query(internal.outbound.mayRetry, { provider });

  test("is a tenth of its calls, and free while they are few", async () => {
    const t = backend();
    expect(await mayRetry(t)).toBe(true);
    for (let i = 0; i < 9; i++) await call(t, "success", 3);
    expect(await mayRetry(t)).toBe(true);
    await call(t, "success");
    expect(await mayRetry(t)).toBe(false);
    vi.setSystemTime(START_MS + 2 * MINUTE);
    expect(await mayRetry(t)).toBe(true);
  });

  test("of a tenth is used up by the tenth", async () => {
    const t = backend();
    for (let i = 0; i < 19; i++) await call(t, "success");
    expect(await mayRetry(t)).toBe(true);
    await call(t, "success", 2);
    expect(await mayRetry(t)).toBe(true);
    await call(t, "success", 2);
    expect(await mayRetry(t)).toBe(false);
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
