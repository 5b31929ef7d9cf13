import { convexTest } from "convex-test";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { DAY, MINUTE } from "../../src/core/time";
import { internal } from "../_generated/api";
import type { Id } from "../_generated/dataModel";
import schema from "../schema";

const modules = import.meta.glob(["/convex/**/*.{ts,js}", "!/convex/**/*.test.ts"]);
const START_MS = 1_790_000_000_000;
const MAILBOX = "dana@example.com";

type Backend = ReturnType<typeof backend>;

function backend() {
  return convexTest({ schema, modules });
}

const push = (t: Backend, historyId: string, emailAddress = MAILBOX) =>
  t.mutation(internal.integrations.gmail.accept, { notification: { emailAddress, historyId } });

const settle = (t: Backend) => t.finishAllScheduledFunctions(() => vi.runAllTimers());

const jobs = (t: Backend) => t.run((ctx) => ctx.db.query("webhookInbox").take(100));
/** The id of the one job there is. */
async function onlyJob(t: Backend): Promise<Id<"webhookInbox">> {
  const [job, ...more] = await jobs(t);
  if (job === undefined || more.length > 0) throw new Error("expected one job");
  return job._id;
}

const changes = (t: Backend) => t.run((ctx) => ctx.db.query("gmailHistoryChanges").take(100));

/**
 * A mailbox that is stored twice, which the code never does: whatever reads it fails, as it would
 * on any state that breaks what the code relies on.
 */
const breakMailbox = (t: Backend, emailAddress = MAILBOX) =>
  t.run(async (ctx) => {
    const fields = { emailAddress, historyId: "1", updatedAtMs: 0 };
    await ctx.db.insert("gmailMailboxes", fields);
    return await ctx.db.insert("gmailMailboxes", fields);
  });

const mend = (t: Backend, id: Id<"gmailMailboxes">) =>
  t.run((ctx) => ctx.db.delete("gmailMailboxes", id));

beforeEach(() => {
  vi.useFakeTimers();
  vi.setSystemTime(START_MS);
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllEnvs();
});

describe("a job that fails", () => {
  test("is tried again in the transaction that failed it, and succeeds when the cause is gone", async () => {
    const t = backend();
    const broken = await breakMailbox(t);
    await push(t, "5");
    vi.advanceTimersByTime(0);
    await t.finishInProgressScheduledFunctions();
    const [delayed] = await jobs(t);
    expect(delayed).toMatchObject({
      state: "queued",
      attempts: 1,
      lastErrorCode: "internal_error",
    });
    await mend(t, broken);
    await settle(t);
    expect(await jobs(t)).toMatchObject([{ state: "done", attempts: 1, event: null }]);
    expect(await changes(t)).toMatchObject([{ historyId: "5" }]);
  });

  test("for ever ends as a dead letter that keeps its event, with no effect", async () => {
    vi.stubEnv("WEBHOOK_JOB_ATTEMPTS_MAX", "3");
    const t = backend();
    await breakMailbox(t);
    await push(t, "5");
    await settle(t);
    expect(await jobs(t)).toMatchObject([
      {
        state: "dead_letter",
        attempts: 3,
        event: { type: "gmail_history", historyId: "5" },
        lastErrorCode: "internal_error",
      },
    ]);
    expect(await changes(t)).toEqual([]);
    const listed = await t.query(internal.integrations.inbox.listDeadLetters, {});
    expect(listed).toMatchObject({
      deadLetters: [{ type: "gmail_history", attempts: 3, lastErrorCode: "internal_error" }],
      truncated: false,
    });
  });

  test("leaves nothing of its effect", async () => {
    const t = backend();
    // The change is stored twice, which fails the effect after it has moved the mailbox.
    await t.run(async (ctx) => {
      const fields = { emailAddress: MAILBOX, historyId: "5", advanced: true };
      const times = { receivedAtMs: START_MS, expiresAtMs: START_MS + DAY };
      for (let copy = 0; copy < 2; copy++)
        await ctx.db.insert("gmailHistoryChanges", { ...fields, ...times });
    });
    await push(t, "5");
    await settle(t);
    expect(await jobs(t)).toMatchObject([{ state: "dead_letter" }]);
    expect(await t.run((ctx) => ctx.db.query("gmailMailboxes").take(10))).toEqual([]);
  });

  test("holds up no other job of its run", async () => {
    const t = backend();
    await breakMailbox(t);
    const insert = (emailAddress: string) =>
      t.run((ctx) =>
        ctx.db.insert("webhookInbox", {
          state: "queued",
          event: { type: "gmail_history", emailAddress, historyId: "5" },
          attempts: 0,
          dueAtMs: START_MS,
          lastErrorCode: null,
          receivedAtMs: START_MS,
        }),
      );
    const ids = [await insert(MAILBOX), await insert("eli@example.com")];
    await t.mutation(internal.integrations.inbox.processJobs, {
      jobs: ids.map((id) => ({ id, attempts: 0 })),
    });
    expect(await jobs(t)).toMatchObject([{ state: "queued", attempts: 1 }, { state: "done" }]);
    expect(await changes(t)).toMatchObject([{ emailAddress: "eli@example.com" }]);
  });

  test("and is dead is not attempted again by a stale schedule", async () => {
    vi.stubEnv("WEBHOOK_JOB_ATTEMPTS_MAX", "1");
    const t = backend();
    const broken = await breakMailbox(t);
    await push(t, "5");
    await settle(t);
    await mend(t, broken);
    await t.mutation(internal.integrations.inbox.processJobs, {
      jobs: [{ id: await onlyJob(t), attempts: 1 }],
    });
    expect(await jobs(t)).toMatchObject([{ state: "dead_letter" }]);
  });

  test("can be requeued by an operator once the cause is gone", async () => {
    vi.stubEnv("WEBHOOK_JOB_ATTEMPTS_MAX", "1");
    const t = backend();
    const broken = await breakMailbox(t);
    await push(t, "5");
    await settle(t);
    await mend(t, broken);
    const id = await onlyJob(t);
    await t.mutation(internal.integrations.inbox.requeueDeadLetter, { id });
    await settle(t);
    expect(await jobs(t)).toMatchObject([{ state: "done" }]);
    expect(await changes(t)).toHaveLength(1);
    await expect(
      t.mutation(internal.integrations.inbox.requeueDeadLetter, { id }),
    ).rejects.toMatchObject({ data: { code: "not_found" } });
  });
});

