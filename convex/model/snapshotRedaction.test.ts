import { describe, expect, test, vi } from "vitest";
import { KNOB_NAMES, knobRow } from "../../src/config/knobs";
import { backend, START_MS, useStillClock } from "../../test/edge/backend";
import { fillAll, type Filling } from "../../test/edge/rows";
import { internal } from "../_generated/api";

useStillClock();

const CANARY = "Canary 4711";

/** Keys as they are in life: with these a section finds the rows that it looks for. */
const KEYS: Readonly<Record<string, string>> = {
  "circuitBreakers.provider": "serper_search",
  "idempotencyKeys.scope": "chat:dana",
  "metrics.key": "provider:serper_search",
  "rateLimitEvents.bucket": "chat_stream",
  "rateLimitEvents.outcome": "blocked",
  "rollups.calls.key": "provider:serper_search",
  "rollups.refusals.bucket": "chat_stream",
  "rollups.refusals.outcome": "blocked",
  "slots.p": "serper_search",
  "toolCacheCounts.namespace": "search_web_v1",
  "toolCacheUse.use.namespace": "search_web_v1",
  "toolJobCounts.t": "search_web",
  "toolJobStripes.t": "search_web",
  "toolJobs.p": "d",
  "toolJobs.t": "search_web",
  "toolResultCache.namespace": "search_web_v1",
};

/** Every text is one of a kind, so that what is leaked says where from. */
const text = (path: string): string => `${CANARY} ${path}`;
const number = (path: string): number =>
  // Leases that run, and everything else a moment ago.
  /\.(e|expiresAt|leaseExpiresAt|dueAt)$/.test(path) ? START_MS + 30_000 : START_MS - 1_000;

const FILLINGS: readonly (readonly [string, Filling])[] = [
  ["and in every key", { text, number }],
  ["and keys are ours", { text: (path) => KEYS[path] ?? text(path), number }],
];

// The public original: operators were shown what users asked.
describe("a snapshot of tables with a canary in every text", () => {
  test.each(FILLINGS)("%s holds none of them", async (_, filling) => {
    for (const name of KNOB_NAMES) {
      const { kind, pattern, secret } = { pattern: null, ...knobRow(name) };
      // What has no form may hold anything, and is the operator's own to be shown.
      if (secret || pattern !== null || kind !== "text") vi.stubEnv(name, `${CANARY} ${name}`);
    }
    const t = backend();
    await fillAll(t, filling);
    const said = await t.query(internal.ops.getReliabilitySnapshot, { minutes: 60 });
    expect(JSON.stringify(said)).not.toMatch(/canary|dana/i);
  });

  test("shows what was put in, without its contents", async () => {
    const t = backend();
    await fillAll(t, { text: (path) => KEYS[path] ?? text(path), number });
    const said = await t.query(internal.ops.getReliabilitySnapshot, {});
    expect(said.truncated).toEqual([]);
    expect(said.rateLimitPressure.byBucketOutcome).toHaveProperty("chat_stream:blocked");
    expect(said.circuitBreakers.recent).toMatchObject([{ provider: "serper_search" }]);
    expect(said.bulkheads.inFlightByProvider).toHaveProperty("serper_search");
    expect(said.replayProtection.byScope).toHaveProperty("chat");
    expect(said.toolCache.byNamespace["search_web_v1"]).toBeGreaterThan(0);
    expect(said.toolJobs.byTool).toHaveProperty("search_web");
    expect(said.toolJobs.recentDeadLetters).toContainEqual(
      expect.objectContaining({ toolName: "search_web", reason: "other", errorCode: "other" }),
    );
    expect(said.webhookInbox.deadLetter).toBeGreaterThan(0);
    expect(said.chatStreams.streaming).toBeGreaterThan(0);
  });
});
