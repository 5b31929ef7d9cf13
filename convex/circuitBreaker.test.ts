import { describe, expect, test, vi } from "vitest";
import {
  advance,
  backend,
  type Backend,
  refused,
  rowCounts,
  START_MS,
  useStillClock,
} from "../test/edge/backend";
import { MINUTE, SECOND } from "../src/core/time";
import { PROVIDER_IDS } from "../src/providers/table";
import { internal } from "./_generated/api";
import type { Permit } from "./model/permit";

useStillClock();

const PROVIDER = "serper_search";
const { circuitBreaker } = internal;

const checkGate = (t: Backend, provider: string = PROVIDER) =>
  t.mutation(circuitBreaker.checkGate, { provider });

async function permitOf(t: Backend): Promise<Permit> {
  const { permit } = await checkGate(t);
  if (permit === undefined) throw new Error("the gate is shut");
  return permit;
}

const succeed = async (t: Backend, latencyMs?: number) =>
  t.mutation(circuitBreaker.recordSuccess, {
    permit: await permitOf(t),
    ...(latencyMs === undefined ? {} : { latencyMs }),
  });

const fail = async (t: Backend) =>
  t.mutation(circuitBreaker.recordFailure, { permit: await permitOf(t) });

const setState = (t: Backend, state: "closed" | "forced_open" | "metrics_only") =>
  t.mutation(circuitBreaker.setState, { provider: PROVIDER, state });

async function statusOf(t: Backend) {
  const statuses = await t.query(circuitBreaker.listStatuses, {});
  const found = statuses.find(({ provider }) => provider === PROVIDER);
  if (found === undefined) throw new Error("no status");
  return found;
}

/** Opens it by three failures in a row, at the start. */
async function open(t: Backend): Promise<void> {
  vi.stubEnv("CIRCUIT_SERPER_THRESHOLD", "3");
  vi.stubEnv("CIRCUIT_SERPER_COOLDOWN_MS", "60000");
  for (let i = 0; i < 3; i++) await fail(t);
}

describe("checkGate", () => {
  test("allows a call with a permit, and takes a slot for it", async () => {
    const t = backend();
    const gate = await checkGate(t);
    expect(gate).toMatchObject({ allowed: true, state: "closed", retryAfterMs: 0 });
    expect(gate.permit).toMatchObject({ provider: PROVIDER, generation: 0, fence: 1 });
    expect(await rowCounts(t)).toEqual({ slots: 1 });
  });

  test("shuts for as long as the circuit is open, and writes nothing then", async () => {
    const t = backend();
    await open(t);
    vi.setSystemTime(START_MS + 20 * SECOND);
    const before = await rowCounts(t);
    expect(await checkGate(t)).toEqual({
      allowed: false,
      state: "open",
      retryAfterMs: 40 * SECOND,
    });
    expect(await rowCounts(t)).toEqual(before);
  });

  test("says half-open to the probe and to those it keeps waiting", async () => {
    const t = backend();
    await open(t);
    vi.setSystemTime(START_MS + MINUTE);
    const probe = await checkGate(t);
    expect(probe).toMatchObject({ allowed: true, state: "half_open" });
    expect(probe.permit).toHaveProperty("probeId");
    expect(await checkGate(t)).toMatchObject({ allowed: false, state: "half_open" });
  });

  test("shuts where no slot is free, whatever the circuit says", async () => {
    vi.stubEnv("BULKHEAD_SERPER_MAX_CONCURRENT", "1");
    const t = backend();
    await permitOf(t);
    expect(await checkGate(t)).toEqual({ allowed: false, state: "closed", retryAfterMs: SECOND });
  });

  test("of a provider nobody knows is refused", async () => {
    await refused(checkGate(backend(), "nobody"), "invalid_request");
  });
});

