import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hub256 } from "../../src/sim/deliveries";
import { WHATSAPP_DELIVERIES } from "../../src/sim/fixtures/whatsapp";
import { change, delivery, FAILURE, status, TEXT_MESSAGE } from "../vectors/whatsappDeliveries";
import { type Backend, startBackend, until } from "./backend";
import { deliver, problemOf, refusal, send, type WireAnswer } from "./wire";

interface Stored {
  readonly messageId: string;
  readonly from: string | null;
  readonly kind: string;
  readonly status: string;
  readonly receivedAt: number;
}

let backend: Backend;
beforeAll(async () => {
  backend = await startBackend({
    env: { RATE_LIMIT_WHATSAPP_MAX: "5000", RATE_LIMIT_WHATSAPP_WINDOW_MS: "1000" },
  });
});
afterAll(async () => {
  await backend.close();
});

const post = async (body: unknown): Promise<WireAnswer> =>
  await deliver(backend.siteUrl, body, backend.secrets.WHATSAPP_APP_SECRET);

const replayed = ({ headers }: WireAnswer): boolean => headers["x-idempotent-replay"] === "1";

const texts = (...ids: readonly string[]) =>
  delivery({ messages: ids.map((id) => ({ ...TEXT_MESSAGE, id })) });

/** Everything stored, page by page, as an operator reads it. */
async function stored(limit = 500): Promise<Stored[]> {
  const all: Stored[] = [];
  let cursor: string | null = null;
  do {
    const page: { messages: Stored[]; cursor: string | null } = await backend.operator(
      "integrations/whatsapp:listStoredMessages",
      { limit, ...(cursor === null ? {} : { cursor }) },
    );
    all.push(...page.messages);
    cursor = page.cursor;
  } while (cursor !== null);
  return all;
}

/** Waits for rows with ids of a prefix, and for the inbox to be empty of work. */
async function processed(prefix: string, count: number): Promise<Stored[]> {
  const find = async () => (await stored()).filter(({ messageId }) => messageId.startsWith(prefix));
  await until(find, (found) => found.length >= count);
  await until(
    () => backend.operator<{ webhookInbox: { queued?: number } }>("ops:getReliabilitySnapshot"),
    ({ webhookInbox }) => (webhookInbox.queued ?? 0) === 0,
  );
  return await find();
}

describe("a signed delivery", () => {
  test.each(Object.entries(WHATSAPP_DELIVERIES))("of the form %s is accepted", async (_, body) => {
    const answer = await post(body);
    expect([answer.status, answer.text, answer.headers["content-type"]]).toEqual([
      200,
      "OK",
      "text/plain; charset=utf-8",
    ]);
    expect(replayed(await post(body))).toBe(true);
  });

  test("is stored with its sender, kind and time, and without its text", async () => {
    const rows = await processed("wamid.", 19);
    const byId = new Map(rows.map((row) => [row.messageId, row]));
    expect(byId.get("wamid.TEXT")).toEqual({
      messageId: "wamid.TEXT",
      from: "15551234567",
      kind: "text",
      status: "received",
      receivedAt: expect.any(Number) as number,
    });
    expect(byId.get("wamid.IMAGE")?.kind).toBe("image");
    // Without phone number and wa_id the business-scoped id is all there is.
    expect(byId.get("wamid.USERID")?.from).toBe("US.13491208655302741918");
    expect(byId.get("wamid.SENT")).toMatchObject({ status: "played" });
    expect(byId.get("wamid.BATCHSENT")).toMatchObject({ status: "read" });
    for (const id of ["wamid.BATCH0", "wamid.BATCH1", "wamid.BATCH2"])
      expect(byId.has(id)).toBe(true);
  });

  test("that is empty, or of other fields only, is answered 200 and stores nothing", async () => {
    const before = await stored();
    const bodies = [
      {},
      { entry: [] },
      { object: "whatsapp_business_account", entry: [{ id: "1", changes: [] }] },
      { entry: [{ changes: [{ field: "account_update", value: { event: "x" } }] }] },
      { entry: [{ changes: [{ field: "messages", value: {} }] }] },
      { entry: [], tomorrow: { field: true } },
    ];
    const answers = await Promise.all(bodies.map(post));
    expect(answers.map((answer) => [answer.status, replayed(answer)])).toEqual(
      bodies.map(() => [200, false]),
    );
    expect(await stored()).toEqual(before);
  });
});

