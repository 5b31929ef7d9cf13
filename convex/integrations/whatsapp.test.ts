import { convexTest } from "convex-test";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { MessageEvent, StatusReport } from "../../src/channels/whatsapp/event";
import type { MessageStatus } from "../../src/channels/whatsapp/status";
import { DAY, MINUTE, SECOND } from "../../src/core/time";
import { internal } from "../_generated/api";
import schema from "../schema";

const modules = import.meta.glob(["/convex/**/*.{ts,js}", "!/convex/**/*.test.ts"]);
const START_MS = 1_790_000_000_000;

const message = (messageId: string, changed: Partial<MessageEvent> = {}): MessageEvent => ({
  type: "message",
  messageId,
  from: "18765550123",
  fromUserId: null,
  phoneNumberId: "300000000000001",
  kind: "text",
  text: "hello",
  textTruncated: false,
  mediaId: null,
  contextId: null,
  sentAtMs: START_MS - SECOND,
  ...changed,
});

const report = (
  messageId: string,
  status: MessageStatus,
  atMs: number,
  errorCode: number | null = null,
): StatusReport => ({
  type: "status",
  messageId,
  status,
  atMs,
  errorCode,
  recipient: "18765550199",
});

type Backend = ReturnType<typeof backend>;

function backend() {
  return convexTest({ schema, modules });
}

const accept = (t: Backend, events: (MessageEvent | StatusReport)[], addressKey?: string) =>
  t.mutation(
    internal.integrations.whatsapp.accept,
    addressKey === undefined ? { events } : { events, addressKey },
  );

const acceptParts = (t: Backend, key: string, parts: (MessageEvent | StatusReport)[][]) =>
  t.mutation(internal.integrations.whatsapp.acceptParts, { key, parts, addressKey: "address:a" });

const settle = (t: Backend) => t.finishAllScheduledFunctions(() => vi.runAllTimers());

const stored = (t: Backend) =>
  t.run(async (ctx) => ({
    messages: await ctx.db.query("whatsappMessages").take(1000),
    inbox: await ctx.db.query("webhookInbox").take(1000),
    claims: await ctx.db.query("idempotencyKeys").take(1000),
    limits: await ctx.db.query("limits").take(1000),
    scheduled: await ctx.db.system.query("_scheduled_functions").take(1000),
  }));

beforeEach(() => {
  vi.useFakeTimers();
  vi.setSystemTime(START_MS);
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllEnvs();
});

describe("accepting a delivery", () => {
  test("stores claim, job and schedule at once, and the message when the job has run", async () => {
    const t = backend();
    expect(await accept(t, [message("m1")])).toMatchObject({ kind: "accepted" });
    const before = await stored(t);
    expect(before.inbox).toMatchObject([{ state: "queued", attempts: 0, dueAtMs: START_MS }]);
    expect(before.claims).toMatchObject([{ scope: "whatsapp_message", key: "m1" }]);
    expect(before.scheduled).toHaveLength(1);
    expect(before.messages).toEqual([]);
    await settle(t);
    const after = await stored(t);
    expect(after.inbox).toMatchObject([{ state: "done", event: null }]);
    expect(after.messages).toMatchObject([
      { messageId: "m1", from: "18765550123", text: "hello", receivedAtMs: START_MS },
    ]);
  });

  test("a second time is a duplicate without a second job", async () => {
    const t = backend();
    await accept(t, [message("m1")]);
    await settle(t);
    expect(await accept(t, [message("m1")])).toEqual({ kind: "duplicate" });
    const { inbox, messages } = await stored(t);
    expect(inbox).toHaveLength(1);
    expect(messages).toHaveLength(1);
  });

  test("with some new messages accepts those alone", async () => {
    const t = backend();
    await accept(t, [message("m1")]);
    expect(await accept(t, [message("m1"), message("m2")])).toMatchObject({ kind: "accepted" });
    await settle(t);
    const { inbox, messages } = await stored(t);
    expect(inbox).toHaveLength(2);
    expect(messages.map(({ messageId }) => messageId)).toEqual(["m1", "m2"]);
  });

  test("that names a message twice makes one job of it", async () => {
    const t = backend();
    await accept(t, [message("m1"), message("m1")]);
    expect((await stored(t)).inbox).toHaveLength(1);
  });

  test("of a hundred events runs in a few scheduled calls and loses none", async () => {
    const t = backend();
    await accept(
      t,
      Array.from({ length: 100 }, (_, index) => message(`m${index}`)),
    );
    expect((await stored(t)).scheduled).toHaveLength(5);
    await settle(t);
    const { inbox, messages } = await stored(t);
    expect(messages).toHaveLength(100);
    expect(inbox.every(({ state }) => state === "done")).toBe(true);
  });
});

