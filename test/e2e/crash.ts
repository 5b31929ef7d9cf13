import { Agent, request } from "node:http";
import { expect } from "vitest";
import { hub256 } from "../../src/sim/deliveries";
import { delivery, TEXT_MESSAGE } from "../vectors/whatsappDeliveries";
import { operatorOf, until } from "./backend";
import { type Server, start } from "./process";
import { deliver, type WireAnswer } from "./wire";

const SECRET = "crash-app-secret";
export const CRASH_ENV = {
  WHATSAPP_APP_SECRET: SECRET,
  RATE_LIMIT_WHATSAPP_MAX: "5000",
  RATE_LIMIT_WHATSAPP_WINDOW_MS: "1000",
};
const PER_SECOND = 200;
const SETTLE_LOOKS_MAX = 1_200;

/** What was sent in one round, by message id. */
interface Sent {
  readonly acknowledged: Set<string>;
  readonly unanswered: Set<string>;
}

const bodyOf = (id: string): string =>
  JSON.stringify(delivery({ messages: [{ ...TEXT_MESSAGE, id }] }));

/** Status of one signed delivery over a kept connection; null when the connection broke. */
async function post(siteUrl: string, body: string, agent: Agent): Promise<number | null> {
  return await new Promise((resolve) => {
    const outgoing = request(
      `${siteUrl}/api/whatsapp/webhook`,
      {
        method: "POST",
        agent,
        headers: {
          "content-type": "application/json",
          "content-length": Buffer.byteLength(body),
          "x-hub-signature-256": hub256(SECRET, body),
        },
      },
      (response) => {
        response.resume();
        response.on("end", () => {
          resolve(response.statusCode ?? null);
        });
        response.on("error", () => {
          resolve(null);
        });
      },
    );
    outgoing.on("error", () => {
      resolve(null);
    });
    outgoing.end(body);
  });
}

/**
 * Sends two hundred deliveries a second, however fast they are answered, and kills the server in
 * the middle of it, once `acknowledgedMin` were answered with 200.
 */
async function killUnderLoad(
  server: Server,
  prefix: string,
  acknowledgedMin: number,
): Promise<Sent> {
  const agent = new Agent({ keepAlive: true, maxSockets: 256 });
  const sent: Sent = { acknowledged: new Set(), unanswered: new Set() };
  const { siteUrl } = server.deployment;
  const enough = (): boolean => sent.acknowledged.size >= acknowledgedMin;
  let killed = false;
  const pending: Promise<void>[] = [];
  for (let i = 0; !enough(); i++) {
    // Every tenth comes twice at once, as redeliveries do.
    for (const id of i % 10 === 0 ? [`${prefix}.${i}`, `${prefix}.${i}`] : [`${prefix}.${i}`])
      pending.push(
        post(siteUrl, bodyOf(id), agent).then((status) => {
          if (status === 200) sent.acknowledged.add(id);
          else sent.unanswered.add(id);
          if (!enough() || killed) return;
          killed = true;
          process.kill(server.pid, "SIGKILL");
        }),
      );
    await new Promise((resolve) => setTimeout(resolve, 1_000 / PER_SECOND));
    if (pending.length > 20_000) throw new Error("the server acknowledges nothing");
  }
  await Promise.all(pending);
  agent.destroy();
  expect((await server.exit).code).toBe("SIGKILL");
  return sent;
}

interface Page {
  readonly messages: readonly { readonly messageId: string; readonly status: string }[];
  readonly cursor: string | null;
}

async function storedIds({ deployment }: Server): Promise<string[]> {
  const operator = operatorOf(deployment);
  const ids: string[] = [];
  let cursor: string | null = null;
  do {
    const page: Page = await operator<Page>("integrations/whatsapp:listStoredMessages", {
      limit: 500,
      ...(cursor === null ? {} : { cursor }),
    });
    ids.push(...page.messages.map(({ messageId }) => messageId));
    cursor = page.cursor;
  } while (cursor !== null);
  return ids;
}

/** Waits until no stored delivery waits for its processing. */
async function settled({ deployment }: Server): Promise<void> {
  const operator = operatorOf(deployment);
  const inbox = await until(
    async () =>
      (
        await operator<{ webhookInbox: { queued: number; deadLetter: number } }>(
          "ops:getReliabilitySnapshot",
        )
      ).webhookInbox,
    ({ queued }) => queued === 0,
    SETTLE_LOOKS_MAX,
  );
  expect(inbox).toMatchObject({ queued: 0, deadLetter: 0 });
}

const REDELIVERIES_AT_ONCE = 16;

/** Delivers each of these until it is answered with 200, as Meta does for days. */
async function redeliver({ deployment }: Server, ids: readonly string[]): Promise<WireAnswer[]> {
  const answers: WireAnswer[] = [];
  const left = [...ids];
  const worker = async (): Promise<void> => {
    for (let id = left.pop(); id !== undefined; id = left.pop()) {
      const body = bodyOf(id);
      const send = async () => await deliver(deployment.siteUrl, body, SECRET);
      answers.push(await until(send, ({ status }) => status === 200));
    }
  };
  await Promise.all(Array.from({ length: REDELIVERIES_AT_ONCE }, worker));
  return answers;
}

/**
 * One round: load, `kill -9`, restart. Every delivery that was answered with 200 is stored and
 * processed once; one that was not may be either, and is stored once when it comes again.
 */
export async function crashRound(
  dataDir: string,
  round: { readonly prefix: string; readonly acknowledgedMin: number },
): Promise<void> {
  const { prefix } = round;
  const killed = await start(dataDir, CRASH_ENV);
  const { acknowledged, unanswered } = await killUnderLoad(killed, prefix, round.acknowledgedMin);
  const server = await start(dataDir, CRASH_ENV);
  try {
    await settled(server);
    const stored = (await storedIds(server)).filter((id) => id.startsWith(`${prefix}.`));
    expect(new Set(stored).size).toBe(stored.length);
    expect([...acknowledged].filter((id) => !stored.includes(id))).toEqual([]);
    // Meta delivers again what it got no answer to, and sometimes what it did.
    const known = await redeliver(server, [...acknowledged].slice(-20));
    expect(known.map(({ headers }) => headers["x-idempotent-replay"])).toEqual(
      known.map(() => "1"),
    );
    await redeliver(server, [...unanswered]);
    await settled(server);
    const all = (await storedIds(server)).filter((id) => id.startsWith(`${prefix}.`));
    expect(all.sort()).toEqual([...new Set([...acknowledged, ...unanswered])].sort());
  } finally {
    await server.kill("SIGTERM");
  }
}