describe("a delivery that was had before", () => {
  test("is answered 200 with X-Idempotent-Replay and stored once, however many at once", async () => {
    const body = texts("once.1");
    const answers = await Promise.all(Array.from({ length: 20 }, () => post(body)));
    expect(answers.every((answer) => answer.status === 200)).toBe(true);
    expect(answers.filter((answer) => !replayed(answer))).toHaveLength(1);
    expect(await processed("once.", 1)).toHaveLength(1);
  });

  test("in part is accepted for the rest", async () => {
    await post(texts("part.1", "part.2"));
    const mixed = await post(texts("part.2", "part.3", "part.1"));
    expect([mixed.status, replayed(mixed)]).toEqual([200, false]);
    expect(replayed(await post(texts("part.3")))).toBe(true);
    expect(replayed(await post(texts("part.1", "part.2", "part.3")))).toBe(true);
    expect(await processed("part.", 3)).toHaveLength(3);
  });

  test("under another signature and other bytes is the same message", async () => {
    await post(texts("bytes.1"));
    const answer = await post(JSON.stringify(texts("bytes.1"), null, 2));
    expect([answer.status, replayed(answer)]).toEqual([200, true]);
  });

  test("without ids is told by its content", async () => {
    const { from, type } = TEXT_MESSAGE;
    const body = delivery({ messages: [{ from, type, text: { body: "no id" } }] });
    expect(replayed(await post(body))).toBe(false);
    expect(replayed(await post(body))).toBe(true);
    expect(await processed("sha256:", 1)).toHaveLength(1);
  });
});

test("many entries, changes and messages in one delivery are all stored, once", async () => {
  const ids = Array.from({ length: 120 }, (_, i) => `many.${i}`);
  const entry = Array.from({ length: 4 }, (_, e) => ({
    id: String(e),
    changes: Array.from({ length: 3 }, (__, c) =>
      change({
        messages: ids.slice(e * 30 + c * 10, e * 30 + c * 10 + 10).map((id) => ({
          ...TEXT_MESSAGE,
          id,
        })),
      }),
    ),
  }));
  const body = { object: "whatsapp_business_account", entry };
  const answers = await Promise.all([post(body), post(body)]);
  expect(answers.map((answer) => answer.status)).toEqual([200, 200]);
  const found = (await processed("many.", 120)).map(({ messageId }) => messageId);
  expect(found.sort()).toEqual(ids.sort());
});

test("status reports join a message in any order, the failure staying where it was delivered", async () => {
  const words = ["sent", "failed", "delivered", "read"];
  const orders = permutations(words);
  await Promise.all(
    orders.map(async (order, i) => {
      const statuses = order.map((word) =>
        status(word, 1_790_000_000 + words.indexOf(word), {
          id: `joined.${i}`,
          ...(word === "failed" ? FAILURE : {}),
        }),
      );
      // Some come one by one, the others in one delivery.
      if (i % 4 === 0) for (const one of statuses) await post(delivery({ statuses: [one] }));
      else await post(delivery({ statuses }));
    }),
  );
  const rows = await processed("joined.", orders.length);
  expect(rows.map((row) => row.status)).toEqual(orders.map(() => "read"));
  // Read without delivered, and delivered after failed.
  await post(delivery({ statuses: [status("read", 1, { id: "alone.read" })] }));
  for (const word of ["failed", "delivered"])
    await post(delivery({ statuses: [status(word, 1, { id: "alone.delivered" })] }));
  const alone = await processed("alone.", 2);
  expect(alone.map((row) => [row.messageId, row.status]).sort()).toEqual([
    ["alone.delivered", "delivered"],
    ["alone.read", "read"],
  ]);
});

describe("what Meta did not sign", () => {
  const body = JSON.stringify(texts("forged.1"));
  const sound = (text = body) => hub256("e2e-app-secret", text);
  const flipped = (signature: string) =>
    signature.slice(0, -1) + (signature.endsWith("0") ? "1" : "0");
  const cases: Record<string, { signature?: string | readonly string[]; bytes?: string }> = {
    "no signature": {},
    "empty signature": { signature: "" },
    "another secret": { signature: hub256("other", body) },
    "an empty secret": { signature: hub256("", body) },
    "a flipped digit": { signature: flipped(sound()) },
    "two equal headers": { signature: [sound(), sound()] },
    "two headers, the first wrong": { signature: [flipped(sound()), sound()] },
    "two headers, the second wrong": { signature: [sound(), flipped(sound())] },
    "the older scheme": { signature: sound().replace("sha256", "sha1") },
    "upper-case hex": { signature: sound().toUpperCase().replace("SHA256", "sha256") },
    "upper-case prefix": { signature: sound().replace("sha256", "SHA256") },
    "truncated hex": { signature: sound().slice(0, -1) },
    "half of the hex": { signature: sound().slice(0, 39) },
    "hex and more": { signature: `${sound()}00` },
    "another body": { signature: sound(), bytes: body.replace("forged.1", "forged.2") },
    "the body re-encoded": { signature: sound(), bytes: JSON.stringify(JSON.parse(body), null, 1) },
    "the body with a line break": { signature: sound(), bytes: `${body}\n` },
    "no body": { signature: sound(), bytes: "" },
  };

  test.each(Object.entries(cases))("is refused: %s", async (_, { signature, bytes = body }) => {
    const answer = await send(`${backend.siteUrl}/api/whatsapp/webhook`, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        ...(signature === undefined ? {} : { "x-hub-signature-256": signature }),
      },
      body: bytes,
    });
    expect(refusal(answer)).toEqual([403, "forbidden"]);
    // Which part was wrong is for nobody to know.
    expect(problemOf(answer).detail).toBe("The webhook signature is missing or wrong");
  });

  test("leaves nothing behind", async () => {
    await post(texts("after.forged"));
    await processed("after.", 1);
    expect((await stored()).filter(({ messageId }) => messageId.startsWith("forged"))).toEqual([]);
  });

  test("is told apart from a signed body that is no delivery", async () => {
    const answers = await Promise.all(["{", '"text"', "[]", '{"entry":1}'].map(post));
    expect(answers.map(refusal)).toEqual([
      [400, "invalid_json"],
      [400, "invalid_request"],
      [400, "invalid_request"],
      [400, "invalid_request"],
    ]);
    for (const answer of answers.slice(1))
      expect(problemOf(answer).issues?.length).toBeGreaterThan(0);
  });
});

