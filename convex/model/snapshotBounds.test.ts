import { expect, test, vi } from "vitest";
import { PART_BYTES_MAX } from "../../src/channels/whatsapp/parts";
import { KIB } from "../../src/core/bytes";
import { MINUTE } from "../../src/core/time";
import { PROVIDER_IDS } from "../../src/providers/table";
import { backend, type Backend, START_MS, useStillClock } from "../../test/edge/backend";
import { fillAll } from "../../test/edge/rows";
import { internal } from "../_generated/api";
import type { MutationCtx } from "../_generated/server";

useStillClock();

/** The most that a snapshot may read, whatever there is. */
const BOUNDS = { documentsRead: 500, bytesRead: 256 * KIB };
const TEXT = "x".repeat(20 * KIB);
/** As large as a row of the inbox may be: a part of a large delivery. */
const PART = "x".repeat(PART_BYTES_MAX);

/** Rows of one table in transactions that stay within the platform's limits. */
async function insertMany(
  t: Backend,
  count: number,
  insert: (ctx: MutationCtx, i: number) => Promise<unknown>,
): Promise<void> {
  const PER_TRANSACTION = 500;
  for (let first = 0; first < count; first += PER_TRANSACTION)
    await t.run(async (ctx) => {
      for (let i = first; i < Math.min(count, first + PER_TRANSACTION); i++) await insert(ctx, i);
    });
}

const claims = (t: Backend, count: number) =>
  insertMany(t, count, (ctx, i) =>
    ctx.db.insert("idempotencyKeys", {
      scope: "chat:dana",
      key: String(i),
      firstSeenAt: START_MS - i,
      expiresAt: START_MS + MINUTE,
      state: { kind: "completed", reply: TEXT.slice(0, 16 * KIB) },
    }),
  );

const inbox = (t: Backend, count: number) =>
  insertMany(t, count, (ctx, i) =>
    ctx.db.insert("webhookInbox", {
      state: i % 2 === 0 ? "queued" : "dead_letter",
      event: { type: "gmail_history", emailAddress: PART, historyId: "1" },
      attempts: 0,
      dueAtMs: START_MS,
      lastErrorCode: null,
      receivedAtMs: START_MS - i,
    }),
  );

/** Jobs at every place, and in line, with the longest arguments that their rows hold. */
const jobs = (t: Backend, count: number) =>
  insertMany(t, count, (ctx, i) =>
    ctx.db.insert("toolJobs", {
      p: ["r", "n", "b", "c", "f", "x", "d", "search_web:r:0"][i % 8] ?? "",
      a: START_MS - i,
      t: ["search_web", "search_products", "search_global"][i % 3] ?? "",
      c: "r",
      o: "o",
      f: 1,
      j: TEXT.slice(0, KIB),
      w: "attempts_exhausted",
    }),
  );

const stripes = (t: Backend) =>
  insertMany(t, 48, (ctx, i) =>
    ctx.db.insert("toolJobStripes", {
      t: ["search_web", "search_products", "search_global"][i % 3] ?? "",
      z: Math.floor(i / 3),
      r: 1,
      i: 1,
      b: 1,
    }),
  );

const slots = (t: Backend, perPool: number) =>
  insertMany(t, perPool * PROVIDER_IDS.length, (ctx, i) =>
    ctx.db.insert("slots", {
      p: PROVIDER_IDS[i % PROVIDER_IDS.length] ?? "",
      i: Math.floor(i / PROVIDER_IDS.length),
      e: START_MS + MINUTE,
      f: 1,
      t: { g: 0, w: START_MS, c: { c: 9, f: 9 }, x: Array.from({ length: 100 }, () => START_MS) },
    }),
  );

const counters = (t: Backend, minutes: number) =>
  insertMany(t, minutes * 40, (ctx, i) =>
    ctx.db.insert("metrics", {
      minuteMs: START_MS - (START_MS % MINUTE) - Math.floor(i / 40) * MINUTE,
      key: `provider:${PROVIDER_IDS[i % PROVIDER_IDS.length] ?? ""}`,
      shard: i % 40,
      counts: { success: 9 },
      latency: new ArrayBuffer(0),
    }),
  );

