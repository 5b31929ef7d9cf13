import { expect, test } from "vitest";
import { callProvider, type CallIo, type Gate } from "../../../src/providers/call";
import { type Permit, startGuarded, together } from "./guarded";

const PROVIDER = "serper_search";
const CALLS_AT_ONCE = 20;
const ROUNDS = 5;

test("a provider that always fails is asked a tenth more often, or ten times, by calls that all retry", async () => {
  // Its circuit would spare it sooner; here the budget is alone.
  const app = await startGuarded({
    latencyMs: 1,
    knobs: { BULKHEAD_SERPER_MAX_CONCURRENT: "40", CIRCUIT_WINDOW_MS: "3600000" },
  });
  await app.run("circuitBreaker:setState", { provider: PROVIDER, state: "metrics_only" });
  const gate: Gate = {
    admit: async () => ({ ok: true, permit: await permitNow() }),
    mayRetry: (permit, attempts) => {
      const { slotId } = permit as Permit;
      return app.run<boolean>("outbound:mayRetry", { provider: PROVIDER, slotId, attempts });
    },
    settle: async (permit, { attempts, kind }) => {
      await app.settle(permit as Permit, kind, attempts);
    },
  };
  const permitNow = async (): Promise<Permit> => {
    const verdict = await app.admit(PROVIDER);
    if (!verdict.ok) throw new Error(JSON.stringify(verdict));
    return verdict.permit;
  };
  let sent = 0;
  const io: CallIo = {
    env: { SERPER_API_KEY: "key" },
    now: () => 0,
    random: Math.random,
    // No time passes between attempts; the end of an attempt's own time never comes.
    sleep: (ms) => (ms > 3_000 ? new Promise(() => undefined) : Promise.resolve()),
    fetch: async () => {
      sent += 1;
      return new Response("", { status: 503 });
    },
  };
  const request = { provider: PROVIDER, method: "GET", path: "/search", parse: () => 1 } as const;
  let failed = 0;
  for (let round = 0; round < ROUNDS; round++)
    await together(CALLS_AT_ONCE, async () => {
      await callProvider(gate, request, io).catch(() => (failed += 1));
    });
  const { callCount, retryCount } = await app.status(PROVIDER);
  await app.close();
  expect(failed).toBe(ROUNDS * CALLS_AT_ONCE);
  expect([callCount, callCount + retryCount]).toEqual([failed, sent]);
  expect(sent).toBeGreaterThan(failed + 5);
  expect(sent).toBeLessThanOrEqual(1.1 * failed + 10);
});
