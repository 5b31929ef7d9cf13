import { v } from "convex/values";
import { claimKey, type MessageEvent, type WhatsappEvent } from "../../src/channels/whatsapp/event";
import { byClaim } from "../../src/channels/whatsapp/parts";
import { joinStatus, NO_STATUS } from "../../src/channels/whatsapp/status";
import { DAY, SECOND } from "../../src/core/time";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx } from "../_generated/server";
import * as Claims from "../model/claims";
import { pageOf } from "../model/creationPages";
import * as Duplicates from "../model/duplicates";
import { internalMutation, internalQuery } from "../model/functionBoundaries";
import * as Inbox from "../model/inbox";
import { type Job, JOBS_PER_RUN, scheduleRun } from "../model/inboxRuns";
import { whatsappEvent } from "../model/integrationTables";
import { acceptance, type Acceptance, countAccepted, takeLimits } from "../model/webhookAdmission";
import * as WhatsappMessages from "../model/whatsappMessages";

const ROUTE = "whatsapp_webhook";
/** Claims of large deliveries as a whole. */
const DELIVERY_SCOPE = "whatsapp_delivery";
const CLAIM_TTL_MS = 3 * DAY;
/** Parts of a large delivery that are worked on at a time, so that other work has its turns. */
const LANES = 2;
/**
 * A part is due so much after the one before it in its lane, which is longer than it takes: of a
 * lane that was lost the cleanup finds the first part alone, which brings the others with it.
 */
const PART_TURN_MS = 10 * SECOND;

const received = {
  addressKey: v.optional(v.string()),
  receivedAtMs: v.optional(v.number()),
  leaveOut: v.optional(v.array(v.string())),
};

/**
 * Accepts the events of a delivery that are new: limits, claims, inbox rows and the scheduled
 * processing in one transaction. A refusal and a duplicate write nothing of a delivery, but are
 * counted.
 */
export const accept = internalMutation({
  args: { events: v.array(whatsappEvent), ...received },
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
    const taken = await takeLimits(ctx, { route: ROUTE, addressKey, leaveOut }, nowMs);
    if (taken.kind === "refused") return taken;
    const jobs = await storeEach(ctx, fresh, { nowMs });
    for (let first = 0; first < jobs.length; first += JOBS_PER_RUN)
      await scheduleRun(ctx, jobs.slice(first, first + JOBS_PER_RUN));
    await countAccepted(ctx, { route: ROUTE, receivedAtMs });
    return taken;
  },
});

/**
 * Accepts a delivery of more events than one transaction claims, in parts: one claim of the whole,
 * an inbox row for each part, and the limits as for any one delivery. A few parts are scheduled, each
 * of which schedules the one behind it, because other work would wait behind them all. What of it is new is found
 * out by its parts, so a delivery whose events all came before, one by one, is no duplicate here:
 * it is accepted, and changes nothing.
 */
export const acceptParts = internalMutation({
  args: { key: v.string(), parts: v.array(v.array(whatsappEvent)), ...received },
  returns: acceptance,
  handler: async (ctx, { key, parts, addressKey, leaveOut, receivedAtMs }): Promise<Acceptance> => {
    const nowMs = Date.now();
    const claim = { scope: DELIVERY_SCOPE, key };
    if ((await Claims.find(ctx, claim, nowMs)) !== null) {
      await Duplicates.count(ctx, DELIVERY_SCOPE, nowMs);
      return { kind: "duplicate" };
    }
    const taken = await takeLimits(ctx, { route: ROUTE, addressKey, leaveOut }, nowMs);
    if (taken.kind === "refused") return taken;
    await Claims.put(ctx, { ...claim, ttlMs: CLAIM_TTL_MS }, nowMs);
    for (const id of await storeLanes(ctx, parts, nowMs))
      await scheduleRun(ctx, [{ id, attempts: 0 }]);
    await countAccepted(ctx, { route: ROUTE, receivedAtMs });
    return taken;
  },
});

/**
 * The effect of a part, run inside inbox:processJobs: what accept does with a small delivery, for
 * the events that are new. A part that fails leaves none of them, and is tried again.
 */
export const applyPart = internalMutation({
  args: {
    events: v.array(whatsappEvent),
    receivedAtMs: v.number(),
    /** The part that is started behind these events. */
    nextId: v.optional(v.id("webhookInbox")),
  },
  returns: v.null(),
  handler: async (ctx, { events, nextId, receivedAtMs }) => {
    const nowMs = Date.now();
    const fresh = await unclaimed(ctx, events, nowMs);
    const jobs = await storeEach(ctx, fresh, { nowMs, receivedAtMs });
    if (jobs.length > 0) await scheduleRun(ctx, jobs, nextId);
    else if (nextId !== undefined) await scheduleRun(ctx, [{ id: nextId, attempts: 0 }]);
    return null;
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
  const fresh: WhatsappEvent[] = [];
  for (const event of byClaim(events).values())
    if ((await Claims.find(ctx, claimKey(event), nowMs)) === null) fresh.push(event);
  return fresh;
}

/** Claims and stores events that are new. The caller schedules their processing. */
async function storeEach(
  ctx: MutationCtx,
  events: readonly WhatsappEvent[],
  at: { readonly nowMs: number; readonly receivedAtMs?: number },
): Promise<Job[]> {
  const jobs: Job[] = [];
  for (const event of events) {
    await Claims.put(ctx, { ...claimKey(event), ttlMs: CLAIM_TTL_MS }, at.nowMs);
    jobs.push({ id: await Inbox.enqueue(ctx, event, at), attempts: 0 });
  }
  return jobs;
}

/** Stores parts, each of which names the one behind it in its lane. Returns the first of each lane. */
async function storeLanes(
  ctx: MutationCtx,
  parts: readonly WhatsappEvent[][],
  nowMs: number,
): Promise<Id<"webhookInbox">[]> {
  const firstIds = new Map<number, Id<"webhookInbox">>();
  // The last part first, so that the one before it can name it.
  for (const [index, events] of [...parts.entries()].toReversed()) {
    const nextId = firstIds.get(index % LANES);
    const next = nextId === undefined ? {} : { nextId };
    const dueAtMs = nowMs + Math.floor(index / LANES) * PART_TURN_MS;
    const part = { type: "whatsapp_part" as const, events, ...next };
    firstIds.set(index % LANES, await Inbox.enqueue(ctx, part, { nowMs, dueAtMs }));
  }
  return [...firstIds.values()];
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
  const { text, textTruncated, mediaId, contextId, dataJson, dataTruncated } = event;
  const identity = { messageId, from, fromUserId, phoneNumberId, kind, sentAtMs };
  const data = {
    ...(dataJson === undefined ? {} : { dataJson }),
    ...(dataTruncated === undefined ? {} : { dataTruncated }),
  };
  return { ...identity, text, textTruncated, mediaId, contextId, ...data };
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