describe("an attempt", () => {
  test("that was scheduled for another count of failures does nothing", async () => {
    const t = backend();
    await push(t, "5");
    const before = await jobs(t);
    await t.mutation(internal.integrations.inbox.processJobs, {
      jobs: [{ id: await onlyJob(t), attempts: 1 }],
    });
    expect(await jobs(t)).toEqual(before);
  });

  test("at a job that is done does nothing", async () => {
    const t = backend();
    await push(t, "5");
    await settle(t);
    const before = await jobs(t);
    await t.mutation(internal.integrations.inbox.processJobs, {
      jobs: [{ id: await onlyJob(t), attempts: 0 }],
    });
    expect(await jobs(t)).toEqual(before);
  });
});

describe("cleanup", () => {
  const clean = (t: Backend) => t.mutation(internal.integrations.inbox.cleanupExpired, {});

  test("deletes done jobs after 3 days, and what they recorded after 30", async () => {
    const t = backend();
    await push(t, "5");
    await settle(t);
    vi.setSystemTime(START_MS + 3 * DAY);
    expect(await clean(t)).toEqual({ deleted: 0, rescued: 0, hasMore: false });
    vi.setSystemTime(START_MS + 3 * DAY + 1);
    expect(await clean(t)).toEqual({ deleted: 1, rescued: 0, hasMore: false });
    expect(await changes(t)).toHaveLength(1);
    vi.setSystemTime(START_MS + 30 * DAY + 1);
    await clean(t);
    expect(await changes(t)).toEqual([]);
  });

  test("keeps dead letters for 30 days", async () => {
    vi.stubEnv("WEBHOOK_JOB_ATTEMPTS_MAX", "1");
    const t = backend();
    await breakMailbox(t);
    await push(t, "5");
    await settle(t);
    vi.setSystemTime(START_MS + 30 * DAY);
    expect(await clean(t)).toMatchObject({ deleted: 0 });
    vi.setSystemTime(START_MS + 30 * DAY + MINUTE);
    expect(await clean(t)).toMatchObject({ deleted: 1 });
  });

  test("goes on by itself in bounded batches", async () => {
    const t = backend();
    await t.run(async (ctx) => {
      for (let index = 0; index < 450; index++)
        await ctx.db.insert("gmailHistoryChanges", {
          emailAddress: MAILBOX,
          historyId: String(index + 1),
          advanced: true,
          receivedAtMs: 0,
          expiresAtMs: index,
        });
    });
    expect(await clean(t)).toEqual({ deleted: 200, rescued: 0, hasMore: true });
    await settle(t);
    expect(await changes(t)).toEqual([]);
  });

  test("gives a job whose attempt never came a new one, and leaves a young one alone", async () => {
    const t = backend();
    await push(t, "5");
    await t.run(async (ctx) => {
      for (const { _id } of await ctx.db.system.query("_scheduled_functions").take(10))
        await ctx.scheduler.cancel(_id);
    });
    vi.setSystemTime(START_MS + 10 * MINUTE);
    expect(await clean(t)).toMatchObject({ rescued: 0 });
    vi.setSystemTime(START_MS + 10 * MINUTE + 1);
    expect(await clean(t)).toMatchObject({ rescued: 1 });
    expect(await clean(t)).toMatchObject({ rescued: 0 });
    await settle(t);
    expect(await jobs(t)).toMatchObject([{ state: "done" }]);
  });
});
