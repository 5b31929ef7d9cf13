import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { MINUTE } from "../../../src/core/time";
import type { ProviderId } from "../../../src/providers/table";
import {
  type Guarded,
  LOST,
  lostAtMost,
  type Permit,
  permitOf,
  permitsOf,
  startGuarded,
  together,
} from "./guarded";

let app: Guarded;
beforeAll(async () => {
  app = await startGuarded({
    latencyMs: 1,
    staleLag: 2,
    knobs: {
      CIRCUIT_SERPER_THRESHOLD: "1",
      CIRCUIT_EBAY_THRESHOLD: "1",
      CIRCUIT_GLOBAL_SEARCH_THRESHOLD: "20",
      CIRCUIT_GMAIL_OAUTH_THRESHOLD: "1",
      BULKHEAD_SERPER_MAX_CONCURRENT: "200",
      BULKHEAD_EBAY_MAX_CONCURRENT: "200",
      BULKHEAD_GLOBAL_SEARCH_MAX_CONCURRENT: "100",
      BULKHEAD_GMAIL_OAUTH_MAX_CONCURRENT: "100",
    },
  });
});
afterAll(() => app.close());

/** Opens a provider's circuit by one failure, and waits until its cooldown is over. */
async function halfOpen(provider: ProviderId): Promise<number> {
  await app.settle(await permitOf(app, provider), "failure");
  const { cooldownUntil, generation, state } = await app.status(provider);
  expect([state, cooldownUntil === null]).toEqual(["open", false]);
  app.skip((cooldownUntil ?? 0) - Date.now() + MINUTE);
  expect((await app.status(provider)).state).toBe("half_open");
  return generation;
}

describe("a hundred callers at once of a half-open circuit", () => {
  // The public original: all hundred were admitted.
  test.each([
    ["serper_search", 1],
    ["ebay_search", 3],
  ] as const)(
    "of %s are %i probes and refusals, and its successes close it once",
    async (provider, k) => {
      await app.setKnobs({ CIRCUIT_PROBES: String(k) });
      const generation = await halfOpen(provider);
      const verdicts = await together(100, () => app.admit(provider));
      const probes = permitsOf(verdicts);
      expect(probes).toHaveLength(k);
      for (const verdict of verdicts)
        if (!verdict.ok) {
          // Counting a hundred refusals of one moment may lose some of them; never a probe.
          expect(["upstream_unavailable", LOST]).toContain(verdict.code);
          expect(verdict.retryAfterMs).toBeGreaterThan(0);
          expect(verdict.retryAfterMs).toBeLessThanOrEqual(MINUTE);
        }
      expect(await app.inFlight(provider)).toBe(k);
      await Promise.all(probes.map((probe) => app.settle(probe, "success")));
      expect(await app.status(provider)).toMatchObject({
        state: "closed",
        generation: generation + 1,
      });
      expect(permitsOf(await together(100, () => app.admit(provider)))).toHaveLength(100);
    },
  );
});

describe("failures that are settled at once", () => {
  test("fifty of them, open the circuit once, though each may be the one that does", async () => {
    const provider = "global_search";
    const permits = await together(50, () => permitOf(app, provider));
    const released = await Promise.all(permits.map((permit) => app.settle(permit, "failure")));
    expect(released.filter(Boolean)).toHaveLength(50);
    // Those in flight are not seen by each other: the next failures are sure to be the last.
    while ((await app.status(provider)).state === "closed")
      await app.settle(await permitOf(app, provider), "failure");
    expect(await app.status(provider)).toMatchObject({
      state: "open",
      reason: "consecutive_failures",
      generation: 1,
    });
    expect(await app.inFlight(provider)).toBe(0);
  });

  test("are told apart by who opened it: one of them", async () => {
    const provider = "gmail_oauth";
    const permits = await together(12, () => permitOf(app, provider));
    const record = (permit: Permit) =>
      app.run<{ opened: boolean; released: boolean }>("circuitBreaker:recordFailure", { permit });
    const reports = await Promise.all(
      permits.map((permit) => lostAtMost(Infinity, () => record(permit))),
    );
    expect(reports.filter((one) => one.released)).toHaveLength(12);
    expect(reports.filter((one) => one.opened)).toHaveLength(1);
    expect(await app.status(provider)).toMatchObject({ state: "open", generation: 1 });
  });
});
