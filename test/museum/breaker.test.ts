import { expect, test, vi } from "vitest";
import { MINUTE, SECOND } from "../../src/core/time";
import { backend, type Backend, pending, START_MS, useStillClock } from "../edge/backend";
import { admit, calls, permit, phase, settle, status } from "./guards";

useStillClock();

const COOLDOWN_MS = 2 * MINUTE;
const at = (afterMs: number): void => void vi.setSystemTime(START_MS + afterMs);

/** A provider whose circuit opened, and whose cooldown is over. */
async function halfOpen(): Promise<Backend> {
  const t = backend();
  await calls(t, "FFFF");
  expect(await phase(t)).toBe("open");
  at(COOLDOWN_MS);
  return t;
}

const crowd = async (t: Backend, size: number) =>
  (await Promise.all(Array.from({ length: size }, () => admit(t)))).filter(({ ok }) => ok);

// Source: resilience4j/resilience4j#903, resilience4j/resilience4j#935, resilience4j/resilience4j#1389
test("resilience4j#903, #935, #1389: a half-open circuit whose probe never reports is not stuck", async () => {
  const t = await halfOpen();
  await permit(t);
  expect(await admit(t)).toMatchObject({ ok: false, code: "upstream_unavailable" });
  // The probe's place is a lease: whoever comes after its end is the next probe, and may close it.
  at(COOLDOWN_MS + MINUTE);
  await settle(t, await permit(t), "success");
  expect(await phase(t)).toBe("closed");
});

// Source: resilience4j/resilience4j#1568, resilience4j/resilience4j#2172
test("resilience4j#1568, #2172: places of probes come back when probes say nothing about health", async () => {
  const t = await halfOpen();
  for (const outcome of ["neutral", "infrastructure", "neutral"] as const)
    await settle(t, await permit(t), outcome);
  expect(await phase(t)).toBe("half_open");
  await settle(t, await permit(t), "success");
  expect(await phase(t)).toBe("closed");
});

// Source: resilience4j/resilience4j#1432
test.each([1, 3])(
  "resilience4j#1432: of a crowd after the cooldown exactly %i get through",
  async (probes) => {
    vi.stubEnv("CIRCUIT_PROBES", String(probes));
    const t = await halfOpen();
    expect(await crowd(t, 40)).toHaveLength(probes);
    expect(await crowd(t, 40)).toHaveLength(0);
  },
);

// Source: nodeshift/opossum#119
test("opossum#119: a half-open circuit lets nobody else in, and one failed probe opens it again", async () => {
  const t = await halfOpen();
  const probe = await permit(t);
  expect(await crowd(t, 20)).toHaveLength(0);
  await settle(t, probe, "failure");
  expect(await phase(t)).toBe("open");
  // No rate is asked: the window holds three successes for each failure by now.
  expect(await admit(t)).toMatchObject({ ok: false });
});

// Source: nodeshift/opossum#385
test("opossum#385: calls that fail at once after it opened neither keep it open nor count again", async () => {
  const t = backend();
  const held = await Promise.all(Array.from({ length: 6 }, () => permit(t)));
  for (const one of held) await settle(t, one, "failure");
  expect(await phase(t)).toBe("open");
  at(COOLDOWN_MS - 1);
  expect(await admit(t)).toMatchObject({ ok: false, retryAfterMs: 1 });
  at(COOLDOWN_MS);
  expect((await admit(t)).ok).toBe(true);
});

// Source: nodeshift/opossum#484
test("opossum#484: a circuit that a probe closed under load stays closed", async () => {
  const t = backend();
  const late = await Promise.all(Array.from({ length: 6 }, () => permit(t)));
  await calls(t, "FFFF");
  at(COOLDOWN_MS);
  await settle(t, await permit(t), "success");
  // Those of before the opening go on failing, more of them than open a circuit.
  for (const one of late) await settle(t, one, "failure");
  expect(await phase(t)).toBe("closed");
  expect((await status(t)).failureCount).toBe(0);
  expect(await crowd(t, 10)).toHaveLength(10);
});

// Source: nodeshift/opossum#504, nodeshift/opossum#658
test("opossum#504, #658: instances that live for one call share one state, and the next one probes", async () => {
  const first = await halfOpen();
  const rows = await first.run((ctx) => ctx.db.query("circuitBreakers").collect());
  // Another instance knows what is stored and nothing else.
  const second = backend();
  await second.run(async (ctx) => {
    for (const { generation, provider, state, updatedAt } of rows)
      await ctx.db.insert("circuitBreakers", { generation, provider, state, updatedAt });
  });
  expect(await phase(second)).toBe("half_open");
  await settle(second, await permit(second), "success");
  expect(await phase(second)).toBe("closed");
});

// Source: nodeshift/opossum#719
test("opossum#719: no timer is needed to become half-open", async () => {
  const t = backend();
  await calls(t, "FFFF");
  const timers = (await pending(t)).filter(({ name }) => name.startsWith("circuitBreaker"));
  expect(timers).toEqual([]);
  at(COOLDOWN_MS);
  expect(await phase(t)).toBe("half_open");
});

// Source: W2-16
test("the original let all of 100 callers through a half-open circuit as probes", async () => {
  const t = await halfOpen();
  expect(await crowd(t, 100)).toHaveLength(1);
});

// Source: W2-17
test("the original closed an open circuit on a late success from before it opened", async () => {
  const t = backend();
  const late = await permit(t);
  await calls(t, "FFFF");
  await settle(t, late, "success");
  expect(await phase(t)).toBe("open");
});

// Source: W2-18
test("the original never opened at 80 % errors, where each fifth call succeeded", async () => {
  vi.stubEnv("CIRCUIT_SERPER_THRESHOLD", "5");
  const t = backend();
  // Apart from each other: what happens in one millisecond has no order, and would be one long run.
  for (let second = 0; second < 40 && (await phase(t)) === "closed"; second++) {
    at(second * SECOND);
    await calls(t, second % 5 === 4 ? "S" : "F");
  }
  expect(await status(t)).toMatchObject({ state: "open", reason: "failure_rate" });
});

// Source: W2-18
test("the original kept calling a provider that answered, but took a minute for it", async () => {
  const t = backend();
  for (let second = 0; second < 40 && (await phase(t)) === "closed"; second++) {
    at(second * SECOND);
    await settle(t, await permit(t), "success", MINUTE);
  }
  expect(await status(t)).toMatchObject({ state: "open", reason: "slow_call_rate" });
});

// Source: W2-36
test("the original counted its own lost transactions as failures of the provider", async () => {
  const t = backend();
  for (let i = 0; i < 30; i++) await settle(t, await permit(t), "infrastructure");
  // Nor do they add to what does count: one failure fewer than open the circuit.
  await calls(t, "FFF");
  expect(await status(t)).toMatchObject({ state: "closed", failureCount: 3, failedCount: 3 });
});

// Source: W2-42
test("the original wrote one document per provider on every success", async () => {
  const t = backend();
  await calls(t, "S".repeat(20));
  const breakers = await t.run((ctx) => ctx.db.query("circuitBreakers").collect());
  const probes = await t.run((ctx) => ctx.db.query("breakerProbes").collect());
  expect([breakers, probes]).toEqual([[], []]);
});
