import { createHmac } from "node:crypto";
import { delivery } from "./fixtures/whatsapp";
import { seedOf } from "./seed";

/** A webhook request as the provider sends it. */
export interface SignedRequest {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export interface WhatsappText {
  readonly text: string;
  /** Digits of the sender's phone number. */
  readonly from: string;
  /** Default: another for every millisecond. */
  readonly id?: string | undefined;
  readonly nowMs: number;
  readonly appSecret: string;
}

/** One text message, signed over its bytes as Meta signs. */
export function whatsappDelivery({
  text,
  from,
  id,
  nowMs,
  appSecret,
}: WhatsappText): SignedRequest {
  const fresh = seedOf("delivery", text, from, String(nowMs)).id("id", 30);
  const body = metaJson(
    delivery({
      contacts: [{ profile: { name: "Sim Sender" }, wa_id: from }],
      messages: [
        {
          from,
          id: id ?? `wamid.${fresh}`,
          timestamp: String(Math.floor(nowMs / 1000)),
          text: { body: text },
          type: "text",
        },
      ],
    }),
  );
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
