import * as z from "zod";
import { AppError } from "../../errors/appError";
import { parseContract } from "../../http/validate";
import { parsePart } from "../contract";
import { toHex } from "../signature/hmac";
import { bounded, contentOf, type Fields, ID_LENGTH_MAX, textAt } from "./content";
import type { MessageEvent, StatusReport, WhatsappEvent } from "./event";
import { type MessageStatus, STATUS_LADDER } from "./status";

/** Longest phone number or business-scoped user id: a country, a dot and 128 characters, or so. */
const PARTY_LENGTH_MAX = 256;
const KIND_LENGTH_MAX = 64;
/** Latest instant that a Date can hold, in seconds. */
const TIMESTAMP_SECONDS_MAX = 8_640_000_000_000;
/**
 * Messages and reports of one delivery. Meta batches 1,000; 3 MiB hold about ten thousand reports
 * as Meta writes them, and what is stored of so many fits into one transaction.
 */
export const DELIVERY_EVENTS_MAX = 40_000;

// A field of an unexpected form counts as absent: one odd message must not make Meta redeliver its
// whole batch for a week. Only the frame that holds the messages has to be right.
const textField = z.string().optional().catch(undefined);

/** Read field by field as it is found: its kinds are many, and what they hold is kept as it came. */
const Message = z.looseObject({});

/** Documented as a number, and written as text in some of the reference's examples. */
const errorCode = z
  .union([
    z.number(),
    z
      .string()
      .regex(/^\d{1,9}$/)
      .transform(Number),
  ])
  .optional()
  .catch(undefined);

const Status = z.looseObject({
  id: textField,
  status: textField,
  timestamp: z.unknown().optional(),
  recipient_id: textField,
  recipient_user_id: textField,
  errors: z
    .array(z.looseObject({ code: errorCode }))
    .optional()
    .catch(undefined),
  type: textField,
});

const Value = z.looseObject({
  metadata: z.looseObject({ phone_number_id: textField }).optional().catch(undefined),
  contacts: z
    .array(z.looseObject({ wa_id: textField, user_id: textField }))
    .optional()
    .catch(undefined),
  // One by one when their turn comes: copies of thousands at once would fill a small heap.
  messages: z.array(z.unknown()).default([]),
  statuses: z.array(z.unknown()).default([]),
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
 * are tolerated. Throws `invalid_request` where the frame is not one that Meta sends, and
 * `payload_too_large` for more events than one delivery may have.
 */
export async function readDelivery(body: unknown, receivedAtMs: number): Promise<ReadDelivery> {
  const { entry } = parseContract(Delivery, body);
  const events: WhatsappEvent[] = [];
  let ignored = 0;
  let held = 0;
  for (const { field, value, path } of changesOf(entry)) {
    if (field !== "messages") {
      ignored += 1;
      continue;
    }
    const part = { ...parsePart(Value, value, path), path };
    held += part.messages.length + part.statuses.length;
    if (held > DELIVERY_EVENTS_MAX) throw tooMany();
    for (const event of await readValue(part, receivedAtMs)) {
      if (event === null) ignored += 1;
      else events.push(event);
    }
  }
  return { events, ignored };
}

const tooMany = (): AppError =>
  new AppError("payload_too_large", {
    detail: `A delivery may hold at most ${DELIVERY_EVENTS_MAX} messages and reports.`,
  });

const changesOf = (entries: z.infer<typeof Delivery>["entry"]) =>
  entries.flatMap(({ changes }, entry) =>
    changes.map(({ field, value }, change) => ({
      field,
      value,
      path: ["entry", String(entry), "changes", String(change), "value"],
    })),
  );

interface ValueAt extends Value {
  readonly path: readonly string[];
}

async function readValue(
  value: ValueAt,
  receivedAtMs: number,
): Promise<readonly (WhatsappEvent | null)[]> {
  const found: (WhatsappEvent | null)[] = [];
  for (const [index, raw] of value.messages.entries()) {
    const message = parsePart(Message, raw, [...value.path, "messages", String(index)]);
    found.push(await readMessage(message, value, receivedAtMs));
  }
  for (const [index, raw] of value.statuses.entries()) {
    const status = parsePart(Status, raw, [...value.path, "statuses", String(index)]);
    found.push(readStatus(status, receivedAtMs));
  }
  return found;
}

async function readMessage(
  message: Fields,
  value: Value,
  receivedAtMs: number,
): Promise<MessageEvent> {
  const sender = onlyContact(value);
  const fromUserId = textAt(message, "from_user_id") ?? sender?.user_id;
  const from = textAt(message, "from") ?? sender?.wa_id ?? fromUserId;
  const content = contentOf(message);
  return {
    type: "message",
    messageId: await idOf(message, content.contextId),
    from: bounded(from, PARTY_LENGTH_MAX),
    fromUserId: bounded(fromUserId, PARTY_LENGTH_MAX),
    phoneNumberId: bounded(value.metadata?.phone_number_id, PARTY_LENGTH_MAX),
    kind: bounded(textAt(message, "type"), KIND_LENGTH_MAX) ?? "unknown",
    ...content,
    sentAtMs: millisecondsOf(message["timestamp"]) ?? receivedAtMs,
  };
}

/**
 * A message's own id, or its digest. Redeliveries repeat a message byte for byte, so the digest
 * serves where it has no id of its own: none at all, or that of the message it is about, whose row
 * and claim it would take.
 */
async function idOf(message: Fields, contextId: string | null): Promise<string> {
  const id = usableId(textAt(message, "id"));
  if (id !== null && id !== contextId) return id;
  const bytes = new TextEncoder().encode(JSON.stringify(message));
  return `sha256:${toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)))}`;
}

function readStatus(status: z.infer<typeof Status>, receivedAtMs: number): StatusReport | null {
  const messageId = usableId(status.id);
  // Without the message it speaks of, or with a word that is on no ladder, a report joins nothing. A
  // payment can fail as well, and is none of a message's delivery.
  if (messageId === null || !isMessageStatus(status.status) || status.type === "payment")
    return null;
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

const usableId = (id: string | undefined): string | null => bounded(id, ID_LENGTH_MAX);

/** Unix seconds, as text or number, in milliseconds; null for anything else. */
function millisecondsOf(timestamp: unknown): number | null {
  if (typeof timestamp !== "number" && typeof timestamp !== "string") return null;
  if (timestamp === "") return null;
  const seconds = Number(timestamp);
  const inRange = Number.isSafeInteger(seconds) && seconds >= 0 && seconds <= TIMESTAMP_SECONDS_MAX;
  return inRange ? seconds * 1000 : null;
}
