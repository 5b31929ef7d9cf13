import { createHmac } from "node:crypto";
import { delivery } from "./fixtures/whatsapp";
import { type MessageContent, textMessage } from "./messages";
import { seedOf } from "./seed";

/** A webhook request as the provider sends it. */
export interface SignedRequest {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

interface Sending {
  readonly nowMs: number;
  readonly appSecret: string;
}

interface WhatsappMessage extends Sending {
  readonly content: MessageContent;
  /** Digits of the sender's phone number. */
  readonly from: string;
  /** Default: another for every millisecond. */
  readonly id?: string | undefined;
}

export interface WhatsappText extends Omit<WhatsappMessage, "content"> {
  readonly text: string;
}

/** One text message, signed over its bytes as Meta signs. */
export function whatsappDelivery({ text, ...sending }: WhatsappText): SignedRequest {
  return whatsappMessage({ ...sending, content: textMessage(text) });
}

/** One message of any kind, signed likewise. */
export function whatsappMessage(message: WhatsappMessage): SignedRequest {
  const { appSecret, content, from, id, nowMs } = message;
  const fresh = seedOf("delivery", JSON.stringify(content), from, String(nowMs)).id("id", 30);
  const value = {
    contacts: [{ profile: { name: "Sim Sender" }, wa_id: from }],
    messages: [{ from, id: id ?? `wamid.${fresh}`, timestamp: secondsOf(nowMs), ...content }],
  };
  return signed(value, appSecret);
}

/** One delivery of so many reports, each on another message, as Meta sends them after a campaign. */
export function whatsappStatuses({
  count,
  nowMs,
  appSecret,
}: Sending & { readonly count: number }): SignedRequest {
  const seed = seedOf("statuses", String(nowMs));
  const prefix = `wamid.${seed.id("id", 24)}`;
  const conversation = { id: seed.id("conversation", 32), origin: { type: "marketing" } };
  const statuses = Array.from({ length: count }, (_, index) => ({
    id: `${prefix}${String(index).padStart(6, "0")}`,
    status: "delivered",
    timestamp: secondsOf(nowMs),
    recipient_id: String(15_550_000_000 + index),
    conversation,
    pricing: { billable: true, pricing_model: "PMP", category: "marketing", type: "regular" },
  }));
  return signed({ statuses }, appSecret);
}

const secondsOf = (nowMs: number): string => String(Math.floor(nowMs / 1000));

function signed(value: Readonly<Record<string, unknown>>, appSecret: string): SignedRequest {
  const body = metaJson(delivery(value));
  return {
    headers: {
      "content-type": "application/json",
      "user-agent": "facebookexternalua",
      "x-hub-signature-256": hub256(appSecret, body),
    },
    body,
  };
}

/** `sha256=` and the hex HMAC-SHA256 of the body. */
export function hub256(secret: string, body: string): string {
  return `sha256=${createHmac("sha256", secret).update(body).digest("hex")}`;
}

/** Meta escapes slashes and everything outside ASCII, and signs those bytes. */
function metaJson(value: unknown): string {
  return JSON.stringify(value)
    .replaceAll("/", "\\/")
    .replaceAll(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/**
 * A Pub/Sub push of a Gmail change.
 * Source: developers.google.com/workspace/gmail/api/guides/push and Pub/Sub "Receive push messages".
 */
export function gmailPush(options: {
  readonly email: string;
  readonly historyId: string;
  readonly token: string;
  readonly nowMs: number;
}): SignedRequest {
  const { email, historyId, token, nowMs } = options;
  const data = Buffer.from(`{"emailAddress":${JSON.stringify(email)},"historyId":${historyId}}`);
  const messageId = String(1e15 + seedOf("push", email, historyId, String(nowMs)).int("id", 1e15));
  const publishTime = new Date(nowMs).toISOString();
  return {
    headers: {
      "content-type": "application/json",
      "user-agent": "APIs-Google; (+https://developers.google.com/webmasters/APIs-Google.html)",
      from: "noreply@google.com",
      authorization: `Bearer ${token}`,
    },
    body: JSON.stringify({
      message: {
        data: data.toString("base64"),
        messageId,
        message_id: messageId,
        publishTime,
        publish_time: publishTime,
      },
      subscription: "projects/ballast-sim/subscriptions/gmail-push",
    }),
  };
}
