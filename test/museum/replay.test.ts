import fc from "fast-check";
import { expect, test, vi } from "vitest";
import { internal } from "../../convex/_generated/api";
import { DAY, HOUR, MINUTE } from "../../src/core/time";
import {
  backend,
  type Backend,
  pending,
  rowCounts,
  START_MS,
  useStillClock,
} from "../edge/backend";

useStillClock();

const at = (afterMs: number): void => void vi.setSystemTime(START_MS + afterMs);

const claim = (t: Backend, more: { fingerprint?: string; leaseMs?: number; ttlMs?: number } = {}) =>
  t.mutation(internal.idempotency.claimKey, { scope: "webhook", key: "delivery-1", ...more });

// Source: VilledeMontreal/express-idempotency#32, spring-boot-starter#11
test("express-idempotency#32, spring-boot-starter#11: a claim whose worker died is taken over after its lease, not after days", async () => {
  const t = backend();
  const first = { state: "claimed", fence: START_MS };
  expect(await claim(t, { leaseMs: MINUTE, ttlMs: 3 * DAY })).toMatchObject(first);
  at(MINUTE - 1);
  expect(await claim(t)).toMatchObject({ state: "in_progress", retryAfterMs: 1 });
  at(MINUTE);
  const fence = START_MS + MINUTE;
  expect(await claim(t)).toMatchObject({ state: "claimed", fence });
  // The lease of an attempt is not how long its outcome is kept.
  const attempt = { scope: "webhook", key: "delivery-1", fence };
  await t.mutation(internal.idempotency.completeKey, { ...attempt, reply: "done" });
  at(3 * DAY - 1);
  expect(await claim(t)).toMatchObject({ state: "completed", reply: "done" });
});

// Source: KeeperHub/keeperhub#1922
test("keeperhub#1922: work in progress, work done and another request are three answers", async () => {
  const t = backend();
  const first = await claim(t, { fingerprint: "a" });
  if (first.state !== "claimed") throw new Error("not claimed");
  expect((await claim(t, { fingerprint: "a" })).state).toBe("in_progress");
  expect((await claim(t, { fingerprint: "b" })).state).toBe("conflict");
  const attempt = { scope: "webhook", key: "delivery-1", fence: first.fence };
  await t.mutation(internal.idempotency.completeKey, { ...attempt, reply: "done" });
  expect(await claim(t, { fingerprint: "a" })).toMatchObject({ state: "completed", reply: "done" });
});

// Source: W2-22
test("the original took an expired key for a duplicate until its hourly cleanup", async () => {
  const t = backend();
  // Done, and to be recognised for a minute; and one under way whose lease is longer than its life.
  const done = await claim(t, { ttlMs: MINUTE });
  if (done.state !== "claimed") throw new Error("not claimed");
  const attempt = { scope: "webhook", key: "delivery-1", fence: done.fence };
  await t.mutation(internal.idempotency.completeKey, { ...attempt, reply: "done" });
  const other = { scope: "webhook", key: "delivery-2", ttlMs: MINUTE, leaseMs: 2 * MINUTE };
  await t.mutation(internal.idempotency.claimKey, other);
  at(MINUTE - 1);
  expect(await claim(t)).toMatchObject({ duplicate: true, state: "completed" });
  at(MINUTE);
  expect(await claim(t)).toMatchObject({ duplicate: false, state: "claimed" });
  expect(await t.mutation(internal.idempotency.claimKey, other)).toMatchObject({
    state: "claimed",
  });
});

// Source: W2-22
test("the original let each duplicate extend the life of the first", async () => {
  const t = backend();
  const first = await claim(t, { ttlMs: HOUR });
  if (first.state !== "claimed") throw new Error("not claimed");
  const attempt = { scope: "webhook", key: "delivery-1", fence: first.fence };
  await t.mutation(internal.idempotency.completeKey, attempt);
  for (let minute = 1; minute < 60; minute += 10) {
    at(minute * MINUTE);
    expect((await claim(t)).duplicate).toBe(true);
  }
  at(HOUR);
  expect((await claim(t)).duplicate).toBe(false);
});

// Source: W2-23
test("the original claimed a delivery in one call and scheduled its work in another", async () => {
  const t = backend();
  // A delivery whose transaction fails leaves neither claim nor work: the next one is new.
  vi.stubEnv("RATE_LIMIT_GMAIL_PUSH_MAX", "1");
  const push = (historyId: string) =>
    t.mutation(internal.integrations.gmail.accept, {
      notification: { emailAddress: "a@example.com", historyId },
      addressKey: "address",
    });
  expect((await push("1")).kind).toBe("accepted");
  // Work and claim came together.
  expect((await pending(t)).map(({ name }) => name)).toEqual(["integrations/inbox:processJobs"]);
  expect((await push("2")).kind).toBe("refused");
  const { idempotencyKeys = 0 } = await rowCounts(t);
  expect(idempotencyKeys).toBe(1);
  at(HOUR);
  expect((await push("2")).kind).toBe("accepted");
  expect((await push("2")).kind).toBe("duplicate");
});

// Source: W0-03
test("the original accepted a signed request twice: here none is, wherever in the window its time lies", async () => {
  const skewMs = 5 * MINUTE;
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: -skewMs, max: skewMs }),
      fc.array(fc.integer({ min: 0, max: 3 * MINUTE }), { minLength: 1, maxLength: 6 }),
      async (offsetMs, gaps) => {
        const t = backend();
        at(0);
        const nonce = { scope: "sig", nonce: "n", timestampMs: START_MS + offsetMs, skewMs };
        const accepted = [await t.mutation(internal.idempotency.claimNonce, nonce)];
        let passedMs = 0;
        for (const gapMs of gaps) {
          passedMs += gapMs;
          at(passedMs);
          await t.mutation(internal.idempotency.cleanupExpired, {});
          accepted.push(await t.mutation(internal.idempotency.claimNonce, nonce));
        }
        expect(accepted.filter((one) => one === "accepted")).toHaveLength(1);
      },
    ),
    { numRuns: 25 },
  );
});
