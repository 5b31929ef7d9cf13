import { DAY, HOUR, MINUTE, SECOND } from "../../../src/core/time";
import type { Backend } from "../engine/backend";
import { allowing, protectedCall, refusing } from "./guards";
import { OurQueue } from "./queue";

const VALUE_CHARS = 64 * 1_024 - 100;
const NAMESPACE = "search_web_v1";

/** Tables that grow with traffic, and what is kept in them for a time only. */
export const GROWING_TABLES = [
  "alerts",
  "idempotencyKeys",
  "limits",
  "toolJobs",
  "toolJobPayloads",
  "toolResultCache",
  "webhookInbox",
] as const;

/** What counts the open minutes, until a cron folds it away. */
export const MINUTE_TABLES = ["metrics", "rateLimitEvents"] as const;

/** A little of everything: each call leaves what it leaves in production. */
export async function beBusy(backend: Backend, rounds: number): Promise<void> {
  const queue = new OurQueue(backend, { workMs: 0 });
  for (let round = 0; round < rounds; round++) {
    await queue.enqueue(round);
    await backend.clock.sleep(SECOND);
    await backend.mutation("idempotency:claimKey", { scope: "webhook", key: `message-${round}` });
    await backend.mutation("rateLimit:checkAndIncrement", allowing(`user:${round}`));
    for (let i = 0; i < 2; i++)
      await backend.mutation("rateLimit:checkAndIncrement", refusing(`guest:${round}`));
    await protectedCall(backend, { holdMs: 100 });
    if (backend.app.accepts("rateLimit:recordEvent", "bucket"))
      await backend.mutation("rateLimit:recordEvent", {
        bucket: "chat_stream",
        outcome: "blocked",
        reason: "limit",
      });
  }
}

const BROKEN_PROVIDER = "ebay_search";
const FAILURES = 20;
const BURIED = 20;
const LONG_WORK_MS = 10 * MINUTE;

/**
 * A day of traffic under the crons, and trouble at its end: a provider down, dead letters, busy
 * slots, jobs in line, refusals of many kinds, webhooks that wait or were given up. Ends while the
 * trouble lasts.
 */
export async function haveTrouble(backend: Backend, slots: number): Promise<void> {
  const quiet = backend.runCrons(DAY);
  for (let tenth = 0; tenth < (22 * HOUR) / (10 * MINUTE); tenth++) {
    await beBusy(backend, 1);
    await backend.clock.sleep(10 * MINUTE - 2 * SECOND);
  }
  await quiet;
  const lastHours = backend.runCrons(2 * HOUR);
  for (let minute = 0; minute < (2 * HOUR) / MINUTE - 1; minute++) {
    await beBusy(backend, 1);
    await backend.clock.sleep(MINUTE - 2 * SECOND);
  }
  await lastHours;
  const ill = new OurQueue(backend, { workMs: 0, failsAlways: new Set(range(BURIED)) });
  for (const i of range(BURIED)) await ill.enqueue(i);
  await backend.clock.sleep(SECOND);
  for (let i = 0; i < FAILURES; i++)
    await protectedCall(backend, { holdMs: 100, provider: BROKEN_PROVIDER, outcome: "failure" });
  for (const bucket of BUCKETS)
    for (const reason of REASONS)
      await backend.mutation("rateLimit:recordEvent", { bucket, outcome: "blocked", reason });
  const nowMs = backend.clock.nowMs;
  backend.fill(
    "webhookInbox",
    (["queued", "dead_letter"] as const).map((state) => ({
      state,
      event: { type: "gmail_history", emailAddress: "dana@example.com", historyId: "1" },
      attempts: 1,
      dueAtMs: nowMs,
      lastErrorCode: null,
      receivedAtMs: nowMs,
    })),
  );
  const slow = new OurQueue(backend, { workMs: LONG_WORK_MS });
  for (const i of range(3 * slots)) await slow.enqueue(i);
  await backend.mutation("rateLimit:monitorAndAlert", {});
  await backend.mutation("toolJobs:monitorQueueHealth", {});
  await backend.clock.sleep(SECOND);
}

/** The provider answers again, and everything else ends by itself. */
export async function endTrouble(backend: Backend): Promise<void> {
  await backend.clock.idle();
  await backend.clock.sleep(HOUR);
  for (let i = 0; i < FAILURES; i++)
    await protectedCall(backend, { holdMs: 100, provider: BROKEN_PROVIDER });
}

const range = (length: number): number[] => Array.from({ length }, (_, i) => i);
const BUCKETS = ["chat_stream", "gmail_push", "whatsapp_webhook"];
const REASONS = ["limit", "user", "ip", "burst"];

/** Entries of the largest size, all of one text so that a process can hold thousands. */
export async function fillCache(backend: Backend, entries: number): Promise<void> {
  const value = JSON.stringify("x".repeat(VALUE_CHARS));
  for (let i = 0; i < entries; i++) {
    await backend.mutation("toolCache:set", {
      namespace: NAMESPACE,
      key: `query ${i}`,
      value,
      ttlMs: 3_600_000,
    });
  }
}
