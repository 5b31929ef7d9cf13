import { expect, test, vi } from "vitest";
import { MINUTE } from "../../src/core/time";
import { backend, type Backend, pending, START_MS, useStillClock } from "../edge/backend";
import { admit, calls, permit, phase, settle } from "./guards";

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

test("resilience4j#903, #935, #1389: a half-open circuit whose probe never reports is not stuck", async () => {
  const t = await halfOpen();
  await permit(t);
  expect(await admit(t)).toMatchObject({ ok: false, code: "upstream_unavailable" });
  // The probe's place is a lease: whoever comes after its end is the next probe, and may close it.
  at(COOLDOWN_MS + MINUTE);
  await settle(t, await permit(t), "success");
  expect(await phase(t)).toBe("closed");
});

test("resilience4j#1568, #2172: places of probes come back when probes say nothing about health", async () => {
  const t = await halfOpen();
  for (const outcome of ["neutral", "infrastructure", "neutral"] as const)
    await settle(t, await permit(t), outcome);
  expect(await phase(t)).toBe("half_open");
  await settle(t, await permit(t), "success");
  expect(await phase(t)).toBe("closed");
});

test.each([1, 3])(
  "resilience4j#1432: of a crowd after the cooldown exactly %i get through",
  async (probes) => {
    vi.stubEnv("CIRCUIT_PROBES", String(probes));
    const t = await halfOpen();
    expect(await crowd(t, 40)).toHaveLength(probes);
    expect(await crowd(t, 40)).toHaveLength(0);
  },
);

test("opossum#119: a half-open circuit lets nobody else in, and one failed probe opens it again", async () => {
  const t = await halfOpen();
  const probe = await permit(t);
  expect(await crowd(t, 20)).toHaveLength(0);
  await settle(t, probe, "failure");
  expect(await phase(t)).toBe("open");
  // No rate is asked: the window holds three successes for each failure by now.
  expect(await admit(t)).toMatchObject({ ok: false });
});

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

test("opossum#484: a circuit that a probe closed under load stays closed", async () => {
  const t = backend();
  const late = await permit(t);
  await calls(t, "FFFF");
  at(COOLDOWN_MS);
  await settle(t, await permit(t), "success");
  await settle(t, late, "failure");
  expect(await phase(t)).toBe("closed");
  expect(await crowd(t, 10)).toHaveLength(10);
});

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

test("opossum#719: no timer is needed to become half-open", async () => {
  const t = backend();
  await calls(t, "FFFF");
  const timers = (await pending(t)).filter(({ name }) => name.startsWith("circuitBreaker"));
  expect(timers).toEqual([]);
  at(COOLDOWN_MS);
  expect(await phase(t)).toBe("half_open");
});

test("the original let all of 100 callers through a half-open circuit as probes", async () => {
  const t = await halfOpen();
  expect(await crowd(t, 100)).toHaveLength(1);
});

test("the original closed an open circuit on a late success from before it opened", async () => {
  const t = backend();
  const late = await permit(t);
  await calls(t, "FFFF");
  await settle(t, late, "success");
  expect(await phase(t)).toBe("open");
});

test("the original never opened at 80 % errors, where each fifth call succeeded", async () => {
  const t = backend();
  await calls(t, "FFFS".repeat(12));
  expect(await phase(t)).toBe("open");
});

test("the original counted its own lost transactions as failures of the provider", async () => {
  const t = backend();
  for (let i = 0; i < 10; i++) await settle(t, await permit(t), "infrastructure");
  expect(await phase(t)).toBe("closed");
});

test("the original wrote one document per provider on every success", async () => {
  const t = backend();
  await calls(t, "S".repeat(20));
  const breakers = await t.run((ctx) => ctx.db.query("circuitBreakers").collect());
  const probes = await t.run((ctx) => ctx.db.query("breakerProbes").collect());
  expect([breakers, probes]).toEqual([[], []]);
});
