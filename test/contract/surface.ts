/** One deployment on the embedded host, and for each route of the table a request that it accepts. */
import { DAY } from "../../src/core/time";
import { type RouteId, routeRow, type RouteRow } from "../../src/http/routes";
import { hub256 } from "../../src/sim/deliveries";
import { type Backend, startBackend } from "../e2e/backend";
import { chat, startOf } from "../e2e/sse";
import { send, type WireAnswer, type WireRequest } from "../e2e/wire";
import { delivery, TEXT_MESSAGE } from "../vectors/whatsappDeliveries";

/** A request to a route: what is not given is what the route accepts. */
export interface Ask extends WireRequest {
  readonly query?: string;
  /** Whose token, where the route wants one; null leaves every credential out. */
  readonly user?: string | null;
}

export interface Surface {
  readonly backend: Backend;
  /** A turn of alice's that has ended. */
  readonly turn: ReturnType<typeof startOf>;
  /** The id of its last event. */
  readonly lastEventId: string;
  /** A message, push or delivery never sent before, to any route. */
  readonly good: (id: RouteId) => Ask;
  /** Sends a good request, or one that differs from it where `more` says so. */
  readonly ask: (id: RouteId, more?: Ask) => Promise<WireAnswer>;
  /** Sets variables until `restore`. */
  readonly set: (variables: Readonly<Record<string, string>>) => Promise<void>;
  /** The clock of the backend, in epoch milliseconds. */
  readonly nowMs: () => number;
  /** What every commit fails with until `restore`. */
  readonly failCommits: (failure: Error) => void;
  /** Takes back what a test set, and makes limits whole by moving the clock on. */
  readonly restore: () => Promise<void>;
}

/** Whose pushes are accepted besides those with the shared token. */
export const GOOGLE = {
  GMAIL_PUSH_AUDIENCE: "https://ballast.example/api/gmail/push",
  GMAIL_PUSH_SERVICE_ACCOUNT: "push@ballast.example",
};

export async function openSurface(): Promise<Surface> {
  let aheadMs = 0;
  let failure: Error | undefined;
  const backend = await startBackend({
    env: GOOGLE,
    injection: {
      nowMs: () => Date.now() + aheadMs,
      // Small, so that the platform's own pauses between attempts are short.
      random: () => Math.random() / 50,
      commitFailure: () => failure,
    },
  });
  const frames = await chat(backend, "[[words:2]] hi");
  const turn = startOf(frames);
  const good = requests(backend, turn);
  const changed = new Set<string>();
  const setEnv = async (variables: Readonly<Record<string, string | null>>): Promise<void> => {
    for (const name of Object.keys(variables)) changed.add(name);
    await backend.setEnv(variables);
  };
  return {
    backend,
    turn,
    lastEventId: String(frames.length),
    good,
    ask: (id, more = {}) => sendTo(backend, routeRow(id), { ...good(id), ...more }),
    nowMs: () => Date.now() + aheadMs,
    set: setEnv,
    failCommits: (error) => {
      failure = error;
    },
    restore: async () => {
      failure = undefined;
      if (changed.size === 0) return;
      const own: Readonly<Record<string, string>> = { ...backend.secrets, ...GOOGLE };
      const before = [...changed].map((name) => [name, own[name] ?? null] as const);
      await backend.setEnv(Object.fromEntries(before));
      changed.clear();
      aheadMs += 2 * DAY;
    },
  };
}

async function sendTo(backend: Backend, row: RouteRow, request: Ask): Promise<WireAnswer> {
  const { headers, method = row.method, query = "", user = "alice", ...rest } = request;
  const proof = user === null ? {} : await credentials(backend, row, rest.body ?? "", user);
  const type = row.body === null ? {} : { "content-type": "application/json" };
  return await send(`${backend.siteUrl}${row.path}${query}`, {
    ...rest,
    method,
    headers: { ...type, ...proof, ...headers },
  });
}

async function credentials(
  { secrets, token }: Backend,
  { auth }: RouteRow,
  body: string | Uint8Array,
  user: string,
): Promise<Record<string, string>> {
  switch (auth.kind) {
    case "user":
      return { authorization: `Bearer ${await token(user)}` };
    case "signature": {
      const text = Buffer.from(body).toString();
      return auth.scheme === "hub-256"
        ? { "x-hub-signature-256": hub256(secrets.WHATSAPP_APP_SECRET, text) }
        : { "x-pubsub-token": secrets.GMAIL_PUBSUB_VERIFY_TOKEN };
    }
    case "none":
    case "token":
      return {};
  }
}

/** A way to say the right thing to each route; a new route needs one. */
function requests(
  { secrets }: Backend,
  { messageId, streamId, threadId }: Surface["turn"],
): Surface["good"] {
  let sent = 0;
  const all: Readonly<Record<RouteId, () => Ask>> = {
    chatPost: () => ({ body: `{"message":{"content":"[[words:2]] hi ${sent}"}}` }),
    chatStream: () => ({ query: `?streamId=${streamId}` }),
    chatAbort: () => ({ body: JSON.stringify({ threadId, messageId }) }),
    health: () => ({}),
    openapi: () => ({}),
    gmailPush: () => ({ body: pushBody(sent) }),
    whatsappVerify: () => ({ query: handshake(secrets.WHATSAPP_VERIFY_TOKEN, "42") }),
    whatsappReceive: () => ({
      body: JSON.stringify(delivery({ messages: [{ ...TEXT_MESSAGE, id: `contract.${sent}` }] })),
    }),
  };
  return (id) => {
    sent += 1;
    return all[id]();
  };
}

function pushBody(historyId: number): string {
  const inner = JSON.stringify({ emailAddress: "contract@example.com", historyId });
  return JSON.stringify({ message: { data: Buffer.from(inner).toString("base64") } });
}

/** The query of Meta's handshake; without a challenge there is nothing to answer. */
export const handshake = (token: string, challenge?: string): string =>
  `?hub.mode=subscribe&hub.verify_token=${encodeURIComponent(token)}` +
  (challenge === undefined ? "" : `&hub.challenge=${challenge}`);
