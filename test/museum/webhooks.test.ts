import { expect, test } from "vitest";
import { internal } from "../../convex/_generated/api";
import { backend, type Backend, pending, settleAll, useStillClock } from "../edge/backend";

useStillClock();

const MAILBOX = "dana@example.com";

const push = (t: Backend, historyId: string, emailAddress = MAILBOX) =>
  t.mutation(internal.integrations.gmail.accept, { notification: { emailAddress, historyId } });

/** Makes all that is done for a mailbox fail: there are two of it, which the code never makes. */
const breakMailbox = (t: Backend) =>
  t.run(async (ctx) => {
    const fields = { emailAddress: MAILBOX, historyId: "1", updatedAtMs: 0 };
    await ctx.db.insert("gmailMailboxes", fields);
    return await ctx.db.insert("gmailMailboxes", fields);
  });

const recorded = async (t: Backend): Promise<string[]> => {
  const { changes } = await t.query(internal.integrations.gmail.listHistoryChanges, {});
  return changes.map(({ emailAddress, historyId }) => `${emailAddress} ${historyId}`);
};

// Source: W2-40
test("the original moved a mailbox's history back when notifications overtook each other", async () => {
  const t = backend();
  for (const historyId of ["30", "9", "100", "20"]) await push(t, historyId);
  await settleAll(t);
  const [mailbox] = await t.run((ctx) => ctx.db.query("gmailMailboxes").collect());
  // As numbers: as texts, 9 would be the last.
  expect(mailbox?.historyId).toBe("100");
  expect(await recorded(t)).toHaveLength(4);
});

// Source: W2-41
test("the original swallowed what failed after a delivery was claimed: here it is tried again, then kept", async () => {
  const t = backend();
  const second = await breakMailbox(t);
  await push(t, "5");
  await t.finishInProgressScheduledFunctions();
  const inbox = () => t.run((ctx) => ctx.db.query("webhookInbox").collect());
  await settleAll(t);
  expect(await inbox()).toMatchObject([{ state: "dead_letter" }]);
  expect((await push(t, "5")).kind).toBe("duplicate");
  // Its cause mended, an operator has it done after all.
  await t.run((ctx) => ctx.db.delete("gmailMailboxes", second));
  const [dead] = (await t.query(internal.integrations.inbox.listDeadLetters, {})).deadLetters;
  if (dead === undefined) throw new Error("it is kept");
  expect(dead.attempts).toBeGreaterThan(1);
  await t.mutation(internal.integrations.inbox.requeueDeadLetter, { id: dead.id });
  await settleAll(t);
  expect(await recorded(t)).toEqual([`${MAILBOX} 5`]);
});

// Source: W2-55
test("the original had one action go through all mailboxes: here each has jobs of its own", async () => {
  const t = backend();
  await breakMailbox(t);
  await push(t, "5");
  await push(t, "7", "eve@example.com");
  // Two jobs, neither of which waits for the other, nor fails with it.
  expect((await pending(t)).map(({ afterMs, name }) => [afterMs, name])).toEqual([
    [0, "integrations/inbox:processJobs"],
    [0, "integrations/inbox:processJobs"],
  ]);
  await settleAll(t);
  expect(await recorded(t)).toEqual(["eve@example.com 7"]);
});
