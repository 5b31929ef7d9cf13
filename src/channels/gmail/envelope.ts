import * as z from "zod";
import { HALF_A_CHARACTER, isWellFormed } from "../../core/wellFormed";
import { AppError } from "../../errors/appError";
import { parseContract } from "../../http/validate";
import { parsePart } from "../contract";
import { HISTORY_ID_DIGITS_MAX, normalizeHistoryId } from "./historyId";
import type { GmailNotification } from "./notification";

/**
 * Longest local part and domain of RFC 5321 with the sign between them, so that the claim key is
 * bounded too.
 */
const EMAIL_LENGTH_MAX = 64 + 1 + 255;
/** A notification is under 200 bytes; anything much longer is not Gmail's. */
const DATA_LENGTH_MAX = 8_192;

const Envelope = z.looseObject({
  message: z.looseObject({ data: z.string().min(1).max(DATA_LENGTH_MAX) }),
});

// Which addresses there are is Google's to judge: quoted and internationalized ones come as they
// are, and a push that is refused comes again for days. Only what could not be stored is refused.
const Notification = z.looseObject({
  emailAddress: z
    .string()
    .max(EMAIL_LENGTH_MAX)
    .regex(/.@./s, "Expected an address")
    .refine(isWellFormed, HALF_A_CHARACTER),
  historyId: z.union([
    z
      .string()
      .min(1)
      .max(HISTORY_ID_DIGITS_MAX * 2),
    z.number(),
  ]),
});

/**
 * Reads the Pub/Sub push envelope of a Gmail watch. Its data is base64 or base64url, padded or
 * not; the history id is text or number. Throws `invalid_request`.
 */
export function readNotification(body: unknown): GmailNotification {
  const { message } = parseContract(Envelope, body);
  const notification = parsePart(Notification, decodeJson(message.data), ["message", "data"]);
  const historyId = normalizeHistoryId(notification.historyId);
  if (historyId === null)
    throw refuse("message.data.historyId", "Expected a positive 64-bit decimal number");
  return { emailAddress: notification.emailAddress.toLowerCase(), historyId };
}

/**
 * A history id that is written as a number. It has 64 bits, of which a parsed number would lose some,
 * so it is read as text. Inside a text of JSON there are no such quotes.
 */
const HISTORY_NUMBER = /("historyId"\s*:\s*)([1-9]\d{0,19})(?=\s*[,}])/g;

function decodeJson(data: string): unknown {
  try {
    // atob forgives absent padding but knows only the classic alphabet.
    const binary = atob(data.replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0));
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return JSON.parse(text.replace(HISTORY_NUMBER, '$1"$2"'));
  } catch {
    throw refuse("message.data", "Expected base64 of a JSON object");
  }
}

const refuse = (path: string, message: string): AppError =>
  new AppError("invalid_request", { issues: [{ path, message }] });
