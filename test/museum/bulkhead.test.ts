import { expect, test, vi } from "vitest";
import { internal } from "../../convex/_generated/api";
import { errorData } from "../../src/errors/appError";
import { MINUTE, SECOND } from "../../src/core/time";
import { callProvider } from "../../src/providers/call";
import { jsonResponse, virtualIo } from "../../src/providers/testing";
import { backend, type Backend, START_MS, useStillClock } from "../edge/backend";
import { append, begin } from "../edge/chat";
import { admit, permit, settle } from "./guards";

useStillClock();

const at = (afterMs: number): void => void vi.setSystemTime(START_MS + afterMs);
const POOL = 12;
const LEASE_MS = MINUTE;

const admitted = async (t: Backend, calls: number): Promise<number> => {
  let count = 0;
  for (let i = 0; i < calls; i++) if ((await admit(t)).ok) count += 1;
  return count;
};

const inFlight = async (t: Backend): Promise<number> =>
  (await t.query(internal.bulkhead.listInFlightByProvider, { provider: "serper_search" })).length;

// Source: failsafe-lib/failsafe#393, failsafe-lib/failsafe#400, Soju06/codex-lb#466
test("failsafe#393, #400, codex-lb#466: permits of callers that crashed come back after one lease", async () => {
  const t = backend();
  // Every holder dies without a word.
  expect(await admitted(t, POOL + 5)).toBe(POOL);
  at(LEASE_MS - 1);
  expect(await admitted(t, 1)).toBe(0);
  at(LEASE_MS);
  expect(await inFlight(t)).toBe(0);
  expect(await admitted(t, POOL + 5)).toBe(POOL);
});

// Source: argoproj/argo-workflows#16405
test("argo-workflows#16405: a slot is given back whether or not its limit can be read", async () => {
  const t = backend();
  const held = [await permit(t), await permit(t), await permit(t)];
  for (const limit of ["no number", "1", ""]) {
    vi.stubEnv("BULKHEAD_SERPER_MAX_CONCURRENT", limit);
    const [one] = held.splice(-1);
    if (one === undefined) throw new Error("one for each limit");
    expect(await settle(t, one, "success")).toEqual({ released: true });
  }
  vi.unstubAllEnvs();
  expect(await inFlight(t)).toBe(0);
  expect(await admitted(t, POOL + 5)).toBe(POOL);
});

// Source: W2-34
test("the original counted tickets up and down: here a late release, or a second one, frees nothing", async () => {
  const t = backend();
  const late = await permit(t);
  await admitted(t, POOL);
  at(LEASE_MS);
  const held = await permit(t);
  expect(await admitted(t, POOL)).toBe(POOL - 1);
  // Another holds the slot by now.
  expect(await settle(t, late, "success")).toEqual({ released: false });
  expect([await inFlight(t), await admitted(t, 1)]).toEqual([POOL, 0]);
  expect(await settle(t, held, "success")).toEqual({ released: true });
  expect(await settle(t, held, "success")).toEqual({ released: false });
  expect(await admitted(t, 5)).toBe(1);
});

// Source: W2-34
test("the original's tickets lived for 45 seconds, and streams for longer", async () => {
  vi.stubEnv("BULKHEAD_OR_PRI_LEASE_TTL_MS", "60000");
  const t = backend();
  const { streamId } = await begin(t);
  const expiries = async () =>
    (await t.run((ctx) => ctx.db.query("slots").collect())).map(({ e }) => e - START_MS);
  expect(await expiries()).toEqual([MINUTE]);
  // What a worker stores of the stream is its pulse.
  for (let second = 10; second <= 90; second += 10) {
    at(second * SECOND);
    await append(t, streamId, 3 + (second / 10 - 1), "more");
  }
  const [expiry = 0] = await expiries();
  expect(expiry).toBeGreaterThan(90 * SECOND);
});

// Source: W2-37
test("the original let the slot go when headers arrived, with the body still streaming", async () => {
  const t = backend();
  const { streamId } = await begin(t);
  await append(t, streamId, 3, "the first words");
  const held = await t.query(internal.bulkhead.listInFlightByProvider, {
    provider: "openrouter_chat_primary",
  });
  expect(held).toHaveLength(1);
});

// Source: W2-35
test("the original let calls through whenever the bulkhead itself failed, so most of all under load", async () => {
  vi.useRealTimers();
  const conflict = new Error(
    'Documents read from or written to the "slots" table changed while this mutation was being run',
  );
  const { io, run } = virtualIo(async () => jsonResponse({ fine: true }));
  const gate = {
    admit: () => Promise.reject(conflict),
    mayRetry: async () => true,
    settle: async () => undefined,
  };
  const call = callProvider(
    gate,
    { provider: "serper_search", method: "GET", path: "/search", parse: ({ json }) => json },
    { ...io, env: { SERPER_API_KEY: "key-of-the-test" } },
  );
  const error: unknown = await run(call.catch((thrown: unknown) => thrown));
  expect(errorData(error)).toMatchObject({ code: "overloaded" });
  expect(io.requests).toEqual([]);
});

// Source: W2-33
test("the original's shadow mode read counters that nobody incremented", async () => {
  const t = backend();
  await t.mutation(internal.circuitBreaker.setState, {
    provider: "serper_search",
    state: "metrics_only",
  });
  for (let i = 0; i < 8; i++) await settle(t, await permit(t), "failure");
  const all = await t.query(internal.circuitBreaker.listStatuses, {});
  expect(all.find(({ provider }) => provider === "serper_search")).toMatchObject({
    state: "metrics_only",
    callCount: 8,
    failedCount: 8,
  });
});