// The public original: a few hundred large entries broke the snapshot.
test("a snapshot of full tables reads no more than its bounds, and says what it left out", async () => {
  vi.stubEnv("OPS_MAX_ROWS_PER_SECTION", "500");
  for (const knob of ["OR_PRI", "OR_SEC", "SERPER", "EBAY", "GLOBAL_SEARCH"] as const)
    vi.stubEnv(`BULKHEAD_${knob}_MAX_CONCURRENT`, "500");
  const t = backend(BOUNDS);
  await claims(t, 60);
  await inbox(t, 60);
  await jobs(t, 1_200);
  await stripes(t);
  await slots(t, 60);
  await counters(t, 15);
  const said = await t.query(internal.ops.getReliabilitySnapshot, { minutes: 1_440, limit: 500 });
  expect(said.truncated).toEqual(
    expect.arrayContaining([
      "bulkheads",
      "rateLimitPressure",
      "replayProtection",
      "slo",
      "toolJobs",
      "webhookInbox",
    ]),
  );
  // What a verdict needs most is read first, and none of it goes without because of another.
  expect(said.toolJobs.byStatus.queued).toBeGreaterThan(0);
  expect(said.bulkheads.activeLeaseCount).toBeGreaterThan(30);
  expect(said.webhookInbox.queued).toBeGreaterThan(0);
  expect(said.webhookInbox.deadLetter).toBeGreaterThan(0);
  // Lower bounds are no reason for alarm.
  const notes = said.causes.filter(({ id }) => id.startsWith("truncated:"));
  expect(notes.map(({ severity }) => severity)).toEqual(notes.map(() => "note"));
});

const TOOLS = ["search_web", "search_products", "search_global", "an_old_tool", "another_one"];

/** Queues of the largest size there may be, and what tools left behind that are no more. */
async function queues(t: Backend): Promise<void> {
  await insertMany(t, 160, (ctx, i) =>
    ctx.db.insert("toolJobCounts", {
      ...{ t: TOOLS[i % 5] ?? "", z: Math.floor(i / 5) },
      ...{ completed: 1, failed: 1, cancelled: 1, deadLetters: 1 },
    }),
  );
  await insertMany(t, 80, (ctx, i) =>
    ctx.db.insert("toolJobStripes", {
      ...{ t: TOOLS[i % 5] ?? "", z: Math.floor(i / 5) },
      ...{ r: 1, i: 1, b: 1 },
    }),
  );
  await insertMany(t, 240, (ctx, i) =>
    ctx.db.insert("toolJobs", {
      p: `${TOOLS[i % 5] ?? ""}:${["r", "i", "b"][i % 3] ?? ""}:${(Math.floor(i / 15) % 16).toString(16)}`,
      ...{ a: START_MS - i, t: TOOLS[i % 5] ?? "", c: "r", o: "o", f: 1 },
      j: TEXT.slice(0, KIB),
    }),
  );
  await insertMany(t, 500, (ctx, i) =>
    ctx.db.insert("slots", {
      ...{ p: `tool:${TOOLS[i % 5] ?? ""}`, i: Math.floor(i / 5), e: START_MS + MINUTE, f: 1 },
    }),
  );
}

/** Thirty days of hours and an hour of minutes, each as full as a fold makes them. */
const rollups = (t: Backend) =>
  insertMany(t, 120, (ctx, i) =>
    ctx.db.insert("rollups", {
      span: i < 60 ? "minute" : "hour",
      startMs: START_MS - (START_MS % MINUTE) - (i < 60 ? i * MINUTE : (i - 59) * 60 * MINUTE),
      calls: Array.from({ length: 100 }, (_, key) => ({
        key: `route:${String(key).padStart(58, "k")}`,
        counts: { success: 1_000_000 },
        latency: new ArrayBuffer(150),
      })),
      refusals: Array.from({ length: 100 }, (_, kind) => ({
        bucket: String(kind).padStart(64, "b"),
        outcome: "o".repeat(64),
        reason: "r".repeat(64),
        source: "s".repeat(64),
        count: 1_000_000,
      })),
    }),
  );