describe("accepting a delivery in parts", () => {
  const PARTS = [[message("m1"), report("s1", "sent", 10)], [message("m2")]];

  /** Parts of one message each: p0, p1, … */
  const partsOf = (count: number) =>
    Array.from({ length: count }, (_, index) => [message(`p${index}`)]);

  const waiting = async (t: Backend) =>
    (await stored(t)).scheduled.filter(({ state }) => state.kind === "pending");

  /** The messages stored. */
  const idsOf = async (t: Backend) =>
    (await stored(t)).messages.map(({ messageId }) => messageId).sort();

  test("stores a row for each, one claim, and a schedule for the first two", async () => {
    const t = backend();
    expect(await acceptParts(t, "k", partsOf(7))).toMatchObject({ kind: "accepted" });
    const { inbox, claims, scheduled } = await stored(t);
    const events = inbox.map(({ event }) => event?.type === "whatsapp_part" && event.events);
    expect(events).toHaveLength(7);
    expect(events).toEqual(expect.arrayContaining(partsOf(7)));
    expect(inbox.every(({ state, attempts }) => state === "queued" && attempts === 0)).toBe(true);
    expect(claims).toMatchObject([{ scope: "whatsapp_delivery", key: "k" }]);
    expect(scheduled).toHaveLength(2);
  });

  test("has no more waiting at any time than two runs, and loses nothing", async () => {
    const t = backend();
    const parts = Array.from({ length: 5 }, (_, part) =>
      Array.from({ length: 50 }, (__, index) => message(`m${part}-${index}`)),
    );
    await acceptParts(t, "k", parts);
    let most = 0;
    for (let run = 0; run < 100; run++) {
      const { length } = await waiting(t);
      if (length === 0) break;
      most = Math.max(most, length);
      vi.advanceTimersByTime(0);
      await t.finishInProgressScheduledFunctions();
    }
    expect(most).toBe(2);
    expect(await waiting(t)).toEqual([]);
    expect(await idsOf(t)).toHaveLength(250);
    expect((await stored(t)).inbox.every(({ state }) => state === "done")).toBe(true);
  });

  test("goes on behind a part that is all known, and behind one that fails for good", async () => {
    vi.stubEnv("WEBHOOK_JOB_ATTEMPTS_MAX", "1");
    const t = backend();
    await accept(t, [message("p2")]);
    const claim = { scope: "whatsapp_message", key: "p4", firstSeenAt: 0, expiresAt: START_MS * 2 };
    await t.run(async (ctx) => {
      for (let copy = 0; copy < 2; copy++) await ctx.db.insert("idempotencyKeys", claim);
    });
    await acceptParts(t, "k", partsOf(9));
    await settle(t);
    expect(await idsOf(t)).toEqual(["p0", "p1", "p2", "p3", "p5", "p6", "p7", "p8"]);
    expect((await stored(t)).inbox.filter(({ state }) => state !== "done")).toMatchObject([
      { state: "dead_letter", event: { events: [{ messageId: "p4" }] } },
    ]);
  });

  test("goes on behind a part that is tried again later, and starts no part twice", async () => {
    const t = backend();
    const claim = { scope: "whatsapp_message", key: "p0", firstSeenAt: 0, expiresAt: START_MS * 2 };
    const copies = await t.run(async (ctx) => [
      await ctx.db.insert("idempotencyKeys", claim),
      await ctx.db.insert("idempotencyKeys", claim),
    ]);
    await acceptParts(t, "k", partsOf(5));
    for (let run = 0; run < 20; run++) {
      vi.advanceTimersByTime(0);
      await t.finishInProgressScheduledFunctions();
    }
    expect(await idsOf(t)).toEqual(["p1", "p2", "p3", "p4"]);
    for (const id of copies) await t.run((ctx) => ctx.db.delete("idempotencyKeys", id));
    await settle(t);
    expect(await idsOf(t)).toEqual(["p0", "p1", "p2", "p3", "p4"]);
    // Each part has had one run, each event another, and the first part one more.
    expect((await stored(t)).scheduled).toHaveLength(5 + 5 + 1);
  });

  test("whose lanes were lost is taken up again part by part by the cleanup", async () => {
    const t = backend();
    await acceptParts(t, "k", partsOf(9));
    for (const { _id } of await waiting(t)) await t.run((ctx) => ctx.scheduler.cancel(_id));
    vi.setSystemTime(START_MS + 10 * MINUTE + 1);
    const clean = () => t.mutation(internal.integrations.inbox.cleanupExpired, {});
    // The first of each lane brings the others with it, one after another.
    expect(await clean()).toMatchObject({ rescued: 2 });
    await settle(t);
    expect(await idsOf(t)).toHaveLength(9);
    expect((await stored(t)).inbox.every(({ state }) => state === "done")).toBe(true);
  });

  test("claims and stores each event when its part's turn comes, as received when the whole was", async () => {
    const t = backend();
    await acceptParts(t, "k", PARTS);
    vi.setSystemTime(START_MS + SECOND);
    await settle(t);
    const { inbox, messages, claims } = await stored(t);
    expect(messages.map(({ messageId }) => messageId).sort()).toEqual(["m1", "m2", "s1"]);
    expect(messages.every(({ receivedAtMs }) => receivedAtMs === START_MS)).toBe(true);
    expect(inbox).toHaveLength(5);
    expect(inbox.every(({ state, event }) => state === "done" && event === null)).toBe(true);
    expect(claims.map(({ scope }) => scope).sort()).toEqual([
      "whatsapp_delivery",
      "whatsapp_message",
      "whatsapp_message",
      "whatsapp_status",
    ]);
  });

  test("a second time is a duplicate, and costs nothing of the limits", async () => {
    vi.stubEnv("RATE_LIMIT_WHATSAPP_MAX", "1");
    const t = backend();
    await acceptParts(t, "k", PARTS);
    const { inbox, limits } = await stored(t);
    expect(await acceptParts(t, "k", PARTS)).toEqual({ kind: "duplicate" });
    expect(await stored(t)).toMatchObject({ inbox, limits });
    expect(await t.run((ctx) => ctx.db.query("rateLimitEvents").take(10))).toMatchObject([
      { bucket: "replay", outcome: "duplicate", reason: "whatsapp_delivery", count: 1 },
    ]);
  });

  test("beyond the limit stores nothing, and takes it once however many parts there are", async () => {
    vi.stubEnv("RATE_LIMIT_WHATSAPP_MAX", "1");
    const t = backend();
    expect(await acceptParts(t, "k", PARTS)).toMatchObject({ kind: "accepted" });
    const before = await stored(t);
    expect(await acceptParts(t, "other", PARTS)).toMatchObject({ kind: "refused" });
    expect(await stored(t)).toEqual(before);
  });

  test("leaves out what came one by one, before its part's turn or after its acceptance", async () => {
    const t = backend();
    await accept(t, [message("m1", { text: "first" })]);
    await acceptParts(t, "k", PARTS);
    await accept(t, [message("m2", { text: "first" })]);
    await settle(t);
    const { inbox, messages } = await stored(t);
    expect(inbox).toHaveLength(5);
    const texts = messages.filter(({ text }) => text !== null).map(({ text }) => text);
    expect(texts).toEqual(["first", "first"]);
  });

  test("leaves a part that fails with nothing of it stored, and tries it again", async () => {
    const t = backend();
    const claim = { scope: "whatsapp_message", key: "m1", firstSeenAt: 0, expiresAt: START_MS * 2 };
    // Two claims of one event, which the code never makes: whatever looks it up fails.
    const second = await t.run(async (ctx) => {
      await ctx.db.insert("idempotencyKeys", claim);
      return await ctx.db.insert("idempotencyKeys", claim);
    });
    await acceptParts(t, "k", [[message("m2"), message("m1")], [message("m3")]]);
    await settle(t);
    const failed = await stored(t);
    expect(failed.messages.map(({ messageId }) => messageId)).toEqual(["m3"]);
    const dead = failed.inbox.filter(({ state }) => state === "dead_letter");
    expect(dead).toMatchObject([{ event: { type: "whatsapp_part" } }]);
    await t.run((ctx) => ctx.db.delete("idempotencyKeys", second));
    for (const { _id } of dead)
      await t.mutation(internal.integrations.inbox.requeueDeadLetter, { id: _id });
    await settle(t);
    expect((await stored(t)).messages.map(({ messageId }) => messageId)).toEqual(["m3", "m2"]);
  });
});

