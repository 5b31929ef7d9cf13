import { afterAll, beforeAll, expect, test } from "vitest";
import { MINUTE } from "../../src/core/time";
import { type Backend, startBackend, until } from "./backend";
import { chat, postChat, terminals } from "./sse";

let backend: Backend;
/** How far the deployment's clock is ahead: cooldowns pass at once. */
let aheadMs = 0;
beforeAll(async () => {
  backend = await startBackend({
    injection: { nowMs: () => Date.now() + aheadMs },
    env: {
      RATE_LIMIT_CHAT_STREAM_MAX: "1000",
      CIRCUIT_OPENROUTER_PRIMARY_THRESHOLD: "2",
      CIRCUIT_OPENROUTER_SECONDARY_THRESHOLD: "2",
    },
  });
});
afterAll(async () => {
  await backend.close();
});

interface Told {
  readonly eventId: string;
  readonly message: string;
  readonly level: string;
  readonly alert: string;
  readonly notice: string;
}

/** What the tracker was told so far, in order. */
async function told(): Promise<Told[]> {
  interface Event {
    readonly event_id: string;
    readonly message: string;
    readonly level: string;
    readonly tags: { readonly alert: string; readonly notice: string };
  }
  const { envelopes } = await backend.control<{
    envelopes: { items: { header: { type: string }; payload: Event }[] }[];
  }>("sentry/envelopes");
  return envelopes
    .flatMap(({ items }) => items)
    .filter(({ header }) => header.type === "event")
    .map(({ payload: { event_id, level, message, tags } }) => ({
      eventId: event_id,
      message,
      level,
      ...tags,
    }));
}

interface Alert {
  readonly alertKey: string;
  readonly status: string;
  readonly delivery: string;
  readonly attempts: number;
  readonly lastFailure: string | null;
}
const alerts = () => backend.operator<Alert[]>("alerts:listRecent");
const PRIMARY = "circuit:openrouter_chat_primary";
const SECONDARY = "circuit:openrouter_chat_secondary";
const CANARY = "canary-of-what-a-user-wrote";

/** Turns that fail on both routes until both circuits are open, and one that is refused. */
async function outage(): Promise<void> {
  await backend.fault("openrouter", { status: 503, body: { error: CANARY } });
  for (let i = 0; i < 2; i++)
    expect(terminals(await chat(backend, CANARY)).map(({ event }) => event.code)).toEqual([
      "upstream_unavailable",
    ]);
  expect((await postChat(backend, { message: { content: CANARY } })).status).toBe(503);
}

async function recovery(): Promise<void> {
  await backend.fault("openrouter", {});
  aheadMs += 10 * MINUTE;
  expect(terminals(await chat(backend, "hi")).map(({ event }) => event.type)).toEqual(["done"]);
  // The secondary route is not asked while the primary answers, so its circuit is closed by hand.
  await backend.operator("circuitBreaker:setState", {
    provider: "openrouter_chat_secondary",
    state: "closed",
  });
  await backend.operator("rateLimit:monitorAndAlert");
}

test("an outage is told once per circuit, and its end after that", async () => {
  await outage();
  await backend.operator("rateLimit:monitorAndAlert");
  await backend.operator("rateLimit:monitorAndAlert");
  const raised = await until(told, (events) => events.length >= 2);
  expect(raised.map(({ alert, level, notice }) => [alert, level, notice]).sort()).toEqual([
    [PRIMARY, "error", "raised"],
    [SECONDARY, "error", "raised"],
  ]);
  // What was told is noted after it was told, and is told again where that takes minutes.
  await until(alerts, (rows) => rows.every(({ delivery }) => delivery === "sent"));
  await recovery();
  const all = await until(told, (events) => events.length >= 4);
  expect(
    all
      .slice(2)
      .map(({ alert, level, notice }) => [alert, level, notice])
      .sort(),
  ).toEqual([
    [PRIMARY, "info", "recovered"],
    [SECONDARY, "info", "recovered"],
  ]);
  await backend.operator("rateLimit:monitorAndAlert");
  const list = await until(alerts, (rows) => rows.every(({ delivery }) => delivery === "sent"));
  expect(list.map(({ alertKey, status }) => [alertKey, status]).sort()).toEqual([
    [PRIMARY, "resolved"],
    [SECONDARY, "resolved"],
  ]);
  expect(new Set((await told()).map(({ eventId }) => eventId)).size).toBe(4);
  expect(await told()).toHaveLength(4);
  // Neither the tracker nor the rows learn what users wrote or providers answered.
  expect(JSON.stringify(await backend.control("sentry/envelopes"))).not.toContain(CANARY);
  expect(JSON.stringify(await alerts())).not.toContain(CANARY);
});

test("a tracker that is down is told later, nothing is lost, and turns go on", async () => {
  const before = (await told()).length;
  aheadMs += 10 * MINUTE;
  await backend.fault("sentry", { status: 503 });
  await outage();
  await backend.operator("rateLimit:monitorAndAlert");
  const waiting = await until(alerts, (rows) =>
    rows.slice(0, 2).every(({ lastFailure }) => lastFailure === "http_503"),
  );
  expect(waiting.slice(0, 2).map(({ delivery, status }) => [delivery, status])).toEqual([
    ["pending", "active"],
    ["pending", "active"],
  ]);
  // It ends while nobody could be told that it had begun.
  await backend.fault("sentry", { hang: true });
  await recovery();
  expect(await told()).toHaveLength(before);
  await backend.fault("sentry", {});
  // What was hung up on is left behind by its run at worst; the monitor takes it up.
  aheadMs += 20 * MINUTE;
  await backend.operator("rateLimit:monitorAndAlert");
  const all = await until(told, (events) => events.length >= before + 4);
  const ours = all.slice(before);
  for (const key of [PRIMARY, SECONDARY])
    expect(ours.filter(({ alert }) => alert === key).map(({ notice }) => notice)).toEqual([
      "raised",
      "recovered",
    ]);
  await until(alerts, (rows) => rows.every(({ delivery }) => delivery === "sent"));
});

test("without a tracker alerts are kept and say so", async () => {
  const before = (await told()).length;
  aheadMs += 10 * MINUTE;
  await backend.setEnv({ SENTRY_DSN: "" });
  await outage();
  await backend.operator("rateLimit:monitorAndAlert");
  const kept = await until(alerts, (rows) =>
    rows.slice(0, 2).every(({ delivery }) => delivery === "not_configured"),
  );
  expect(kept.slice(0, 2).map(({ status }) => status)).toEqual(["active", "active"]);
  await recovery();
  expect(await told()).toHaveLength(before);
});

test("what was counted of these turns is the same before and after it is folded", async () => {
  interface Reading {
    readonly keys: { readonly key: string; readonly success: number; readonly failure: number }[];
    readonly refusals: { readonly bucket: string; readonly outcome: string }[];
  }
  const read = () => backend.operator<Reading>("metrics:read", { minutes: 240 });
  const before = await read();
  const primary = before.keys.find(({ key }) => key === "provider:openrouter_chat_primary");
  expect(primary?.failure).toBeGreaterThanOrEqual(6);
  expect(primary?.success).toBeGreaterThanOrEqual(3);
  expect(before.refusals.map(({ outcome }) => outcome)).toContain("circuit_open");
  aheadMs += 3 * MINUTE;
  // Folds that meet add nothing twice: what one adds it deletes, and the other does over.
  await Promise.all([1, 2, 3].map(() => backend.operator("metrics:fold")));
  const { keys, refusals } = await read();
  expect({ keys, refusals }).toEqual({ keys: before.keys, refusals: before.refusals });
});
