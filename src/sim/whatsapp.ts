// Wire format: developers.facebook.com, WhatsApp Cloud API "Messages", "Media" and Graph API "Error codes".
import { createHash } from "node:crypto";
import { parseJson, record, text } from "./json";
import {
  bearer,
  json,
  retryAfter,
  type Answer,
  type Call,
  type Provider,
  type ProviderSpec,
} from "./provider";
import { seedOf } from "./seed";

const TOKEN = "sim-whatsapp-access-token";
const PHONE_NUMBER_ID = "106540352242922";
/** Sent messages kept; the oldest go first. */
const SENT_MAX = 500;

export const whatsappSpec: ProviderSpec = {
  id: "whatsapp",
  title: "WhatsApp Cloud API",
  keyNames: ["WHATSAPP_ACCESS_TOKEN", "WHATSAPP_PHONE_NUMBER_ID"],
  env: (baseUrl) => ({
    WHATSAPP_GRAPH_BASE_URL: `${baseUrl}/v23.0`,
    WHATSAPP_ACCESS_TOKEN: TOKEN,
    WHATSAPP_PHONE_NUMBER_ID: PHONE_NUMBER_ID,
  }),
};

interface SentMessage {
  readonly id: string;
  readonly body: Readonly<Record<string, unknown>>;
}

/** Sending and media; what was sent can be read. */
export interface Whatsapp extends Provider {
  sent(): readonly SentMessage[];
}

/** The Graph API of one phone number. Every media id exists. */
export function createWhatsapp(): Whatsapp {
  let kept: SentMessage[] = [];
  return {
    ...whatsappSpec,
    handle: (call) => {
      const path = call.path.replace(/^\/v\d{1,2}\.\d/, "");
      const token = bearer(call);
      if (token === null)
        return fail(
          401,
          2500,
          "An active access token must be used to query information about the current user.",
        );
      if (token !== TOKEN) return refuse(401, undefined);
      if (path !== `/${PHONE_NUMBER_ID}/messages`) return media(call, path);
      if (call.method !== "POST") return unsupported(path);
      const body = record(parseJson(call.bytes));
      const problem = problemOf(body);
      if (problem !== null) return fail(400, 100, problem);
      const id = `wamid.${Buffer.from(`HBgL${seedOf("whatsapp", JSON.stringify(body)).id("id", 27)}`).toString("base64")}`;
      kept = [...kept, { id, body }].slice(-SENT_MAX);
      // A read receipt or typing indicator has no message of its own.
      return text(body["status"]) === "read"
        ? json(200, { success: true })
        : json(200, accepted(body, id));
    },
    refuse,
    reset: () => {
      kept = [];
    },
    sent: () => kept,
  };
}

function problemOf(body: Readonly<Record<string, unknown>>): string | null {
  if (body["messaging_product"] !== "whatsapp")
    return "(#100) The parameter messaging_product is required.";
  if (text(body["status"]) === "read")
    return text(body["message_id"]) === "" ? "(#100) The parameter message_id is required." : null;
  if (text(body["to"]) === "" && text(body["recipient"]) === "")
    return "(#100) The parameter to is required.";
  const type = text(body["type"]) || "text";
  return Object.keys(record(body[type])).length === 0
    ? `(#100) The parameter ${type} is required.`
    : null;
}

function accepted(body: Readonly<Record<string, unknown>>, id: string) {
  const to = text(body["to"]);
  return {
    messaging_product: "whatsapp",
    contacts: [
      to === ""
        ? { input: text(body["recipient"]), user_id: text(body["recipient"]) }
        : { input: to, wa_id: to.replace(/\D/g, "") },
    ],
    messages: [{ id }],
  };
}

/** A picture of one pixel: real enough for a type check, small enough to read in a log. */
const PIXEL = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
  "base64",
);

function media(call: Call, path: string): Answer {
  const download = /^\/whatsapp_business\/attachments\/\d+$/.test(path);
  if (call.method === "GET" && download)
    return {
      status: 200,
      headers: { "content-type": "image/png" },
      body: { kind: "bytes", bytes: PIXEL },
    };
  const id = /^\/(\d+)$/.exec(path)?.[1];
  if (call.method !== "GET" || id === undefined) return unsupported(path);
  return json(200, {
    messaging_product: "whatsapp",
    url: `${call.baseUrl}/whatsapp_business/attachments/${id}`,
    mime_type: "image/png",
    sha256: createHash("sha256").update(PIXEL).digest("hex"),
    file_size: String(PIXEL.length),
    id,
  });
}

function unsupported(path: string): Answer {
  return json(400, {
    error: {
      message: `Unsupported request. Object with ID '${path.split("/")[1] ?? ""}' does not exist, cannot be loaded due to missing permissions, or does not support this operation`,
      type: "GraphMethodException",
      code: 100,
      error_subcode: 33,
      fbtrace_id: seedOf("whatsapp", path).id("trace", 23),
    },
  });
}

function refuse(status: number, retryAfterSeconds: number | undefined): Answer {
  const headers = retryAfter(status, retryAfterSeconds);
  if (status === 401)
    return fail(401, 190, "Invalid OAuth access token - Cannot parse access token");
  if (status === 429) return fail(429, 130429, "(#130429) Rate limit hit", headers);
  if (status >= 500) return fail(status, 131000, "(#131000) Something went wrong", headers);
  return fail(status, 100, "(#100) Invalid parameter", headers);
}

function fail(
  status: number,
  code: number,
  message: string,
  headers: Readonly<Record<string, string>> = {},
): Answer {
  const trace = seedOf("whatsapp", message).id("trace", 23);
  return json(
    status,
    { error: { message, type: "OAuthException", code, fbtrace_id: trace } },
    headers,
  );
}