const alerts = (t: Backend) =>
  insertMany(t, 1_000, (ctx, i) =>
    ctx.db.insert("alerts", {
      alertKey: `limiter:${i}`,
      kind:
        (["limiter", "circuit_open", "bulkhead_saturated", "queued_depth"] as const)[i % 4] ??
        "limiter",
      severity: "warning",
      summary: TEXT.slice(0, 400),
      ...{ observed: 1, threshold: 1, windowMinutes: 5 },
      status: i % 2 === 0 ? "active" : "resolved",
      notice: "raised",
      delivery:
        (["pending", "sent", "dead", "not_configured"] as const)[Math.floor(i / 4) % 4] ?? "dead",
      ...{ attempts: 1, dueAt: START_MS - i, createdAt: START_MS - i, updatedAt: START_MS },
    }),
  );

test("with everything full at once it keeps its bounds, and what is wrong is still seen", async () => {
  vi.stubEnv("OPS_MAX_ROWS_PER_SECTION", "500");
  vi.stubEnv("TOOL_QUEUE_ALERT_MAX_DLQ", "1000000");
  const t = backend(BOUNDS);
  await queues(t);
  await jobs(t, 1_200);
  await alerts(t);
  await rollups(t);
  await counters(t, 6);
  await claims(t, 60);
  // Pools and circuits of other names, before and among those that count.
  await insertMany(t, 60, (ctx, i) =>
    ctx.db.insert("slots", { p: `a_pool_${i}`, i: 0, e: START_MS + MINUTE, f: 1 }),
  );
  await insertMany(t, 60, (ctx, i) =>
    ctx.db.insert("circuitBreakers", {
      provider: `a_provider_${i}`,
      state: { kind: "closed" },
      ...{ generation: 1, updatedAt: START_MS },
    }),
  );
  vi.stubEnv("BULKHEAD_SERPER_MAX_CONCURRENT", "2");
  await insertMany(t, 2, (ctx, i) =>
    ctx.db.insert("slots", { p: "serper_search", i, e: START_MS + MINUTE, f: 1 }),
  );
  await t.run((ctx) =>
    ctx.db.insert("circuitBreakers", {
      provider: "serper_search",
      state: { kind: "open", openedAtMs: START_MS, openings: 1, reason: "failure_rate" },
      ...{ generation: 1, updatedAt: START_MS },
    }),
  );
  const said = await t.query(internal.ops.getReliabilitySnapshot, { minutes: 1_440, limit: 500 });
  expect(said.verdict).toBe("degraded");
  expect(said.causes.map(({ id }) => id)).toEqual(
    expect.arrayContaining([
      "circuit_open:serper_search",
      "bulkhead_saturated:serper_search",
      "alerts_undelivered",
    ]),
  );
  expect(said.truncated).toEqual(
    expect.arrayContaining(["alerts", "bulkheads", "slo", "toolJobs", "toolQueueAlerts"]),
  );
  expect(said.rateLimitPressure.alertsInWindow).toBeGreaterThan(0);
});

test("a snapshot reads none of what is large: values, payloads, messages and frames", async () => {
  const t = backend(BOUNDS);
  const number = () => START_MS - 1_000;
  const text = (path: string) =>
    /^(toolResultCache|toolJobPayloads|messages|streamChunks|whatsappMessages)\./.test(path)
      ? "x".repeat(300 * KIB)
      : "search_web";
  await fillAll(t, { text, number });
  const said = await t.query(internal.ops.getReliabilitySnapshot, {});
  expect(said.truncated).toEqual([]);
});
