import { getConvexSize } from "convex/values";
import { beforeEach, expect, test, vi } from "vitest";
import { HUB_SIGNATURE_HEADER, signHub256 } from "../../src/channels/signature/hub256";
import { KIB, MIB, utf8Bytes } from "../../src/core/bytes";
import { routeRow } from "../../src/http/routes";
import { backend, type Backend, pending, settleAll, useStillClock } from "../edge/backend";
import { delivery, FAILURE, status, TEXT_MESSAGE } from "../vectors/whatsappDeliveries";

useStillClock();

const SECRET = "app-secret-of-our-own";
/** The largest row that a delivery may leave in the inbox. */
const ROW_BYTES_MAX = 512 * KIB;

beforeEach(() => {
  vi.stubEnv("WHATSAPP_APP_SECRET", SECRET);
  vi.stubEnv("RATE_LIMIT_WHATSAPP_MAX", "100");
  vi.spyOn(console, "log").mockImplementation(() => undefined);
});

async function post(t: Backend, body: unknown) {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const signature = await signHub256(SECRET, new TextEncoder().encode(text));
  const response = await t.fetch("/api/whatsapp/webhook", {
    method: "POST",
    headers: { "content-type": "application/json", [HUB_SIGNATURE_HEADER]: signature },
    body: text,
  });
  return {
    code: response.status,
    error: response.headers.get("x-error-code"),
    replayed: response.headers.get("x-idempotent-replay"),
  };
}

const rowsOf = (t: Backend) =>
  t.run(async (ctx) => ({
    inbox: await ctx.db.query("webhookInbox").collect(),
    messages: await ctx.db.query("whatsappMessages").collect(),
    claims: await ctx.db.query("idempotencyKeys").collect(),
  }));

/** The events in the parts of a large delivery. */
const heldIn = (inbox: Awaited<ReturnType<typeof rowsOf>>["inbox"]) =>
  inbox.flatMap(({ event }) => (event?.type === "whatsapp_part" ? event.events : []));

/** Status reports as Meta sends them, about 300 bytes each. */
const reports = (count: number, prefix = "wamid.HBgLMTg3NjU1NTAxMjMVAgARGBI") =>
  delivery({
    statuses: Array.from({ length: count }, (_, i) =>
      status("delivered", 1_790_000_000, {
        id: `${prefix}${String(i).padStart(6, "0")}`,
        conversation: { id: "6ceb9d929c9bdc4f90967a32f8639b42", origin: { type: "utility" } },
      }),
    ),
  });

/** A delivery of exactly so many bytes, the rest of it texts of one message after another. */
function deliveryOf(bytes: number): string {
  const messages = Array.from({ length: 1_000 }, (_, i) => ({ ...TEXT_MESSAGE, id: `wamid.${i}` }));
  const bare = utf8Bytes(JSON.stringify(delivery({ messages })));
  const each = Math.floor((bytes - bare) / messages.length);
  const padded = messages.map((message, i) => {
    const pad = each + (i === 0 ? (bytes - bare) % messages.length : 0);
    return { ...message, text: { body: message.text.body + "x".repeat(pad) } };
  });
  return JSON.stringify(delivery({ messages: padded }));
}

/** The stored row of the one message that was delivered. */
async function rowOf(message: Readonly<Record<string, unknown>>) {
  const t = backend();
  const sent = { from: "18765550123", id: "wamid.NEW", timestamp: "1790000000", ...message };
  expect(await post(t, delivery({ messages: [sent] }))).toMatchObject({ code: 200 });
  await settleAll(t);
  const [row, ...more] = (await rowsOf(t)).messages;
  if (row === undefined || more.length > 0) throw new Error("expected one row");
  const data: unknown = row.dataJson === undefined ? null : JSON.parse(row.dataJson);
  return { ...row, data };
}

// Source: NousResearch/hermes-agent#54944
test("hermes-agent#54944: a thousand status reports in one delivery are accepted, all of them", async () => {
  const t = backend();
  const body = reports(1_000);
  expect(JSON.stringify(body).length).toBeGreaterThan(256 * KIB);
  expect(await post(t, body)).toEqual({ code: 200, error: null, replayed: null });
  const { inbox } = await rowsOf(t);
  const ids = heldIn(inbox).map((event) => event.messageId);
  expect(new Set(ids).size).toBe(1_000);
  // Each part is a job, and one mutation stored them all. The first few are scheduled, and others
  // in their turn: a small delivery that comes next does not wait for a thousand reports.
  expect(inbox.length).toBeGreaterThanOrEqual(10);
  expect(await pending(t)).toHaveLength(2);
  expect(await post(t, body)).toEqual({ code: 200, error: null, replayed: "1" });
  // What becomes of them is seen on the host, which is faster than this mock.
});