test("what a message holds beside its columns is stored with it", async () => {
  const t = backend();
  const data = { dataJson: '{"location":{"latitude":18}}', dataTruncated: true };
  await accept(t, [message("m1", data), message("m2"), report("m3", "read", 10)]);
  await accept(t, [message("m3", data)]);
  await settle(t);
  const { messages } = await stored(t);
  expect(messages).toMatchObject([
    data,
    { messageId: "m2" },
    { ...data, delivery: { status: "read" } },
  ]);
  expect(messages[1]).not.toHaveProperty("dataJson");
});

describe("a claim", () => {
  test("expires after 3 days by itself, and a duplicate does not extend it", async () => {
    const t = backend();
    await accept(t, [message("m1")]);
    vi.setSystemTime(START_MS + 3 * DAY - 1);
    expect(await accept(t, [message("m1")])).toEqual({ kind: "duplicate" });
    vi.setSystemTime(START_MS + 3 * DAY);
    expect(await accept(t, [message("m1")])).toMatchObject({ kind: "accepted" });
    expect((await stored(t)).claims).toHaveLength(1);
  });

  test("that expired lets a late redelivery in, which has no second effect", async () => {
    const t = backend();
    await accept(t, [message("m1")]);
    await settle(t);
    const [first] = (await stored(t)).messages;
    vi.setSystemTime(START_MS + 6 * DAY);
    expect(await accept(t, [message("m1", { text: "changed" })])).toMatchObject({
      kind: "accepted",
    });
    await settle(t);
    expect((await stored(t)).messages).toEqual([first]);
  });
});

