import { convexTest } from "convex-test";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { DAY } from "../../src/core/time";
import { internal } from "../_generated/api";
import schema from "../schema";

const modules = import.meta.glob(["/convex/**/*.{ts,js}", "!/convex/**/*.test.ts"]);
const START_MS = 1_790_000_000_000;
const MAILBOX = "dana@example.com";

type Backend = ReturnType<typeof backend>;

function backend() {
  return convexTest({ schema, modules });
}

const push = (t: Backend, historyId: string, emailAddress = MAILBOX) =>
  t.mutation(internal.integrations.gmail.accept, {
    notification: { emailAddress, historyId },
    addressKey: "address:google",
  });

const settle = (t: Backend) => t.finishAllScheduledFunctions(() => vi.runAllTimers());

const stored = (t: Backend) =>
  t.run(async (ctx) => ({
    mailboxes: await ctx.db.query("gmailMailboxes").take(100),
    changes: await ctx.db.query("gmailHistoryChanges").take(100),
    inbox: await ctx.db.query("webhookInbox").take(100),
    claims: await ctx.db.query("idempotencyKeys").take(100),
    limits: await ctx.db.query("limits").take(100),
  }));

beforeEach(() => {
  vi.useFakeTimers();
  vi.setSystemTime(START_MS);
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllEnvs();
});

describe("accepting a push", () => {
  test("records the change once, however often it comes", async () => {
    const t = backend();
    expect(await push(t, "100")).toMatchObject({ kind: "accepted" });
    expect(await push(t, "100")).toEqual({ kind: "duplicate" });
    await settle(t);
    const { mailboxes, changes, inbox, claims } = await stored(t);
    expect(claims).toMatchObject([{ scope: "gmail_push_history", key: `${MAILBOX}:100` }]);
    expect(inbox).toMatchObject([{ state: "done", event: null }]);
    expect(mailboxes).toMatchObject([{ emailAddress: MAILBOX, historyId: "100" }]);
    expect(changes).toMatchObject([
      { emailAddress: MAILBOX, historyId: "100", advanced: true, receivedAtMs: START_MS },
    ]);
  });

  test("of another mailbox with the same history id is new", async () => {
    const t = backend();
    await push(t, "100");
    expect(await push(t, "100", "eli@example.com")).toMatchObject({ kind: "accepted" });
  });

  test("is a duplicate for 24 hours, which a duplicate does not extend", async () => {
    const t = backend();
    await push(t, "100");
    await settle(t);
    vi.setSystemTime(START_MS + DAY - 1);
    expect(await push(t, "100")).toEqual({ kind: "duplicate" });
    vi.setSystemTime(START_MS + DAY);
    expect(await push(t, "100")).toMatchObject({ kind: "accepted" });
    await settle(t);
    expect((await stored(t)).changes).toHaveLength(1);
  });

  test("beyond the sender's limit is refused and writes nothing", async () => {
    vi.stubEnv("RATE_LIMIT_GMAIL_PUSH_MAX", "1");
    const t = backend();
    await push(t, "100");
    const before = await stored(t);
    expect(await push(t, "101")).toMatchObject({
      kind: "refused",
      code: "rate_limited",
      limit: { name: "gmail_push" },
    });
    expect(await stored(t)).toEqual(before);
  });
});

describe("the history id of a mailbox", () => {
  test.each([
    [["100", "101", "102"], "102"],
    [["102", "101", "100"], "102"],
    [["9", "10"], "10"],
    [["10", "9"], "10"],
    [["9007199254740993", "9007199254740992"], "9007199254740993"],
    [["9007199254740992", "9007199254740993"], "9007199254740993"],
  ])("after %j is %j", async (historyIds, expected) => {
    const t = backend();
    for (const historyId of historyIds) {
      await push(t, historyId);
      await settle(t);
    }
    const { mailboxes, changes } = await stored(t);
    expect(mailboxes.map(({ historyId }) => historyId)).toEqual([expected]);
    // What came late is recorded too, as nothing new to sync.
    expect(changes).toHaveLength(historyIds.length);
    expect(changes.at(-1)?.advanced).toBe(historyIds.at(-1) === expected);
  });
});

test("recorded changes are listed in pages, oldest first", async () => {
  const t = backend();
  for (const historyId of ["1", "3", "2"]) {
    await push(t, historyId);
    await settle(t);
  }
  const list = (cursor: string | null) =>
    t.query(internal.integrations.gmail.listHistoryChanges, { limit: 2, cursor });
  const first = await list(null);
  const second = await list(first.cursor);
  expect([...first.changes, ...second.changes]).toEqual([
    { emailAddress: MAILBOX, historyId: "1", advanced: true, receivedAt: START_MS },
    { emailAddress: MAILBOX, historyId: "3", advanced: true, receivedAt: START_MS },
    { emailAddress: MAILBOX, historyId: "2", advanced: false, receivedAt: START_MS },
  ]);
  expect(second.cursor).toBeNull();
});
