import { defineTable } from "convex/server";
import { type Infer, v } from "convex/values";

const messageStatus = v.union(
  v.literal("sent"),
  v.literal("failed"),
  v.literal("delivered"),
  v.literal("read"),
  v.literal("played"),
);

const nullableText = v.union(v.string(), v.null());
const nullableNumber = v.union(v.number(), v.null());

const messageFields = {
  messageId: v.string(),
  from: nullableText,
  fromUserId: nullableText,
  phoneNumberId: nullableText,
  kind: v.string(),
  text: nullableText,
  textTruncated: v.boolean(),
  mediaId: nullableText,
  contextId: nullableText,
  // Absent where a message holds nothing more than its columns, and in rows of before there were any.
  dataJson: v.optional(v.string()),
  dataTruncated: v.optional(v.boolean()),
  sentAtMs: v.number(),
};

/** A WhatsApp message or status report in the reduced form that is stored. */
export const whatsappEvent = v.union(
  v.object({ type: v.literal("message"), ...messageFields }),
  v.object({
    type: v.literal("status"),
    messageId: v.string(),
    status: messageStatus,
    atMs: v.number(),
    errorCode: nullableNumber,
    recipient: nullableText,
  }),
);

/** A mailbox and the history id that Gmail notified us of. */
export const gmailNotification = v.object({ emailAddress: v.string(), historyId: v.string() });

/** What an inbox row asks to be done. */
export const inboxEvent = v.union(
  whatsappEvent,
  // A part of a large delivery: its events get rows of their own when this one's turn comes, and
  // then it is the next part's turn. The last part of a lane has none behind it.
  v.object({
    type: v.literal("whatsapp_part"),
    events: v.array(whatsappEvent),
    nextId: v.optional(v.id("webhookInbox")),
  }),
  v.object({ type: v.literal("gmail_history"), ...gmailNotification.fields }),
);
export type InboxEvent = Infer<typeof inboxEvent>;

const googleKey = v.object({ kid: v.string(), n: v.string(), e: v.string() });

/** Google's signing keys as fetched, and until when they need not be fetched again. */
export const fetchedKeys = v.object({ keys: v.array(googleKey), freshUntilMs: v.number() });

/** The key set with the times of its refreshes: begun, succeeded, failed. */
export const storedKeys = {
  ...fetchedKeys.fields,
  attemptedAtMs: v.number(),
  fetchedAtMs: v.number(),
  failedAtMs: v.optional(v.number()),
};

const deliveryState = v.object({
  status: v.union(messageStatus, v.null()),
  firstAtMs: v.object({
    sent: v.optional(v.number()),
    failed: v.optional(v.number()),
    delivered: v.optional(v.number()),
    read: v.optional(v.number()),
    played: v.optional(v.number()),
  }),
  failure: v.union(v.object({ atMs: v.number(), errorCode: nullableNumber }), v.null()),
});

/** Tables of the webhook channels, spread into the schema. */
export const integrationTables = {
  // Accepted webhook events, each a job, and parts of large deliveries. Written by the accept mutations,
  // whatsapp:applyPart and inbox:processJobs; read by inbox:processJobs by id, and by operators. There is no visible "processing": an attempt is one
  // transaction. A done row dies after 3 days without its event, a dead letter after 30.
  webhookInbox: defineTable({
    state: v.union(v.literal("queued"), v.literal("done"), v.literal("dead_letter")),
    /** Null once done: the effect holds what is worth keeping. */
    event: v.union(inboxEvent, v.null()),
    /** Attempts that failed. An attempt scheduled for another count does nothing. */
    attempts: v.number(),
    /** Queued: when the next attempt is due. Otherwise: when the row dies. */
    dueAtMs: v.number(),
    lastErrorCode: nullableText,
    receivedAtMs: v.number(),
  }).index("by_state_due", ["state", "dueAtMs"]),

  // WhatsApp messages, one row per message id. Written by whatsapp:applyEvent; read by operators'
  // listing. A row without `from` is a message of ours that only its status reports have told of.
  // Dies 30 days after receipt, long after the last redelivery.
  whatsappMessages: defineTable({
    ...messageFields,
    direction: v.union(v.literal("inbound"), v.literal("outbound")),
    recipient: nullableText,
    delivery: deliveryState,
    receivedAtMs: v.number(),
    expiresAtMs: v.number(),
  })
    .index("by_message_id", ["messageId"])
    .index("by_expires_at", ["expiresAtMs"]),

  // How far each mailbox's history is known, one row per address. Written and read by
  // gmail:applyNotification, and only moved forward. Never deleted: it is the place to sync from.
  gmailMailboxes: defineTable({
    emailAddress: v.string(),
    historyId: v.string(),
    updatedAtMs: v.number(),
  }).index("by_email_address", ["emailAddress"]),

  // Gmail history notifications, one row per mailbox and history id. Written by
  // gmail:applyNotification; read by operators' listing. Dies 30 days after receipt.
  gmailHistoryChanges: defineTable({
    ...gmailNotification.fields,
    /** False when a later history id was already known: nothing new to sync. */
    advanced: v.boolean(),
    receivedAtMs: v.number(),
    expiresAtMs: v.number(),
  })
    .index("by_mailbox_history", ["emailAddress", "historyId"])
    .index("by_expires_at", ["expiresAtMs"]),

  // Google's public keys, one row in all. Written by googleKeys:beginRefresh and :save; read by
  // every Gmail push that carries an OIDC token. Never deleted, overwritten in place.
  googleKeys: defineTable(storedKeys),
};