describe("a refusal", () => {
  test.each([
    [
      "the sender's limit",
      { RATE_LIMIT_WHATSAPP_MAX: "2", RATE_LIMIT_WHATSAPP_WINDOW_MS: "60000" },
    ],
    ["the backstop", { RATE_LIMIT_GLOBAL_MAX: "2", RATE_LIMIT_GLOBAL_WINDOW_MS: "60000" }],
  ])("by %s says for how long and stores nothing of the delivery", async (_name, knobs) => {
    for (const [name, value] of Object.entries(knobs)) vi.stubEnv(name, value);
    const t = backend();
    await accept(t, [message("m1")], "address:a");
    await accept(t, [message("m2")], "address:a");
    const before = await stored(t);
    expect(await accept(t, [message("m3")], "address:a")).toMatchObject({
      kind: "refused",
      code: "rate_limited",
      retryAfterMs: 30_000,
      limit: { limit: 2, windowMs: 60_000, remaining: 0 },
    });
    expect(await stored(t)).toEqual(before);
  });

  test("costs a duplicate nothing: it is told apart before the limits", async () => {
    vi.stubEnv("RATE_LIMIT_WHATSAPP_MAX", "1");
    const t = backend();
    await accept(t, [message("m1")], "address:a");
    expect(await accept(t, [message("m2")], "address:a")).toMatchObject({ kind: "refused" });
    expect(await accept(t, [message("m1")], "address:a")).toEqual({ kind: "duplicate" });
  });

  test("of one address does not touch another, and without one only the backstop counts", async () => {
    vi.stubEnv("RATE_LIMIT_WHATSAPP_MAX", "1");
    const t = backend();
    expect(await accept(t, [message("m1")], "address:a")).toMatchObject({ kind: "accepted" });
    expect(await accept(t, [message("m2")], "address:a")).toMatchObject({ kind: "refused" });
    expect(await accept(t, [message("m2")], "address:b")).toMatchObject({ kind: "accepted" });
    expect(await accept(t, [message("m3")])).toMatchObject({ kind: "accepted" });
  });
});

