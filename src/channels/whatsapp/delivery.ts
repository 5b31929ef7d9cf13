import * as z from "zod";
import { parseContract } from "../../http/validate";
import { parsePart } from "../contract";
import { toHex } from "../signature/hmac";
import type { MessageEvent, StatusReport, WhatsappEvent } from "./event";
import { type MessageStatus, STATUS_LADDER } from "./status";
import { boundText } from "./text";

/** Longest id that is used as it is; WhatsApp's are about 60 characters. */
const ID_LENGTH_MAX = 256;
/** Longest phone number or business-scoped user id: a country, a dot and 128 characters, or so. */
const PARTY_LENGTH_MAX = 256;
const KIND_LENGTH_MAX = 64;
/** Latest instant that a Date can hold, in seconds. */
const TIMESTAMP_SECONDS_MAX = 8_640_000_000_000;

// A field of an unexpected form counts as absent: one odd message must not make Meta redeliver its
// whole batch for a week. Only the frame that holds the messages has to be right.
const textField = z.string().optional().catch(undefined);
const part = z
  .looseObject({
    body: textField,
    caption: textField,
    text: textField,
    emoji: textField,
    id: textField,
  })
  .optional()
  .catch(undefined);
const reply = z.looseObject({ title: textField }).optional().catch(undefined);

const Message = z.looseObject({
  id: textField,
  from: textField,
  from_user_id: textField,
  timestamp: z.union([z.string(), z.number()]).optional().catch(undefined),
  type: textField,
  text: part,
  image: part,
  video: part,
  audio: part,
  document: part,
  sticker: part,
  button: part,
  reaction: z.looseObject({ emoji: textField, message_id: textField }).optional().catch(undefined),
  interactive: z
    .looseObject({ button_reply: reply, list_reply: reply })
    .optional()
    .catch(undefined),
  context: part,
});
type Message = z.infer<typeof Message>;

const Status = z.looseObject({
  id: textField,
  status: textField,
  timestamp: z.union([z.string(), z.number()]).optional().catch(undefined),
  recipient_id: textField,
  recipient_user_id: textField,
  errors: z
    .array(z.looseObject({ code: z.number().optional().catch(undefined) }))
    .optional()
    .catch(undefined),
});

const Value = z.looseObject({
  metadata: z.looseObject({ phone_number_id: textField }).optional().catch(undefined),
  contacts: z
    .array(z.looseObject({ wa_id: textField, user_id: textField }))
    .optional()
    .catch(undefined),
  messages: z.array(Message).default([]),
  statuses: z.array(Status).default([]),
});
type Value = z.infer<typeof Value>;

const Delivery = z.looseObject({
  entry: z
    .array(
      z.looseObject({
        changes: z
          .array(z.looseObject({ field: textField, value: z.unknown().optional() }))
          .default([]),
      }),
    )
    .default([]),
});

export interface ReadDelivery {
  readonly events: readonly WhatsappEvent[];
  /** Changes of other fields (account updates, echoes) and reports without a use: not stored. */
  readonly ignored: number;
}

/**
 * Reads a Cloud API delivery into the events that are stored. Unknown fields, kinds and changes
 * are tolerated. Throws `invalid_request` where the frame is not one that Meta sends.
 */
export async function readDelivery(body: unknown, receivedAtMs: number): Promise<ReadDelivery> {
  const { entry } = parseContract(Delivery, body);
  const events: WhatsappEvent[] = [];
  let ignored = 0;
  for (const { field, value, path } of changesOf(entry)) {
    if (field !== "messages") {
      ignored += 1;
      continue;
    }
    const found = await readValue(parsePart(Value, value, path), receivedAtMs);
    events.push(...found.filter((event) => event !== null));
    ignored += found.filter((event) => event === null).length;
  }
  return { events, ignored };
}

const changesOf = (entries: z.infer<typeof Delivery>["entry"]) =>
  entries.flatMap(({ changes }, entry) =>
    changes.map(({ field, value }, change) => ({
      field,
      value,
      path: ["entry", String(entry), "changes", String(change), "value"],
    })),
  );

