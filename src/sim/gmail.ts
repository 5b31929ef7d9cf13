// Wire format: developers.google.com/workspace/gmail/api, reference of users, users.history and users.messages,
// guides "Push notifications" and "Resolve errors".
import { mailboxOf } from "./google";
import { parseJson, record, text } from "./json";
import { Mailboxes, type Mailbox, type MailMessage } from "./mailbox";
import {
  bearer,
  json,
  retryAfter,
  type Answer,
  type Call,
  type Provider,
  type ProviderSpec,
} from "./provider";

const WATCH_MS = 7 * 24 * 60 * 60 * 1000;
const PAGE_DEFAULT = 100;
const PAGE_MAX = 500;

export const gmailSpec: ProviderSpec = {
  id: "gmail",
  title: "Gmail API",
  keyNames: ["GMAIL_OAUTH_CLIENT_ID", "GMAIL_OAUTH_CLIENT_SECRET"],
  env: (baseUrl) => ({
    GMAIL_BASE_URL: `${baseUrl}/gmail/v1`,
    GMAIL_PUBSUB_TOPIC: "projects/ballast-sim/topics/gmail",
  }),
};

/** The Gmail API of any mailbox that a token opens. */
export interface Gmail extends Provider {
  readonly mailboxes: Mailboxes;
}

/** Profile, watch, history and messages. */
export function createGmail(): Gmail {
  const mailboxes = new Mailboxes();
  return {
    ...gmailSpec,
    mailboxes,
    handle: (call) => handle(call, mailboxes),
    refuse,
    reset: () => {
      mailboxes.clear();
    },
  };
}

function handle(call: Call, mailboxes: Mailboxes): Answer {
  const [, user = "", rest = ""] = /^(?:\/gmail\/v1)?\/users\/([^/]+)\/(.+)$/.exec(call.path) ?? [];
  if (user === "")
    return fail(404, { message: "Not Found", reason: "notFound", status: "NOT_FOUND" });
  const email = mailboxOf(bearer(call) ?? "");
  if (email === null) return refuse(401, undefined);
  const named = decodeURIComponent(user).toLowerCase();
  if (named !== "me" && named !== email.toLowerCase())
    return fail(403, {
      message: `Delegation denied for ${email}`,
      reason: "forbidden",
      status: "PERMISSION_DENIED",
    });
  const mailbox = mailboxes.of(email);
  switch (`${call.method} ${rest}`) {
    case "GET profile":
      return json(200, {
        emailAddress: email,
        messagesTotal: mailbox.messages.length,
        threadsTotal: mailbox.messages.length,
        historyId: String(mailbox.historyId),
      });
    case "POST watch":
      return watch(call, mailbox);
    case "POST stop":
      return { status: 204, body: { kind: "text", text: "" } };
    case "GET history":
      return history(call, mailbox);
    case "GET messages":
      return messages(call, mailbox);
    default:
      return message(call, mailbox, rest);
  }
}

function watch(call: Call, mailbox: Mailbox): Answer {
  const topic = text(record(parseJson(call.bytes))["topicName"]);
  if (!/^projects\/[^/]+\/topics\/[^/]+$/.test(topic))
    return invalid(`Invalid topicName does not match projects/*/topics/*`);
  return json(200, {
    historyId: String(mailbox.historyId),
    expiration: String(call.nowMs + WATCH_MS),
  });
}

function history(call: Call, mailbox: Mailbox): Answer {
  const start = call.query.get("startHistoryId") ?? "";
  if (!/^\d{1,19}$/.test(start)) return invalid("Invalid value at 'start_history_id'");
  if (Number(start) < mailbox.oldestHistoryId) return notFound();
  const types = call.query.getAll("historyTypes");
  const wanted = types.length === 0 || types.includes("messageAdded");
  const records = wanted
    ? mailbox.messages.filter((one) => one.historyId > Number(start)).map(historyRecord)
    : [];
  const page = paged(call, records);
  if (page === null) return invalid("Invalid pageToken");
  return json(200, {
    // Gmail leaves the list out when nothing has changed.
    ...(page.items.length === 0 ? {} : { history: page.items }),
    ...page.next,
    historyId: String(mailbox.historyId),
  });
}

function historyRecord(one: MailMessage) {
  const { id, threadId, labelIds } = one;
  return {
    id: String(one.historyId),
    messages: [{ id, threadId }],
    messagesAdded: [{ message: { id, threadId, labelIds } }],
  };
}