describe("status reports", () => {
  test("join one message in any order and any number of times", async () => {
    const t = backend();
    const reports = [
      report("s1", "read", 30),
      report("s1", "failed", 15, 131026),
      report("s1", "sent", 10),
      report("s1", "delivered", 20),
    ];
    for (const one of [...reports, ...reports]) await accept(t, [one]);
    await settle(t);
    const { messages, inbox } = await stored(t);
    expect(inbox).toHaveLength(4);
    expect(messages).toMatchObject([
      {
        messageId: "s1",
        from: null,
        direction: "outbound",
        recipient: "18765550199",
        delivery: {
          status: "read",
          firstAtMs: { sent: 10, failed: 15, delivered: 20, read: 30 },
          failure: { atMs: 15, errorCode: 131026 },
        },
      },
    ]);
  });

  test("that come again are duplicates", async () => {
    const t = backend();
    await accept(t, [report("s1", "sent", 10)]);
    expect(await accept(t, [report("s1", "sent", 10)])).toEqual({ kind: "duplicate" });
  });

  test("that came before their message stay when it arrives", async () => {
    const t = backend();
    await accept(t, [report("m1", "read", 10)]);
    await settle(t);
    await accept(t, [message("m1")]);
    await settle(t);
    expect((await stored(t)).messages).toMatchObject([
      { messageId: "m1", from: "18765550123", direction: "inbound", delivery: { status: "read" } },
    ]);
  });
});

describe("listing what is stored", () => {
  const list = (t: Backend, args: { limit?: number; cursor?: string | null } = {}) =>
    t.query(internal.integrations.whatsapp.listStoredMessages, args);

  async function withMessages(count: number): Promise<Backend> {
    const t = backend();
    for (let index = 0; index < count; index++) await accept(t, [message(`m${index}`)]);
    await settle(t);
    return t;
  }

  test("shows exactly the promised fields and no text", async () => {
    const t = await withMessages(1);
    expect(await list(t)).toEqual({
      messages: [
        {
          messageId: "m0",
          from: "18765550123",
          kind: "text",
          status: "received",
          receivedAt: START_MS,
        },
      ],
      cursor: null,
    });
  });

  test.each([1, 2, 3, 7, 8])("in pages of %i shows each once, oldest first", async (limit) => {
    const t = await withMessages(7);
    const seen: string[] = [];
    let cursor: string | null = null;
    do {
      const page: Awaited<ReturnType<typeof list>> = await list(t, { limit, cursor });
      expect(page.messages.length).toBeLessThanOrEqual(limit);
      seen.push(...page.messages.map(({ messageId }) => messageId));
      cursor = page.cursor;
    } while (cursor !== null);
    expect(seen).toEqual(["m0", "m1", "m2", "m3", "m4", "m5", "m6"]);
  });

  test("goes on behind a row that has died", async () => {
    const t = await withMessages(3);
    const { cursor } = await list(t, { limit: 2 });
    await t.run(async (ctx) => {
      const rows = await ctx.db.query("whatsappMessages").take(2);
      for (const row of rows) await ctx.db.delete("whatsappMessages", row._id);
    });
    const rest = await list(t, { limit: 2, cursor });
    expect(rest.messages.map(({ messageId }) => messageId)).toEqual(["m2"]);
  });

  test.each(["", "x", "!!!", btoa("x:y"), btoa("1"), btoa("1:"), btoa("1.2.3:abc")])(
    "refuses the cursor %j",
    async (cursor) => {
      const t = backend();
      await expect(list(t, { cursor })).rejects.toMatchObject({
        data: { code: "invalid_request", issues: [{ path: "cursor" }] },
      });
    },
  );

  test.each([0, -1, 501, 1.5, Number.NaN])("refuses the limit %d", async (limit) => {
    const t = backend();
    await expect(list(t, { limit })).rejects.toMatchObject({
      data: { code: "invalid_request", issues: [{ path: "limit" }] },
    });
  });
});
