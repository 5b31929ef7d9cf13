import { expect, test, vi } from "vitest";
import { MINUTE } from "../../src/core/time";
import { backend, type Backend, START_MS, useStillClock } from "../../test/edge/backend";
import { begin } from "../../test/edge/chat";
import { internal } from "../_generated/api";
import * as Duplicates from "./duplicates";

useStillClock();

const push = (t: Backend) =>
  t.mutation(internal.integrations.gmail.accept, {
    notification: { emailAddress: "dana@example.com", historyId: "1" },
  });

const deliver = (t: Backend) =>
  t.mutation(internal.integrations.whatsapp.accept, {
    events: [
      { type: "status", messageId: "m", status: "sent", atMs: 1, errorCode: null, recipient: null },
    ],
  });

const shown = async (t: Backend) =>
  (await t.query(internal.ops.getReliabilitySnapshot, {})).replayProtection;

test("duplicates of every door are in the snapshot, by scope", async () => {
  const t = backend();
  for (let i = 0; i < 3; i++) await push(t);
  for (let i = 0; i < 2; i++) await deliver(t);
  const idempotency = { key: "k", fingerprint: "f" };
  await begin(t, { idempotency });
  const request = { userId: "dana", content: "hello", idempotency };
  await t.mutation(internal.chatTurns.admit, { request });
  const said = await shown(t);
  expect(said).toEqual({
    keysInWindow: 3,
    duplicateHitsInWindow: 4,
    byScope: {
      gmail_push_history: { totalKeys: 1, duplicateKeys: 1, duplicateHits: 2 },
      whatsapp_status: { totalKeys: 1, duplicateKeys: 1, duplicateHits: 1 },
      chat: { totalKeys: 1, duplicateKeys: 1, duplicateHits: 1 },
    },
  });
  // They are no refusals.
  const { rateLimitPressure } = await t.query(internal.ops.getReliabilitySnapshot, {});
  expect(rateLimitPressure).toMatchObject({ sampledEvents: 0, byBucketOutcome: {} });
  vi.setSystemTime(START_MS + 20 * MINUTE);
  expect(await shown(t)).toMatchObject({ keysInWindow: 0, duplicateHitsInWindow: 0 });
});

test("a crowd is sampled: few rows, and their sum is right on average", async () => {
  const t = backend();
  const COUNT = 160;
  for (let i = 0; i < COUNT; i++)
    await t.run((ctx) => Duplicates.count(ctx, "whatsapp_message", START_MS));
  const rows = await t.run((ctx) => ctx.db.query("rateLimitEvents").take(COUNT));
  expect(rows.length).toBeLessThan(100);
  const { duplicateHitsInWindow } = await shown(t);
  expect(duplicateHitsInWindow).toBeGreaterThan(COUNT / 2);
  expect(duplicateHitsInWindow).toBeLessThan(COUNT * 2);
});

test("nobody who counts one reads what another writes", async () => {
  const t = backend({ documentsRead: 4 });
  await push(t);
  for (let i = 0; i < 20; i++) await push(t);
  expect(await shown(backend())).toMatchObject({ duplicateHitsInWindow: 0 });
  const rows = await t.run((ctx) => ctx.db.query("rateLimitEvents").take(3));
  expect(rows.map(({ shard }) => shard)).toEqual([0, 1, 2]);
});
