import { SECOND } from "../../../src/core/time";
import type { Backend } from "../engine/backend";
import { allowing, protectedCall, refusing } from "./guards";
import { OurQueue } from "./queue";

const VALUE_CHARS = 64 * 1_024 - 100;
const NAMESPACE = "search_web_v1";

/** Tables that grow with traffic, and what is kept in them for a time only. */
export const GROWING_TABLES = [
  "idempotencyKeys",
  "limits",
  "rateLimitEvents",
  "toolJobs",
  "toolJobPayloads",
  "toolResultCache",
] as const;

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
    await protectedCall(backend, { holdMs: 100, admitPath: "outbound:admit" });
    if (backend.app.accepts("rateLimit:recordEvent", "bucket"))
      await backend.mutation("rateLimit:recordEvent", {
        bucket: "chat_stream",
        outcome: "blocked",
        reason: "limit",
      });
  }
}

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
