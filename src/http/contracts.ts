/**
 * What the routes accept. Unknown keys are refused where the client is ours to instruct, and let
 * through where a provider adds fields as it likes.
 */
import * as z from "zod";
import { HALF_A_CHARACTER, isWellFormed } from "../core/wellFormed";

/** Characters of one user message, as Unicode counts them. */
const CONTENT_CHARS_MAX = 32_000;
const ID_LENGTH_MAX = 128;
const SESSION_ID_LENGTH_MAX = 256;

const text = (lengthMax: number) =>
  z.string().min(1).max(lengthMax).refine(isWellFormed, HALF_A_CHARACTER);

const Id = text(ID_LENGTH_MAX);

const Content = z
  .string()
  .min(1)
  .refine((content) => charactersIn(content) <= CONTENT_CHARS_MAX, {
    message: `Too big: expected string to have <=${CONTENT_CHARS_MAX} characters`,
  })
  .refine(isWellFormed, HALF_A_CHARACTER)
  .meta({ maxLength: CONTENT_CHARS_MAX });

function charactersIn(content: string): number {
  if (content.length <= CONTENT_CHARS_MAX) return content.length;
  return Array.from(content).length;
}

const TurnChoices = {
  modelId: Id.optional().describe("A model of the allowlist, or the class `fast` or `agent`."),
  webSearch: z.boolean().optional().describe("Offers the model web search."),
};

/** A turn over a message that comes with it. */
const NewMessageTurn = z.strictObject({
  threadId: Id.optional().describe("Without it a thread is created."),
  message: z.strictObject({
    content: Content,
    clientMessageId: Id.optional().describe("The client's own id, to find the message again."),
  }),
  ...TurnChoices,
});

/** A turn over the newest message of a thread, sent before with `messages:send`. */
const StoredMessageTurn = z.strictObject({
  threadId: Id,
  ...TurnChoices,
  sessionId: text(SESSION_ID_LENGTH_MAX).optional().describe("Accepted and not used."),
});

export const ChatBody = z.union([NewMessageTurn, StoredMessageTurn]);

export const ChatAbortBody = z.strictObject({
  threadId: Id,
  messageId: Id,
  sessionId: text(SESSION_ID_LENGTH_MAX).optional().describe("Accepted and not used."),
  streamId: Id.optional(),
});

export const ChatStreamQuery = z.strictObject({
  streamId: Id.describe("From the `start` event."),
  lastEventId: z
    .string()
    .max(20)
    .optional()
    .describe("For readers that cannot send the `Last-Event-ID` header."),
});

/** Pub/Sub's push envelope; what is inside `data` is Gmail's and read by its channel. */
export const GmailPushBody = z.looseObject({
  message: z.looseObject({ data: z.string().min(1) }),
});

/** Meta's webhook envelope; entries are read by their channel, which takes null for none. */
export const WhatsappBody = z.looseObject({ entry: z.array(z.unknown()).nullish() });

/** Optional here: the channel answers each absence as Meta's own guide has it. */
export const WhatsappVerifyQuery = z.looseObject({
  "hub.mode": z.string().optional(),
  "hub.verify_token": z.string().optional(),
  "hub.challenge": z.string().optional(),
});

export const HealthAnswer = z.strictObject({ ok: z.literal(true), version: z.string() });