// Source: Meta (webhooks overview: 3 MB)
test("Meta: a delivery of 3 MiB is stored before it is answered, in rows that hold it, and a byte more is not", async () => {
  expect(routeRow("whatsappReceive").bodyBytesMax).toBe(3 * MIB);
  const t = backend();
  expect(await post(t, deliveryOf(3 * MIB))).toMatchObject({ code: 200 });
  const { inbox } = await rowsOf(t);
  expect(heldIn(inbox)).toHaveLength(1_000);
  for (const row of inbox) expect(getConvexSize(row)).toBeLessThan(ROW_BYTES_MAX);
  const more = backend();
  expect(await post(more, deliveryOf(3 * MIB + 1))).toMatchObject({
    code: 413,
    error: "payload_too_large",
  });
  expect((await rowsOf(more)).inbox).toEqual([]);
});

// Source: Meta (webhooks overview: 3 MB)
test("Meta: of a delivery that is refused nothing is stored, however large it is", async () => {
  vi.stubEnv("RATE_LIMIT_WHATSAPP_MAX", "1");
  vi.stubEnv("RATE_LIMIT_WHATSAPP_WINDOW_MS", "60000");
  vi.stubEnv("RATE_LIMIT_GLOBAL_MAX", "1");
  const t = backend();
  // Its size does not matter to the limit: it is one delivery.
  expect(await post(t, reports(500, "one."))).toMatchObject({ code: 200 });
  const before = await rowsOf(t);
  expect(await post(t, reports(500, "two."))).toMatchObject({ code: 429, error: "rate_limited" });
  expect(await rowsOf(t)).toEqual(before);
});

// Source: Meta (webhooks overview: 3 MB)
test("Meta: what a large delivery and small ones have in common is stored once, whichever came first", async () => {
  const t = backend();
  const messages = Array.from({ length: 150 }, (_, i) => ({ ...TEXT_MESSAGE, id: `wamid.${i}` }));
  await post(t, delivery({ messages: messages.slice(0, 40) }));
  expect(await post(t, delivery({ messages }))).toMatchObject({ code: 200, replayed: null });
  // It comes again in another order before it is processed, and in part.
  expect(await post(t, delivery({ messages: [...messages].reverse() }))).toMatchObject({
    code: 200,
    replayed: "1",
  });
  await post(t, delivery({ messages: messages.slice(130) }));
  await settleAll(t);
  const { inbox, messages: stored } = await rowsOf(t);
  expect(stored.map(({ messageId }) => messageId).sort()).toEqual(
    messages.map(({ id }) => id).sort(),
  );
  expect(inbox.filter(({ state }) => state !== "done")).toEqual([]);
  expect(await pending(t)).toEqual([]);
});

// Source: chatwoot/chatwoot#15770
test("chatwoot#15770: an edit is stored with its new text, beside the original", async () => {
  const t = backend();
  const edit = {
    ...{ from: "18765550123", id: "wamid.EDIT", timestamp: "1790000060", type: "edit" },
    edit: {
      original_message_id: TEXT_MESSAGE.id,
      message: { context: { id: "wamid.OTHER" }, type: "text", text: { body: "And my bicycle?" } },
    },
  };
  await post(t, delivery({ messages: [TEXT_MESSAGE, edit] }));
  await settleAll(t);
  expect((await rowsOf(t)).messages).toMatchObject([
    { messageId: TEXT_MESSAGE.id, kind: "text", text: TEXT_MESSAGE.text.body, contextId: null },
    {
      messageId: "wamid.EDIT",
      kind: "edit",
      text: "And my bicycle?",
      contextId: TEXT_MESSAGE.id,
    },
  ]);
});

// Source: Meta (edit messages webhook reference)
test("Meta: an edit of a picture has its new caption, and names the picture", async () => {
  const image = { caption: "my parcel", mime_type: "image/jpeg", id: "400000000000009" };
  const edit = { original_message_id: "wamid.IMAGE01", message: { type: "image", image } };
  expect(await rowOf({ type: "edit", edit })).toMatchObject({
    text: "my parcel",
    mediaId: "400000000000009",
    contextId: "wamid.IMAGE01",
    data: { edit },
  });
});

// Source: Meta (revoke messages webhook reference)
test("Meta: a message that is taken back names the message that it takes back", async () => {
  const revoke = { original_message_id: "wamid.TEXT01" };
  expect(await rowOf({ type: "revoke", revoke })).toMatchObject({
    messageId: "wamid.NEW",
    kind: "revoke",
    text: null,
    contextId: "wamid.TEXT01",
  });
});

// Source: netflie/whatsapp-cloud-api#138
test("whatsapp-cloud-api#138: a reaction that is removed is told apart from a message without a text", async () => {
  const removed = { kind: "reaction", text: "", contextId: "wamid.SENT" };
  const reaction = { message_id: "wamid.SENT" };
  expect(await rowOf({ type: "reaction", reaction })).toMatchObject(removed);
  expect(await rowOf({ type: "reaction", reaction: { ...reaction, emoji: "" } })).toMatchObject(
    removed,
  );
  expect(await rowOf({ type: "reaction", reaction: { ...reaction, emoji: "❤" } })).toMatchObject({
    ...removed,
    text: "❤",
  });
  expect(await rowOf({ type: "reaction" })).toMatchObject({ text: null, contextId: null });
});

