import { v } from "convex/values";
import { claimKey, type MessageEvent, type WhatsappEvent } from "../../src/channels/whatsapp/event";
import { joinStatus, NO_STATUS } from "../../src/channels/whatsapp/status";
import { DAY } from "../../src/core/time";
import { internal } from "../_generated/api";
import type { Doc } from "../_generated/dataModel";
import { internalMutation, internalQuery, type MutationCtx } from "../_generated/server";
import * as Claims from "../model/claims";
import { pageOf } from "../model/creationPages";
import * as Duplicates from "../model/duplicates";
import * as Inbox from "../model/inbox";
import { whatsappEvent } from "../model/integrationTables";
import { acceptance, type Acceptance, countAccepted, takeLimits } from "../model/webhookAdmission";
import * as WhatsappMessages from "../model/whatsappMessages";

const CLAIM_TTL_MS = 3 * DAY;
/** Jobs of one scheduled run, so that its nested transactions stay within one second. */
const JOBS_PER_RUN = 20;

/**
 * Accepts the events of a delivery that are new: limits, claims, inbox rows and the scheduled
 * processing in one transaction. A refusal and a duplicate write nothing of a delivery, but are
 * counted.
 */
export const accept = internalMutation({
  args: {
    events: v.array(whatsappEvent),
    addressKey: v.optional(v.string()),
    receivedAtMs: v.optional(v.number()),
    leaveOut: v.optional(v.array(v.string())),
  },
  returns: acceptance,
  handler: async (ctx, { events, addressKey, leaveOut, receivedAtMs }): Promise<Acceptance> => {
    const nowMs = Date.now();
    // Duplicates are told apart before the limits are looked at, so a redelivery costs one read.
    const fresh = await unclaimed(ctx, events, nowMs);
    if (fresh.length === 0) {
      const [first] = events;
      if (first !== undefined) await Duplicates.count(ctx, claimKey(first).scope, nowMs);
      return { kind: "duplicate" };
    }
    const taken = await takeLimits(ctx, { route: "whatsapp_webhook", addressKey, leaveOut }, nowMs);
    if (taken.kind === "refused") return taken;
    const jobs = [];
    for (const event of fresh) {
      await Claims.put(ctx, { ...claimKey(event), ttlMs: CLAIM_TTL_MS }, nowMs);
      jobs.push({ id: await Inbox.enqueue(ctx, event, nowMs), attempts: 0 });
    }
    for (let first = 0; first < jobs.length; first += JOBS_PER_RUN)
      await ctx.scheduler.runAfter(0, internal.integrations.inbox.processJobs, {
        jobs: jobs.slice(first, first + JOBS_PER_RUN),
      });
    await countAccepted(ctx, { route: "whatsapp_webhook", receivedAtMs });
    return taken;
  },
});

/**
 * The effect of one event, run inside inbox:processJobs so that a failure rolls back this alone.
 * Applying an event again changes nothing, also after its claim has expired.
 */
export const applyEvent = internalMutation({
  args: { event: whatsappEvent, receivedAtMs: v.number() },
  returns: v.null(),
  handler: async (ctx, { event, receivedAtMs }) => {
    const row = await WhatsappMessages.find(ctx, event.messageId);
    if (event.type === "message") await applyMessage(ctx, row, { event, receivedAtMs });
    else await applyStatus(ctx, row, { event, receivedAtMs });
    return null;
  },
});

/** What is stored, oldest first, for operators. No texts. */
export const listStoredMessages = internalQuery({
  args: { limit: v.optional(v.number()), cursor: v.optional(v.union(v.string(), v.null())) },
  returns: v.object({
    messages: v.array(
      v.object({
        messageId: v.string(),
        from: v.union(v.string(), v.null()),
        kind: v.string(),
        status: v.string(),
        receivedAt: v.number(),
      }),
    ),
    cursor: v.union(v.string(), v.null()),
  }),
  handler: async (ctx, request) => {
    const { rows, cursor } = await pageOf(request, {
      createdAt: (time, count) => WhatsappMessages.createdAt(ctx, time, count),
      createdAfter: (time, count) => WhatsappMessages.createdAfter(ctx, time, count),
    });
    const messages = rows.map(({ messageId, from, kind, delivery, receivedAtMs }) => ({
      messageId,
      from,
      kind,
      // Reports exist for messages that we send; one that was sent to us has simply been received.
      status: delivery.status ?? "received",
      receivedAt: receivedAtMs,
    }));
    return { messages, cursor };
  },
});

async function unclaimed(
  ctx: MutationCtx,
  events: readonly WhatsappEvent[],
  nowMs: number,
): Promise<WhatsappEvent[]> {
  const fresh = new Map<string, WhatsappEvent>();
  for (const event of events) {
    const claim = claimKey(event);
    // By key, because a delivery may name an event twice.
    if ((await Claims.find(ctx, claim, nowMs)) === null)
      fresh.set(`${claim.scope} ${claim.key}`, event);
  }
  return [...fresh.values()];
}

interface Received<Type extends WhatsappEvent["type"]> {
  readonly event: Extract<WhatsappEvent, { readonly type: Type }>;
  readonly receivedAtMs: number;
}

async function applyMessage(
  ctx: MutationCtx,
  row: Doc<"whatsappMessages"> | null,
  { event, receivedAtMs }: Received<"message">,
): Promise<void> {
  const fields = fieldsOf(event);
  if (row === null)
    await WhatsappMessages.insert(ctx, {
      ...fields,
      direction: "inbound",
      recipient: null,
      delivery: NO_STATUS,
      receivedAtMs,
    });
  // A report came first and made the row: the message itself is new, what was reported stays.
  else if (row.direction === "outbound" && row.from === null)
    await WhatsappMessages.change(ctx, row, { ...fields, direction: "inbound", receivedAtMs });
}

function fieldsOf(event: MessageEvent) {
  const { messageId, from, fromUserId, phoneNumberId, kind, sentAtMs } = event;
  const { text, textTruncated, mediaId, contextId } = event;
  const identity = { messageId, from, fromUserId, phoneNumberId, kind, sentAtMs };
  return { ...identity, text, textTruncated, mediaId, contextId };
}

async function applyStatus(
  ctx: MutationCtx,
  row: Doc<"whatsappMessages"> | null,
  { event, receivedAtMs }: Received<"status">,
): Promise<void> {
  const { messageId, recipient, ...reported } = event;
  const delivery = joinStatus(row?.delivery ?? NO_STATUS, reported);
  if (row !== null) {
    await WhatsappMessages.change(ctx, row, { delivery, recipient: row.recipient ?? recipient });
    return;
  }
  await WhatsappMessages.insert(ctx, {
    messageId,
    from: null,
    fromUserId: null,
    phoneNumberId: null,
    kind: "unknown",
    text: null,
    textTruncated: false,
    mediaId: null,
    contextId: null,
    sentAtMs: event.atMs,
    direction: "outbound",
    recipient,
    delivery,
    receivedAtMs,
  });
}
