import type { StatusEvent } from "./status";

/** A message in the reduced form that is stored. Strings are bounded and well-formed. */
export interface MessageEvent {
  readonly type: "message";
  /** WhatsApp's id, or `sha256:<hex>` of the message where it has no usable one. */
  readonly messageId: string;
  /** Phone number or business-scoped user id of the sender; null when neither was given. */
  readonly from: string | null;
  /** Business-scoped user id, which stays when the sender hides the number. */
  readonly fromUserId: string | null;
  /** Our number that it was sent to. */
  readonly phoneNumberId: string | null;
  /** `text`, `image`, `interactive`, …: WhatsApp's word, `unknown` without one. */
  readonly kind: string;
  /**
   * Text, caption, title of the chosen button or emoji, of an edit the new text; empty where a
   * reaction is removed, null for kinds without any.
   */
  readonly text: string | null;
  readonly textTruncated: boolean;
  readonly mediaId: string | null;
  /** The message that this one answers, reacts to, edits or takes back. */
  readonly contextId: string | null;
  /**
   * JSON text of what these fields do not hold: the kind's own data under the kind's name, and what
   * stands beside it, such as a referral, a sender or time of an unexpected form. Absent where there is nothing, or
   * nothing fits.
   */
  readonly dataJson?: string;
  /** True where a part of that data was left out or cut, because not all fits. Absent otherwise. */
  readonly dataTruncated?: boolean;
  /** WhatsApp's clock, in epoch milliseconds; the time of receipt where it gave none. */
  readonly sentAtMs: number;
}

/** A report on a message that the business sent. */
export interface StatusReport extends StatusEvent {
  readonly type: "status";
  readonly messageId: string;
  readonly recipient: string | null;
}

export type WhatsappEvent = MessageEvent | StatusReport;

/** Scope and key of an event's claim: a delivery is a duplicate when all its events are. */
export function claimKey(event: WhatsappEvent): { readonly scope: string; readonly key: string } {
  if (event.type === "message") return { scope: "whatsapp_message", key: event.messageId };
  return {
    scope: "whatsapp_status",
    key: `${event.messageId}:${event.status}:${event.atMs}:${event.errorCode ?? ""}`,
  };
}
