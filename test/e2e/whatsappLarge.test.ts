/** Deliveries of the size that Meta sends after a campaign, over the wire. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { KIB, MIB } from "../../src/core/bytes";
import { delivery, status, TEXT_MESSAGE } from "../vectors/whatsappDeliveries";
import { type Backend, operatorOf, startBackend, until } from "./backend";
import { CRASH_ENV } from "./crash";
import { scratch, start } from "./process";
import { deliver, refusal, type WireAnswer } from "./wire";

const SETTLE_LOOKS_MAX = 2_400;
/** Fewer deliveries than would be needed if any of them were counted by its parts. */
const LIMIT_MAX = 5;

interface Page {
  readonly messages: readonly { readonly messageId: string; readonly status: string }[];
  readonly cursor: string | null;
}

type Reached = Pick<Backend, "operator">;

async function stored(reached: Reached, prefix: string): Promise<Page["messages"][number][]> {
  const all: Page["messages"][number][] = [];
  let cursor: string | null = null;
  do {
    const page: Page = await reached.operator<Page>("integrations/whatsapp:listStoredMessages", {
      limit: 500,
      ...(cursor === null ? {} : { cursor }),
    });
    all.push(...page.messages.filter(({ messageId }) => messageId.startsWith(prefix)));
    cursor = page.cursor;
  } while (cursor !== null);
  return all;
}

interface Waiting {
  readonly webhookInbox: { readonly queued: number; readonly deadLetter: number };
}

/** Waits until nothing that was accepted waits for its processing. */
async function settled(reached: Reached): Promise<void> {
  const { webhookInbox } = await until(
    () => reached.operator<Waiting>("ops:getReliabilitySnapshot"),
    (seen) => seen.webhookInbox.queued === 0,
    SETTLE_LOOKS_MAX,
  );
  expect(webhookInbox).toMatchObject({ queued: 0, deadLetter: 0 });
}

const idOf = (prefix: string, i: number): string => `${prefix}${String(i).padStart(6, "0")}`;

/** Reports of about 300 bytes each, as Meta writes them. */
const reports = (prefix: string, count: number) =>
  delivery({
    statuses: Array.from({ length: count }, (_, i) =>
      status("delivered", 1_790_000_000, {
        id: idOf(prefix, i),
        conversation: { id: "6ceb9d929c9bdc4f90967a32f8639b42", origin: { type: "utility" } },
      }),
    ),
  });

const replayed = ({ headers }: WireAnswer): boolean => headers["x-idempotent-replay"] === "1";

describe("on a running backend", () => {
  let backend: Backend;
  beforeAll(async () => {
    // Every delivery is one to the limits, whatever it holds.
    backend = await startBackend({
      env: { RATE_LIMIT_WHATSAPP_MAX: String(LIMIT_MAX), RATE_LIMIT_WHATSAPP_WINDOW_MS: "3600000" },
    });
  });
  afterAll(async () => {
    await backend.close();
  });

  const post = async (body: unknown): Promise<WireAnswer> =>
    await deliver(backend.siteUrl, body, backend.secrets.WHATSAPP_APP_SECRET);

  test("a thousand reports are accepted at once, and a replay is told", async () => {
    const body = reports("thousand.", 1_000);
    expect(JSON.stringify(body).length).toBeGreaterThan(256 * KIB);
    const first = await post(body);
    expect([first.status, first.text, replayed(first)]).toEqual([200, "OK", false]);
    const again = await post(body);
    expect([again.status, replayed(again)]).toEqual([200, true]);
    await settled(backend);
    const rows = await stored(backend, "thousand.");
    expect(rows.map(({ messageId }) => messageId).sort()).toEqual(
      Array.from({ length: 1_000 }, (_, i) => idOf("thousand.", i)),
    );
    expect(rows.every((row) => row.status === "delivered")).toBe(true);
    expect(replayed(await post(body))).toBe(true);
  });

  test("3 MiB to the byte are accepted, one byte more is too large", async () => {
    const messages = Array.from({ length: 120 }, (_, i) => ({
      ...TEXT_MESSAGE,
      id: idOf("texts.", i),
      text: { body: "x".repeat(24_000) },
    }));
    const frame = JSON.stringify({ ...delivery({ messages }), pad: "" });
    const of = (bytes: number) =>
      JSON.stringify({ ...delivery({ messages }), pad: "x".repeat(bytes - frame.length) });
    expect(refusal(await post(of(3 * MIB + 1)))).toEqual([413, "payload_too_large"]);
    const answer = await post(of(3 * MIB));
    expect([answer.status, replayed(answer)]).toEqual([200, false]);
    await settled(backend);
    expect(await stored(backend, "texts.")).toHaveLength(120);
  });

  test("two at once of the same are stored once, and so is what they share with a small one", async () => {
    const body = reports("twice.", 300);
    const part = delivery({
      statuses: [status("delivered", 1_790_000_000, { id: idOf("twice.", 7) })],
    });
    const answers = await Promise.all([post(body), post(body), post(part)]);
    expect(answers.map((answer) => answer.status)).toEqual([200, 200, 200]);
    expect(answers.slice(0, 2).filter(replayed)).toHaveLength(1);
    await settled(backend);
    expect(await stored(backend, "twice.")).toHaveLength(300);
  });

  test("beyond the limit nothing of it is stored", async () => {
    // What is left of the limit is used up by small deliveries, however many that takes.
    const small = async (i: number) => await post(reports(`small.${i}.`, 1));
    for (let i = 0; i < LIMIT_MAX; i++) await small(i);
    expect(refusal(await post(reports("refused.", 500)))).toEqual([429, "rate_limited"]);
    await settled(backend);
    expect(await stored(backend, "refused.")).toEqual([]);
  });
});

test("what was answered with 200 is stored as a whole, though the server is killed at once", async () => {
  const { dir, remove } = scratch("large");
  const killed = await start(dir, CRASH_ENV);
  const body = reports("killed.", 300);
  const secret = CRASH_ENV.WHATSAPP_APP_SECRET;
  expect((await deliver(killed.deployment.siteUrl, body, secret)).status).toBe(200);
  expect((await killed.kill("SIGKILL")).code).toBe("SIGKILL");
  const server = await start(dir, CRASH_ENV);
  try {
    expect(replayed(await deliver(server.deployment.siteUrl, body, secret))).toBe(true);
    const reached = { operator: operatorOf(server.deployment) };
    await settled(reached);
    const ids = (await stored(reached, "killed.")).map(({ messageId }) => messageId);
    expect(ids.sort()).toEqual(Array.from({ length: 300 }, (_, i) => idOf("killed.", i)));
  } finally {
    await server.kill("SIGTERM");
  }
  remove();
});