describe("recordSuccess", () => {
  test("gives the slot back, once", async () => {
    const t = backend();
    const permit = await permitOf(t);
    const record = () => t.mutation(circuitBreaker.recordSuccess, { permit });
    expect(await record()).toEqual({ released: true, state: "closed" });
    expect(await record()).toEqual({ released: false, state: "closed" });
    expect(await statusOf(t)).toMatchObject({ callCount: 1 });
  });

  test("ends the row of failures", async () => {
    vi.stubEnv("CIRCUIT_SERPER_THRESHOLD", "3");
    const t = backend();
    for (let i = 0; i < 2; i++) expect(await fail(t)).toMatchObject({ failureCount: i + 1 });
    vi.setSystemTime(START_MS + 1);
    await succeed(t);
    vi.setSystemTime(START_MS + 2);
    for (let i = 0; i < 2; i++)
      expect(await fail(t)).toMatchObject({ failureCount: i + 1, opened: false });
  });

  test("of a probe closes the circuit, and nothing of before is counted", async () => {
    const t = backend();
    await open(t);
    vi.setSystemTime(START_MS + MINUTE);
    expect(await succeed(t)).toEqual({ released: true, state: "closed" });
    expect(await statusOf(t)).toMatchObject({ failureCount: 0, callCount: 0, generation: 2 });
  });

  test("that took too long counts as slow", async () => {
    const t = backend();
    await succeed(t, 8 * SECOND - 1);
    await succeed(t, 8 * SECOND);
    expect(await statusOf(t)).toMatchObject({ callCount: 2, slowCount: 1 });
  });
});

describe("recordFailure", () => {
  test("says when it opened the circuit, and until when that holds", async () => {
    vi.stubEnv("CIRCUIT_SERPER_THRESHOLD", "2");
    vi.stubEnv("CIRCUIT_SERPER_COOLDOWN_MS", "60000");
    const t = backend();
    const late = await permitOf(t);
    const closed = { state: "closed", opened: false, cooldownUntil: null };
    expect(await fail(t)).toEqual({ released: true, failureCount: 1, ...closed });
    expect(await fail(t)).toEqual({
      released: true,
      state: "open",
      opened: true,
      failureCount: 0,
      cooldownUntil: START_MS + MINUTE,
    });
    // One that was under way is given back, and opens nothing again.
    expect(await t.mutation(circuitBreaker.recordFailure, { permit: late })).toMatchObject({
      released: true,
      opened: false,
      cooldownUntil: START_MS + MINUTE,
    });
  });

  test("of a probe opens it for longer, each time", async () => {
    const t = backend();
    await open(t);
    let openedMs = START_MS;
    for (const cooldownMs of [MINUTE, 2 * MINUTE, 4 * MINUTE, 8 * MINUTE, 8 * MINUTE]) {
      expect((await statusOf(t)).cooldownUntil).toBe(openedMs + cooldownMs);
      openedMs += cooldownMs;
      vi.setSystemTime(openedMs);
      expect(await fail(t)).toMatchObject({ opened: true, state: "open" });
    }
  });
});

test("what was admitted before the circuit opened and closed again is not counted after", async () => {
  const t = backend();
  const early = await permitOf(t);
  await open(t);
  vi.setSystemTime(START_MS + MINUTE - 1);
  await t.mutation(circuitBreaker.setState, { provider: PROVIDER, state: "closed" });
  const late = await t.mutation(circuitBreaker.recordFailure, { permit: early, latencyMs: MINUTE });
  expect(late).toMatchObject({ released: true, opened: false, failureCount: 0 });
  expect(await statusOf(t)).toMatchObject({
    failureCount: 0,
    callCount: 0,
    slowCount: 0,
    generation: 2,
  });
});