async function readValue(
  value: Value,
  receivedAtMs: number,
): Promise<readonly (WhatsappEvent | null)[]> {
  const messages = value.messages.map((message) => readMessage(message, value, receivedAtMs));
  const reports = value.statuses.map((status) => readStatus(status, receivedAtMs));
  return [...(await Promise.all(messages)), ...reports];
}

async function readMessage(
  message: Message,
  value: Value,
  receivedAtMs: number,
): Promise<MessageEvent> {
  const sender = onlyContact(value);
  const fromUserId = message.from_user_id ?? sender?.user_id;
  const said = textOf(message);
  const { text, truncated } = boundText(said ?? "");
  return {
    type: "message",
    messageId: usableId(message.id) ?? (await digestId(message)),
    from: bounded(message.from ?? sender?.wa_id ?? fromUserId, PARTY_LENGTH_MAX),
    fromUserId: bounded(fromUserId, PARTY_LENGTH_MAX),
    phoneNumberId: bounded(value.metadata?.phone_number_id, PARTY_LENGTH_MAX),
    kind: bounded(message.type, KIND_LENGTH_MAX) ?? "unknown",
    text: said === undefined ? null : text,
    textTruncated: truncated,
    mediaId: bounded(mediaOf(message), ID_LENGTH_MAX),
    contextId: bounded(message.context?.id ?? message.reaction?.message_id, ID_LENGTH_MAX),
    sentAtMs: millisecondsOf(message.timestamp) ?? receivedAtMs,
  };
}

function readStatus(status: z.infer<typeof Status>, receivedAtMs: number): StatusReport | null {
  const messageId = usableId(status.id);
  // Without the message it speaks of, or with a word that is on no ladder, a report joins nothing.
  if (messageId === null || !isMessageStatus(status.status)) return null;
  return {
    type: "status",
    messageId,
    status: status.status,
    atMs: millisecondsOf(status.timestamp) ?? receivedAtMs,
    errorCode: status.status === "failed" ? (status.errors?.[0]?.code ?? null) : null,
    recipient: bounded(status.recipient_id ?? status.recipient_user_id, PARTY_LENGTH_MAX),
  };
}

const isMessageStatus = (word: string | undefined): word is MessageStatus =>
  STATUS_LADDER.some((status) => status === word);

/** The sender of a message that names none: certain only where one contact is listed. */
const onlyContact = ({ contacts }: Value) => (contacts?.length === 1 ? contacts[0] : undefined);

function textOf(message: Message): string | undefined {
  const { interactive, image, video, document } = message;
  return (
    message.text?.body ??
    image?.caption ??
    video?.caption ??
    document?.caption ??
    message.button?.text ??
    interactive?.button_reply?.title ??
    interactive?.list_reply?.title ??
    message.reaction?.emoji
  );
}

const mediaOf = ({ image, video, audio, document, sticker }: Message): string | undefined =>
  (image ?? video ?? audio ?? document ?? sticker)?.id;

/** A non-empty text within its bound, else null: a cut identifier would identify another. */
function bounded(text: string | undefined, lengthMax: number): string | null {
  if (text === undefined || text === "" || text.length > lengthMax) return null;
  return boundText(text).text;
}

const usableId = (id: string | undefined): string | null => bounded(id, ID_LENGTH_MAX);

/** Redeliveries repeat a message byte for byte, so its digest serves where it has no id. */
async function digestId(message: Message): Promise<string> {
  const bytes = new TextEncoder().encode(JSON.stringify(message));
  return `sha256:${toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)))}`;
}

/** Unix seconds, as text or number, in milliseconds; null for anything else. */
function millisecondsOf(timestamp: string | number | undefined): number | null {
  if (timestamp === undefined || timestamp === "") return null;
  const seconds = Number(timestamp);
  const inRange = Number.isSafeInteger(seconds) && seconds >= 0 && seconds <= TIMESTAMP_SECONDS_MAX;
  return inRange ? seconds * 1000 : null;
}
