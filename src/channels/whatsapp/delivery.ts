import * as z from "zod";
import { DAY, SECOND } from "../../core/time";
import { AppError } from "../../errors/appError";
import { parseContract } from "../../http/validate";
import { toHex } from "../signature/hmac";
import { contentOf, ID_LENGTH_MAX } from "./content";
import type { MessageEvent, StatusReport, WhatsappEvent } from "./event";
import {
  asObject,
  bounded,
  type Fields,
  firstOf,
  listAt,
  objectAt,
  partyAt,
  textAt,
  valueAt,
} from "./fields";
import { dataOf } from "./rest";
import { type MessageStatus, STATUS_LADDER } from "./status";

/** Longest phone number or business-scoped user id: a country, a dot and 128 characters, or so. */
const PARTY_LENGTH_MAX = 256;
const KIND_LENGTH_MAX = 64;
/** How far WhatsApp's clock may be ahead of ours. */
const CLOCK_AHEAD_MAX_MS = DAY;
/**
 * Messages and reports of one delivery. Meta batches 1,000, and 3 MiB hold about 9,500 reports with
 * price and conversation as Meta writes them. What is stored of so many takes one transaction well
 * less than the second of computing that it has.
 */
export const DELIVERY_EVENTS_MAX = 15_000;

/** Only the frame has to be right: one odd item must not make Meta repeat the rest for a week. */
const Delivery = z.looseObject({ entry: z.array(z.unknown()).nullish() });

export interface ReadDelivery {
  readonly events: readonly WhatsappEvent[];
  /**
   * Not stored: changes of other fields (account updates, echoes), reports without a use, and what
   * stands in the place of an entry, change, list, message or report and is none.
   */
  readonly ignored: number;
}

/**
 * Reads a Cloud API delivery into the events that are stored. Unknown fields, kinds and changes,
 * and items of an unexpected form, are tolerated. Throws `invalid_request` where the body is no
 * object or its entries no list, and `payload_too_large` for more events than one delivery may have.
 */
export async function readDelivery(body: unknown, receivedAtMs: number): Promise<ReadDelivery> {
  const { entry } = parseContract(Delivery, body);
  const events: WhatsappEvent[] = [];
  const ignored = { count: 0 };
  let held = 0;
  for (const value of valuesOf(entry ?? [], ignored)) {
    const messages = itemsOf(value, "messages", ignored);
    const statuses = itemsOf(value, "statuses", ignored);
    held += messages.length + statuses.length;
    if (held > DELIVERY_EVENTS_MAX) throw tooMany();
    for (const raw of objectsOf(messages, ignored))
      events.push(await readMessage(raw, value, receivedAtMs));
    for (const raw of objectsOf(statuses, ignored)) {
      const report = readStatus(raw, receivedAtMs);
      if (report === null) ignored.count += 1;
      else events.push(report);
    }
  }
  return { events, ignored: ignored.count };
}

const tooMany = (): AppError =>
  new AppError("payload_too_large", {
    detail: `A delivery may hold at most ${DELIVERY_EVENTS_MAX} messages and reports.`,
  });

interface Ignored {
  count: number;
}

/** The values of the changes that hold messages and reports. */
function* valuesOf(entries: readonly unknown[], ignored: Ignored): Generator<Fields> {
  for (const entry of objectsOf(entries, ignored)) {
    for (const change of objectsOf(itemsOf(entry, "changes", ignored), ignored)) {
      const value = objectAt(change, "value");
      if (valueAt(change, "field") === "messages" && value !== undefined) yield value;
      else ignored.count += 1;
    }
  }
}

/** The list at a key, which may be absent. */
function itemsOf(fields: Fields, key: string, ignored: Ignored): readonly unknown[] {
  const list = listAt(fields, key);
  if (list === undefined && valueAt(fields, key) !== undefined) ignored.count += 1;
  return list ?? [];
}

function* objectsOf(items: readonly unknown[], ignored: Ignored): Generator<Fields> {
  for (const item of items) {
    const object = asObject(item);
    if (object === undefined) ignored.count += 1;
    else yield object;
  }
}

async function readMessage(
  message: Fields,
  value: Fields,
  receivedAtMs: number,
): Promise<MessageEvent> {
  const sender = onlyContact(value);
  const fromUserId = partyAt(message, "from_user_id") ?? partyAt(sender, "user_id");
  const from = partyAt(message, "from") ?? partyAt(sender, "wa_id") ?? fromUserId;
  const content = contentOf(message);
  const columns = {
    type: "message",
    messageId: await idOf(message, content.contextId),
    from: bounded(from, PARTY_LENGTH_MAX),
    fromUserId: bounded(fromUserId, PARTY_LENGTH_MAX),
    phoneNumberId: bounded(
      partyAt(objectAt(value, "metadata"), "phone_number_id"),
      PARTY_LENGTH_MAX,
    ),
    kind: bounded(textAt(message, "type"), KIND_LENGTH_MAX) ?? "unknown",
    ...content,
    sentAtMs: millisecondsOf(valueAt(message, "timestamp"), receivedAtMs) ?? receivedAtMs,
  } as const;
  return { ...columns, ...dataOf(message, columns) };
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

function readStatus(report: Fields, receivedAtMs: number): StatusReport | null {
  const messageId = usableId(textAt(report, "id"));
  const status = textAt(report, "status");
  // Without the message it speaks of, or with a word that is on no ladder, a report joins nothing. A
  // payment can fail as well, and is none of a message's delivery.
  if (messageId === null || !isMessageStatus(status) || textAt(report, "type") === "payment")
    return null;
  const recipient = partyAt(report, "recipient_id") ?? partyAt(report, "recipient_user_id");
  return {
    type: "status",
    messageId,
    status,
    atMs: millisecondsOf(valueAt(report, "timestamp"), receivedAtMs) ?? receivedAtMs,
    errorCode: status === "failed" ? errorCodeOf(report) : null,
    recipient: bounded(recipient, PARTY_LENGTH_MAX),
  };
}

const isMessageStatus = (word: string | undefined): word is MessageStatus =>
  STATUS_LADDER.some((status) => status === word);

/** The first code given. Documented as a number, and text in some of the reference's examples. */
function errorCodeOf(report: Fields): number | null {
  const codes = (listAt(report, "errors") ?? []).map((error) => valueAt(asObject(error), "code"));
  return firstOf(codes, (code) => wholeNumberOf(code, /^\d{1,9}$/)) ?? null;
}

/** The sender of a message that names none: certain only where one contact is listed. */
function onlyContact(value: Fields): Fields | undefined {
  const contacts = (listAt(value, "contacts") ?? []).map(asObject).filter((item) => item);
  return contacts.length === 1 ? contacts[0] : undefined;
}

const usableId = (id: string | undefined): string | null => bounded(id, ID_LENGTH_MAX);

/**
 * Unix seconds, as text or number, in milliseconds; null for anything else, and for what is further
 * ahead than clocks are, such as a time in another unit.
 */
function millisecondsOf(timestamp: unknown, receivedAtMs: number): number | null {
  const seconds = wholeNumberOf(timestamp, /^\d{1,12}$/);
  if (seconds === undefined || seconds < 0) return null;
  const milliseconds = seconds * SECOND;
  return milliseconds > receivedAtMs + CLOCK_AHEAD_MAX_MS ? null : milliseconds;
}

/** A whole number, or the number that a text of this form spells. */
function wholeNumberOf(value: unknown, spelling: RegExp): number | undefined {
  if (typeof value === "string") return spelling.test(value) ? Number(value) : undefined;
  return typeof value === "number" && Number.isSafeInteger(value) ? value : undefined;
}