describe("setState", () => {
  test("forced open lets nothing through, for ever, and what is under way changes nothing", async () => {
    const t = backend();
    const early = await permitOf(t);
    expect(await setState(t, "forced_open")).toEqual({ state: "forced_open", generation: 1 });
    await t.mutation(circuitBreaker.recordSuccess, { permit: early });
    vi.setSystemTime(START_MS + 1_000 * MINUTE);
    expect(await checkGate(t)).toMatchObject({ allowed: false, state: "forced_open" });
    expect(await statusOf(t)).toMatchObject({ state: "forced_open", cooldownUntil: null });
  });

  test("metrics only lets everything through and counts it", async () => {
    vi.stubEnv("CIRCUIT_SERPER_THRESHOLD", "1");
    vi.stubEnv("CIRCUIT_CALLS_MIN", "1");
    const t = backend();
    await setState(t, "metrics_only");
    for (let i = 0; i < 4; i++)
      expect(await fail(t)).toMatchObject({ opened: false, state: "metrics_only" });
    expect(await statusOf(t)).toMatchObject({ failureCount: 4, failedCount: 4 });
  });

  test("closed gives it back to its own judgement, out of any state", async () => {
    const t = backend();
    await open(t);
    expect(await setState(t, "closed")).toEqual({ state: "closed", generation: 2 });
    expect(await statusOf(t)).toMatchObject({ failureCount: 0, cooldownUntil: null });
    for (let i = 0; i < 3; i++) await fail(t);
    expect(await statusOf(t)).toMatchObject({ state: "open", generation: 3 });
  });

  test("forgets the probes that were out", async () => {
    const t = backend();
    await open(t);
    vi.setSystemTime(START_MS + MINUTE);
    const probe = await permitOf(t);
    await setState(t, "closed");
    expect((await rowCounts(t)).breakerProbes).toBeUndefined();
    await t.mutation(circuitBreaker.recordFailure, { permit: probe });
    expect(await statusOf(t)).toMatchObject({ state: "closed", generation: 2 });
  });
});

describe("listStatuses", () => {
  test("has every provider, those in trouble first", async () => {
    const t = backend();
    await open(t);
    const statuses = await t.query(circuitBreaker.listStatuses, {});
    expect(statuses.map(({ provider }) => provider).sort()).toEqual([...PROVIDER_IDS].sort());
    expect(statuses[0]).toEqual({
      provider: PROVIDER,
      state: "open",
      reason: "consecutive_failures",
      failureCount: 0,
      callCount: 0,
      failedCount: 0,
      slowCount: 0,
      retryCount: 0,
      cooldownUntil: START_MS + MINUTE,
      generation: 1,
      updatedAt: START_MS,
    });
    expect(statuses[1]).toMatchObject({ state: "closed", reason: null, updatedAt: null });
  });

  test.each([
    [1, 1],
    [3, 3],
    [0, 1],
    [-1, 1],
    [NaN, 1],
    [1_000, PROVIDER_IDS.length],
  ])("of at most %d has %d", async (limit, count) => {
    expect(await backend().query(circuitBreaker.listStatuses, { limit })).toHaveLength(count);
  });
});

describe("the counts of a pool", () => {
  test("are its slots' together, within the window", async () => {
    vi.stubEnv("CIRCUIT_WINDOW_MS", "60000");
    const t = backend();
    const held = [await permitOf(t), await permitOf(t), await permitOf(t)];
    for (const permit of held) await t.mutation(circuitBreaker.recordFailure, { permit });
    expect(await statusOf(t)).toMatchObject({ callCount: 3, failedCount: 3, failureCount: 3 });
    await advance(t, MINUTE);
    expect(await statusOf(t)).toMatchObject({ callCount: 0, failedCount: 0, failureCount: 3 });
  });

  test("without one slot are what its settlement asks for", async () => {
    const t = backend();
    const [a, b] = [await permitOf(t), await permitOf(t)];
    await t.mutation(circuitBreaker.recordFailure, { permit: a });
    await t.mutation(circuitBreaker.recordSuccess, { permit: b });
    const tallies = (except: Permit) =>
      t.query(circuitBreaker.poolTallies, { provider: PROVIDER, except: except.slotId });
    expect(await tallies(a)).toMatchObject([{ current: { calls: 1, failures: 0 }, runMs: [] }]);
    expect(await tallies(b)).toMatchObject([
      { current: { calls: 1, failures: 1 }, runMs: [START_MS] },
    ]);
  });
});
