import { v } from "convex/values";
import { isAfter } from "../../src/channels/gmail/historyId";
import { claimKey } from "../../src/channels/gmail/notification";
import { DAY } from "../../src/core/time";
import { internal } from "../_generated/api";
import * as Claims from "../model/claims";
import { pageOf } from "../model/creationPages";
import * as Duplicates from "../model/duplicates";
import { internalMutation, internalQuery } from "../model/functionBoundaries";
import * as GmailHistory from "../model/gmailHistory";
import * as Inbox from "../model/inbox";
import { gmailNotification } from "../model/integrationTables";
import { acceptance, type Acceptance, countAccepted, takeLimits } from "../model/webhookAdmission";

const CLAIM_TTL_MS = DAY;

/**
 * Accepts a push that is new: limits, claim, inbox row and the scheduled processing in one
 * transaction. A refusal and a duplicate write nothing of it, but are counted.
 */
export const accept = internalMutation({
  args: {
    notification: gmailNotification,
    addressKey: v.optional(v.string()),
    receivedAtMs: v.optional(v.number()),
    leaveOut: v.optional(v.array(v.string())),
  },
  returns: acceptance,
  handler: async (
    ctx,
    { notification, addressKey, leaveOut, receivedAtMs },
  ): Promise<Acceptance> => {
    const nowMs = Date.now();
    const claim = claimKey(notification);
    if ((await Claims.find(ctx, claim, nowMs)) !== null) {
      await Duplicates.count(ctx, claim.scope, nowMs);
      return { kind: "duplicate" };
    }
    const taken = await takeLimits(ctx, { route: "gmail_push", addressKey, leaveOut }, nowMs);
    if (taken.kind === "refused") return taken;
    await Claims.put(ctx, { ...claim, ttlMs: CLAIM_TTL_MS }, nowMs);
    const id = await Inbox.enqueue(ctx, { type: "gmail_history", ...notification }, { nowMs });
    await ctx.scheduler.runAfter(0, internal.integrations.inbox.processJobs, {
      jobs: [{ id, attempts: 0 }],
    });
    await countAccepted(ctx, { route: "gmail_push", receivedAtMs });
    return taken;
  },
});

/**
 * The effect of one push, run inside inbox:processJobs so that a failure rolls back this alone.
 * Notifications overtake one another; the mailbox's history id only moves forward.
 */
export const applyNotification = internalMutation({
  args: { notification: gmailNotification, receivedAtMs: v.number() },
  returns: v.null(),
  handler: async (ctx, { notification, receivedAtMs }) => {
    const { emailAddress, historyId } = notification;
    const mailbox = await GmailHistory.findMailbox(ctx, emailAddress);
    const advanced = mailbox === null || isAfter(historyId, mailbox.historyId);
    if (advanced)
      await GmailHistory.moveMailbox(ctx, mailbox, {
        emailAddress,
        historyId,
        updatedAtMs: Date.now(),
      });
    if ((await GmailHistory.findChange(ctx, notification)) !== null) return null;
    await GmailHistory.insertChange(ctx, { emailAddress, historyId, advanced, receivedAtMs });
    return null;
  },
});

/** What was recorded, oldest first, for operators. */
export const listHistoryChanges = internalQuery({
  args: { limit: v.optional(v.number()), cursor: v.optional(v.union(v.string(), v.null())) },
  returns: v.object({
    changes: v.array(
      v.object({
        emailAddress: v.string(),
        historyId: v.string(),
        advanced: v.boolean(),
        receivedAt: v.number(),
      }),
    ),
    cursor: v.union(v.string(), v.null()),
  }),
  handler: async (ctx, request) => {
    const { rows, cursor } = await pageOf(request, {
      createdAt: (time, count) => GmailHistory.createdAt(ctx, time, count),
      createdAfter: (time, count) => GmailHistory.createdAfter(ctx, time, count),
    });
    const changes = rows.map(({ emailAddress, historyId, advanced, receivedAtMs }) => ({
      emailAddress,
      historyId,
      advanced,
      receivedAt: receivedAtMs,
    }));
    return { changes, cursor };
  },
});
