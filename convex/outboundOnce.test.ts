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
import { DAY, MINUTE } from "../src/core/time";
import { internal } from "./_generated/api";
import type { Permit } from "./model/permit";

useStillClock();

const PROVIDER = "serper_search";
const { circuitBreaker, outbound } = internal;

describe("a call that must not happen twice", () => {
  const CLAIM = { scope: "send", key: "k1", fingerprint: "f", ttlMs: 10 * MINUTE, leaseMs: MINUTE };
  const LIMIT = { name: "send", key: "user:1", max: 2, windowMs: MINUTE };
  const once = (t: Backend, more: Partial<typeof CLAIM> = {}, limits = [LIMIT]) =>
    t.mutation(outbound.admitOnce, {
      provider: PROVIDER,
      limits,
      claim: { ...CLAIM, ...more },
    });
  async function admitted(t: Backend) {
    const verdict = await once(t);
    if (!verdict.ok) throw new Error(JSON.stringify(verdict));
    return verdict;
  }
  const end = (t: Backend, held: { permit: Permit; fence: number }, reply?: string) =>
    t.mutation(outbound.settle, {
      permit: held.permit,
      outcome: reply === undefined ? "failure" : "success",
      attempts: 1,
      latencyMs: 5,
      claim: {
        scope: CLAIM.scope,
        key: CLAIM.key,
        fence: held.fence,
        ...(reply === undefined ? {} : { reply }),
      },
    });
  const TAKEN = { idempotencyKeys: 1, limits: 1, slots: 1 };

  test("takes claim, limit and slot together, and a duplicate neither takes nor writes", async () => {
    const t = backend();
    await admitted(t);
    expect(await rowCounts(t)).toEqual(TAKEN);
    const before = [await stored(t), await t.run((ctx) => ctx.db.query("limits").first())];
    expect(await once(t)).toEqual({
      ok: false,
      duplicate: { kind: "in_progress", retryAfterMs: MINUTE },
    });
    expect(await once(t, { fingerprint: "g" })).toEqual({
      ok: false,
      duplicate: { kind: "conflict" },
    });
    expect([await stored(t), await t.run((ctx) => ctx.db.query("limits").first())]).toEqual(before);
    expect(await rowCounts(t)).toEqual(TAKEN);
  });

  test("takes nothing of the others where one refuses, whichever it is", async () => {
    const t = backend();
    const full = { ...LIMIT, key: "user:2", max: 1 };
    await t.mutation(outbound.admit, { provider: "ebay_search", limits: [full] });
    const limits = () => t.run((ctx) => ctx.db.query("limits").take(10));
    const before = await limits();
    expect(await once(t, {}, [LIMIT, full])).toMatchObject({ ok: false, code: "rate_limited" });
    vi.stubEnv("BULKHEAD_SERPER_MAX_CONCURRENT", "1");
    const { permit } = await t.mutation(circuitBreaker.checkGate, { provider: PROVIDER });
    if (permit === undefined) throw new Error("there is one slot");
    expect(await once(t)).toMatchObject({ ok: false, code: "overloaded" });
    await t.mutation(circuitBreaker.recordSuccess, { permit });
    await t.mutation(circuitBreaker.setState, { provider: PROVIDER, state: "forced_open" });
    expect(await once(t)).toMatchObject({ ok: false, code: "upstream_unavailable" });
    expect(await limits()).toEqual(before);
    expect((await rowCounts(t)).idempotencyKeys).toBeUndefined();
  });

  test("is answered with its reply once it is settled, and may be tried again where it failed", async () => {
    vi.stubEnv("BULKHEAD_SERPER_MAX_CONCURRENT", "1");
    const t = backend();
    expect(await end(t, await admitted(t))).toEqual({ released: true });
    const second = await admitted(t);
    expect(await end(t, second, "sent as 42")).toEqual({ released: true });
    // Told twice, it is neither counted nor answered otherwise.
    expect(await end(t, second)).toEqual({ released: false });
    expect(await once(t)).toEqual({
      ok: false,
      duplicate: { kind: "completed", reply: "sent as 42" },
    });
    expect((await stored(t)).slots).toMatchObject([{ t: { c: { c: 2, f: 1 } } }]);
  });

  test("whose caller dies after its admission is another's after one lease, with nothing leaked", async () => {
    vi.stubEnv("BULKHEAD_SERPER_MAX_CONCURRENT", "1");
    const t = backend();
    const dead = await admitted(t);
    vi.setSystemTime(START_MS + MINUTE - 1);
    expect(await once(t)).toMatchObject({ duplicate: { kind: "in_progress", retryAfterMs: 1 } });
    vi.setSystemTime(START_MS + MINUTE);
    const next = await admitted(t);
    // What the dead one comes back with ends neither the call nor the claim of the other.
    expect(await end(t, dead, "of the dead")).toEqual({ released: false });
    expect(await once(t)).toMatchObject({ duplicate: { kind: "in_progress" } });
    expect(await end(t, next, "done")).toEqual({ released: true });
    expect(await once(t)).toMatchObject({ duplicate: { kind: "completed", reply: "done" } });
    expect(await rowCounts(t)).toEqual({ ...TAKEN, metrics: 1 });
  });

  test("keeps a reply whole or is not settled: the caller may settle it without", async () => {
    const t = backend();
    const held = await admitted(t);
    await refused(end(t, held, "x".repeat(16 * 1_024 + 1)), "invalid_request");
    expect(await end(t, held, "x".repeat(16 * 1_024))).toEqual({ released: true });
  });

  test.each([{ key: "" }, { scope: "" }, { key: "x".repeat(513) }])(
    "is refused with a claim on %j",
    async (wrong) => {
      const t = backend();
      await refused(once(t, wrong), "invalid_request");
      expect(await rowCounts(t)).toEqual({});
    },
  );

  test.each([NaN, -1, Infinity])("is claimed for a bounded time, asked for %d ms", async (ms) => {
    const t = backend();
    await once(t, { ttlMs: ms, leaseMs: ms });
    const row = await t.run((ctx) => ctx.db.query("idempotencyKeys").first());
    expect([MINUTE, 30 * DAY]).toContain((row?.expiresAt ?? 0) - START_MS);
  });
});
