import type { Faults } from "./faults";
import { parseFault } from "./faults";
import { number, parseJson, record, text } from "./json";
import { json, type Answer, type Call, type Provider } from "./provider";
import type { Providers } from "./providers";
import type { Traffic } from "./traffic";

export interface Controlled {
  readonly providers: Providers;
  readonly faults: Faults;
  readonly traffic: Traffic;
}

type Handler = (controlled: Controlled, call: Call) => Answer;

/** What the control endpoint does, by method and path. */
const ROUTES: Readonly<Record<string, Handler>> = {
  "GET /state": state,
  "POST /fault": setFault,
  "POST /reset": reset,
  "POST /google/push-token": pushToken,
  "POST /google/rotate-keys": rotateKeys,
  "POST /google/mailbox": mailbox,
  "GET /sentry/envelopes": ({ providers }) =>
    json(200, { envelopes: providers.sentry.envelopes() }),
  "GET /whatsapp/messages": ({ providers }) => json(200, { messages: providers.whatsapp.sent() }),
};

/**
 * The control endpoint. A page in a browser can reach loopback too, so anything with an `Origin`
 * or another host name is refused, and a body must say that it is JSON.
 */
export function control(controlled: Controlled, call: Call): Answer {
  if (!isLocal(call))
    return json(403, { error: "the control endpoint is for local commands only" });
  const handler = ROUTES[`${call.method} ${call.path}`];
  if (handler === undefined)
    return json(404, { error: `no such control; known: ${Object.keys(ROUTES).join(", ")}` });
  return handler(controlled, call);
}

function isLocal(call: Call): boolean {
  if (call.headers.origin !== undefined) return false;
  if (call.bytes.length > 0 && !/^application\/json\b/.test(call.headers["content-type"] ?? ""))
    return false;
  return /^(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?$/.test(call.headers.host ?? "");
}

function state({ providers, faults, traffic }: Controlled): Answer {
  return json(200, {
    providers: Object.fromEntries(
      Object.values<Provider>(providers).map(({ id }) => [
        id,
        { requests: traffic.count(id), fault: faults.get(id) },
      ]),
    ),
    recent: traffic.latest(),
  });
}

function setFault({ providers, faults }: Controlled, call: Call): Answer {
  const { provider, ...rest } = record(parseJson(call.bytes));
  const id = text(provider);
  if (!Object.hasOwn(providers, id))
    return json(400, {
      error: `${id || "(none)"} is not a provider; known: ${Object.keys(providers).join(", ")}`,
    });
  const fault = parseFault(rest);
  if (typeof fault === "string") return json(400, { error: fault });
  faults.set(id, fault);
  return json(200, { provider: id, fault: faults.get(id) });
}

function reset({ providers, faults, traffic }: Controlled): Answer {
  faults.clear();
  traffic.clear();
  for (const provider of Object.values<Provider>(providers)) provider.reset?.();
  return json(200, { ok: true });
}

function pushToken({ providers }: Controlled, call: Call): Answer {
  return json(200, {
    token: providers.google.pushToken(record(parseJson(call.bytes)), call.nowMs),
  });
}

function rotateKeys({ providers }: Controlled): Answer {
  providers.google.rotateKeys();
  return json(200, { ok: true });
}

/** Delivers mail, or expires history before an id, in one mailbox. */
function mailbox({ providers }: Controlled, call: Call): Answer {
  const given = record(parseJson(call.bytes));
  const email = text(given["email"]);
  if (!email.includes("@")) return json(400, { error: "email must be an address" });
  const { mailboxes } = providers.gmail;
  const expireBefore = number(given["expireBefore"]);
  if (expireBefore !== undefined) mailboxes.expire(email, expireBefore);
  else
    mailboxes.deliver(email, {
      historyId: number(given["historyId"]),
      count: number(given["count"]),
      from: text(given["from"]) || undefined,
      subject: text(given["subject"]) || undefined,
      body: text(given["body"]) || undefined,
    });
  const { historyId, oldestHistoryId, messages } = mailboxes.of(email);
  return json(200, { email, historyId, oldestHistoryId, messages: messages.length });
}