function messages(call: Call, mailbox: Mailbox): Answer {
  const newest = mailbox.messages.toReversed().map(({ id, threadId }) => ({ id, threadId }));
  const page = paged(call, newest);
  if (page === null) return invalid("Invalid pageToken");
  return json(200, {
    ...(page.items.length === 0 ? {} : { messages: page.items }),
    ...page.next,
    resultSizeEstimate: newest.length,
  });
}

function message(call: Call, mailbox: Mailbox, rest: string): Answer {
  const id = /^messages\/([^/]+)$/.exec(rest)?.[1];
  const one = mailbox.messages.find((candidate) => candidate.id === id);
  if (call.method !== "GET" || one === undefined) return notFound();
  const format = call.query.get("format") ?? "full";
  const head = {
    id: one.id,
    threadId: one.threadId,
    labelIds: one.labelIds,
    snippet: one.body.slice(0, 100),
    sizeEstimate: one.body.length + 400,
    historyId: String(one.historyId),
    internalDate: String(one.sentAtMs),
  };
  if (format === "minimal") return json(200, head);
  if (format === "raw")
    return json(200, { ...head, raw: Buffer.from(rawOf(one)).toString("base64url") });
  const payload = {
    partId: "",
    mimeType: "text/plain",
    filename: "",
    headers: headersOf(one),
    body:
      format === "metadata"
        ? { size: one.body.length }
        : { size: one.body.length, data: Buffer.from(one.body).toString("base64url") },
  };
  return json(200, { ...head, payload });
}

function headersOf(one: MailMessage) {
  return [
    { name: "From", value: one.from },
    { name: "To", value: one.to },
    { name: "Subject", value: one.subject },
    { name: "Date", value: new Date(one.sentAtMs).toUTCString() },
    { name: "Message-ID", value: `<${one.id}@mail.example.com>` },
    { name: "Content-Type", value: 'text/plain; charset="UTF-8"' },
  ];
}

function rawOf(one: MailMessage): string {
  const head = headersOf(one).map(({ name, value }) => `${name}: ${value}`);
  return `${head.join("\r\n")}\r\n\r\n${one.body}`;
}

interface Page<T> {
  readonly items: readonly T[];
  readonly next: { readonly nextPageToken?: string };
}

/** One page of a list; null when the page token is none of ours. */
function paged<T>(call: Call, all: readonly T[]): Page<T> | null {
  const wanted = Number(call.query.get("maxResults") ?? PAGE_DEFAULT);
  const size = Math.max(1, Math.min(Number.isInteger(wanted) ? wanted : PAGE_DEFAULT, PAGE_MAX));
  const token = call.query.get("pageToken");
  const from = token === null ? 0 : Number(Buffer.from(token, "base64url").toString());
  if (!Number.isInteger(from) || from < 0 || (token !== null && from === 0)) return null;
  const end = from + size;
  return {
    items: all.slice(from, end),
    next: end < all.length ? { nextPageToken: Buffer.from(String(end)).toString("base64url") } : {},
  };
}

const invalid = (detail: string): Answer =>
  fail(400, { message: detail, reason: "invalidArgument", status: "INVALID_ARGUMENT" });

const notFound = (): Answer =>
  fail(404, {
    message: "Requested entity was not found.",
    reason: "notFound",
    status: "NOT_FOUND",
  });

const REFUSALS: Readonly<Record<number, GoogleError>> = {
  401: {
    message:
      "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential.",
    reason: "authError",
    status: "UNAUTHENTICATED",
  },
  403: {
    message: "Request had insufficient authentication scopes.",
    reason: "insufficientPermissions",
    status: "PERMISSION_DENIED",
  },
  404: { message: "Requested entity was not found.", reason: "notFound", status: "NOT_FOUND" },
  429: {
    message: "User-rate limit exceeded.",
    reason: "rateLimitExceeded",
    status: "RESOURCE_EXHAUSTED",
  },
  503: {
    message: "The service is currently unavailable.",
    reason: "backendError",
    status: "UNAVAILABLE",
  },
};

function refuse(status: number, retryAfterSeconds: number | undefined): Answer {
  const fallback = { message: "Backend Error", reason: "backendError", status: "INTERNAL" };
  return fail(status, REFUSALS[status] ?? fallback, retryAfter(status, retryAfterSeconds));
}

interface GoogleError {
  readonly message: string;
  readonly reason: string;
  readonly status: string;
}

function fail(
  code: number,
  { message: detail, reason, status }: GoogleError,
  headers: Readonly<Record<string, string>> = {},
): Answer {
  const errors = [{ message: detail, domain: "global", reason }];
  return json(code, { error: { code, message: detail, errors, status } }, headers);
}