describe("the handshake", () => {
  const ask = async (query: string) =>
    await send(`${backend.siteUrl}/api/whatsapp/webhook${query}`);
  const token = "hub.verify_token=e2e-verify-token";

  test("echoes the challenge as text, and as nothing that a browser would run", async () => {
    const answer = await ask(`?hub.mode=subscribe&${token}&hub.challenge=%3Cscript%3E1`);
    expect([answer.status, answer.text]).toEqual([200, "<script>1"]);
    expect(answer.headers["content-type"]).toBe("text/plain; charset=utf-8");
    expect(answer.headers["x-content-type-options"]).toBe("nosniff");
  });

  test.each([
    ["", 403, "forbidden"],
    ["?hub.mode=subscribe&hub.verify_token=wrong&hub.challenge=1", 403, "forbidden"],
    ["?hub.mode=subscribe&hub.verify_token=&hub.challenge=1", 403, "forbidden"],
    [`?hub.mode=unsubscribe&${token}&hub.challenge=1`, 403, "forbidden"],
    [`?${token}&hub.challenge=1`, 403, "forbidden"],
    [`?hub.mode=subscribe&${token}`, 400, "invalid_request"],
    [`?hub.mode=subscribe&${token}&hub.challenge=`, 400, "invalid_request"],
    [`?hub.mode=subscribe&${token}&${token}&hub.challenge=1`, 400, "invalid_request"],
  ])("refuses %s", async (query, code, name) => {
    expect(refusal(await ask(query))).toEqual([code, name]);
  });
});

test("secrets that are set to nothing close both doors, and the name is nobody's business", async () => {
  await backend.setEnv({ WHATSAPP_APP_SECRET: "", WHATSAPP_VERIFY_TOKEN: "" });
  try {
    const body = JSON.stringify(texts("empty.1"));
    const answers = await Promise.all([
      deliver(backend.siteUrl, body, "e2e-app-secret"),
      send(`${backend.siteUrl}/api/whatsapp/webhook`, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          // What an HMAC without a key comes to.
          "x-hub-signature-256": hub256("", body),
        },
        body,
      }),
      send(`${backend.siteUrl}/api/whatsapp/webhook`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body,
      }),
      send(
        `${backend.siteUrl}/api/whatsapp/webhook?hub.mode=subscribe&hub.verify_token=&hub.challenge=1`,
      ),
      send(`${backend.siteUrl}/api/whatsapp/webhook?hub.mode=subscribe&hub.challenge=1`),
    ]);
    expect(answers.map(refusal)).toEqual(answers.map(() => [500, "misconfigured"]));
    expect(answers.map(({ text }) => text).join("")).not.toContain("WHATSAPP");
  } finally {
    await backend.setEnv({ WHATSAPP_APP_SECRET: null, WHATSAPP_VERIFY_TOKEN: null });
  }
  expect((await post(texts("empty.2"))).status).toBe(200);
  expect((await processed("empty.", 1)).map(({ messageId }) => messageId)).toEqual(["empty.2"]);
});

describe("the operator's listing", () => {
  const list = (args: Record<string, unknown>) =>
    backend.operator<{ messages: Stored[]; cursor: string | null }>(
      "integrations/whatsapp:listStoredMessages",
      args,
    );

  test("pages through everything once, whatever the page", async () => {
    const whole = await stored(500);
    expect(new Set(whole.map(({ messageId }) => messageId)).size).toBe(whole.length);
    expect(await stored(7)).toEqual(whole);
    expect((await list({})).messages).toHaveLength(100);
    expect((await list({ limit: 3, cursor: null })).messages).toEqual(whole.slice(0, 3));
  });

  test.each([{ limit: 501 }, { limit: 0 }, { limit: 1.5 }, { cursor: "nonsense" }])(
    "refuses %j",
    async (args) => {
      await expect(list(args)).rejects.toMatchObject({ data: { code: "invalid_request" } });
    },
  );

  test("is nobody else's to call", async () => {
    const response = await fetch(`${backend.host.cloudUrl}/api/query`, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        authorization: `Bearer ${await backend.token("alice")}`,
      },
      body: JSON.stringify({
        path: "integrations/whatsapp:listStoredMessages",
        args: [{}],
        format: "json",
      }),
    });
    expect(await response.json()).toMatchObject({ status: "error" });
  });
});

function permutations(words: readonly string[]): string[][] {
  if (words.length <= 1) return [[...words]];
  return words.flatMap((word, i) =>
    permutations([...words.slice(0, i), ...words.slice(i + 1)]).map((rest) => [word, ...rest]),
  );
}