// Source: chatwoot/chatwoot#13970
test("chatwoot#13970: what a person filled into a flow is stored with the reply", async () => {
  const nfm_reply = {
    response_json: '{"rating":"5","flow_token":"t"}',
    body: "Sent",
    name: "flow",
  };
  const interactive = { type: "nfm_reply", nfm_reply };
  const context = { from: "18765550100", id: "wamid.ASKED" };
  expect(await rowOf({ type: "interactive", interactive, context })).toMatchObject({
    text: "Sent",
    contextId: "wamid.ASKED",
    data: { interactive },
  });
});

// Source: NousResearch/hermes-agent#80106
test.each([
  ["location", { latitude: 18.01, longitude: -76.79, name: "Quay 3", address: "1 Port Road" }],
  [
    "order",
    {
      catalog_id: "194836987003835",
      text: "Leave it at the door",
      product_items: [
        { product_retailer_id: "sku-1", quantity: 2, item_price: 7.99, currency: "JMD" },
      ],
    },
  ],
  ["contacts", [{ name: { formatted_name: "Eve" }, phones: [{ phone: "+1 876 555 0124" }] }]],
  ["system", { body: "Dana changed to 18765550199", new_wa_id: "18765550199", type: "x" }],
  ["button", { payload: "yes-7", text: "Yes" }],
  ["interactive", { type: "list_reply", list_reply: { id: "7", title: "A", description: "B" } }],
  ["audio", { id: "400000000000003", mime_type: "audio/ogg", voice: true }],
  ["hologram", { frames: [{ depth: 2 }], of: { someone: true } }],
])("hermes-agent#80106: a message of the kind %s keeps what it holds", async (type, own) => {
  expect(await rowOf({ type, [type]: own })).toMatchObject({ kind: type, data: { [type]: own } });
});

// Source: NousResearch/hermes-agent#80106
test("hermes-agent#80106: what stands beside a message's own data is kept as well", async () => {
  const errors = [{ code: 131051, title: "Message type unknown" }];
  expect((await rowOf({ type: "unsupported", errors })).data).toEqual({ errors });
  const referral = { source_type: "ad", source_id: "1", ctwa_clid: "c" };
  const context = { from: "1", id: "wamid.A", referred_product: { product_retailer_id: "sku-1" } };
  expect((await rowOf({ type: "text", text: { body: "hi" }, referral, context })).data).toEqual({
    referral,
    context,
  });
  expect((await rowOf({ type: "request_welcome" })).dataJson).toBeUndefined();
});

// Source: Meta (edit messages webhook reference)
test.each([
  ["pin", { message_id: "wamid.A", action: "pin" }],
  ["poll_vote", { poll_message_id: "wamid.A", votes: ["b"] }],
  ["tomorrow", { original_message_id: "wamid.A", text: "x" }],
  ["interactive", { type: "vote", vote: { message_id: "wamid.A" } }],
])(
  "Meta: a message of the kind %s about another names it, whether or not the kind is known",
  async (type, own) => {
    const context = { id: "wamid.B" };
    expect(await rowOf({ type, [type]: own, context })).toMatchObject({
      kind: type,
      contextId: "wamid.A",
      data: { [type]: own, context },
    });
  },
);

// Source: NousResearch/hermes-agent#80106
test("hermes-agent#80106: data beyond its bound keeps whole items, what is small and the beginning of a long text, and says so", async () => {
  const product_items = Array.from({ length: 2_000 }, (_, i) => ({
    product_retailer_id: `sku-${i}`,
    quantity: 1,
  }));
  const order = await rowOf({ type: "order", order: { catalog_id: "1", product_items } });
  const kept = order.data as { order: { product_items: unknown[] } };
  const { length } = kept.order.product_items;
  expect(length).toBeGreaterThan(100);
  expect(kept.order).toEqual({ catalog_id: "1", product_items: product_items.slice(0, length) });
  expect(order.dataTruncated).toBe(true);
  const interactive = {
    type: "nfm_reply",
    nfm_reply: { response_json: "x".repeat(100 * KIB), body: "Sent" },
  };
  const flow = await rowOf({ type: "interactive", interactive });
  expect(flow).toMatchObject({ text: "Sent", dataTruncated: true });
  const answers = flow.data as { interactive: { nfm_reply: { response_json: string } } };
  expect(answers).toMatchObject({
    interactive: { type: "nfm_reply", nfm_reply: { body: "Sent" } },
  });
  expect(answers.interactive.nfm_reply.response_json).toMatch(/^x{7000,8192}$/);
});

// Source: Meta (group messages status webhook)
test("Meta: failures with their code as text, prices and conversations do a report no harm", async () => {
  const t = backend();
  const more = { pricing: { billable: true }, conversation: { id: "c" }, recipient_type: "group" };
  const failed = status("failed", 1_790_000_000, { ...more, errors: [{ code: "131026" }] });
  await post(t, delivery({ statuses: [failed, status("failed", 1, { ...FAILURE, id: "b" })] }));
  await settleAll(t);
  const { messages } = await rowsOf(t);
  expect(messages.map(({ delivery: { failure } }) => failure?.errorCode)).toEqual([131026, 131026]);
});
