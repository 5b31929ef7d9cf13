import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  ACCOUNT_UPDATE,
  BUTTON_REPLY,
  change,
  delivery,
  DOCUMENT_MESSAGE,
  FAILURE,
  IMAGE_MESSAGE,
  REACTION,
  status,
  TEXT_DELIVERY,
  TEXT_MESSAGE,
  UNSUPPORTED,
  USER_ID_DELIVERY,
} from "../../../test/vectors/whatsappDeliveries";
import { errorData } from "../../errors/appError";
import { DELIVERY_EVENTS_MAX, readDelivery } from "./delivery";
import { claimKey } from "./event";

const NOW_MS = 1_790_000_100_000;

const eventsOf = async (body: unknown) => (await readDelivery(body, NOW_MS)).events;

/** The one event of a delivery that holds this message. */
async function messageOf(message: unknown) {
  const [event] = await eventsOf(delivery({ messages: [message] }));
  if (event?.type !== "message") throw new Error("no message was read");
  return event;
}

async function refusalOf(body: unknown) {
  try {
    await readDelivery(body, NOW_MS);
    return null;
  } catch (error) {
    return errorData(error);
  }
}

describe("a text message", () => {
  test("is reduced to what is stored", async () => {
    expect(await readDelivery(TEXT_DELIVERY, NOW_MS)).toEqual({
      events: [
        {
          type: "message",
          messageId: "wamid.TEXT01",
          from: "18765550123",
          fromUserId: "JM.10000000000000001",
          phoneNumberId: "300000000000001",
          kind: "text",
          text: "Where is my parcel?",
          textTruncated: false,
          mediaId: null,
          contextId: null,
          sentAtMs: 1_790_000_000_000,
        },
      ],
      ignored: 0,
    });
  });

  test("of a sender who hides the number is from the business-scoped id", async () => {
    expect(await eventsOf(USER_ID_DELIVERY)).toMatchObject([
      { from: "JM.10000000000000001", fromUserId: "JM.10000000000000001" },
    ]);
  });

  test("that names no sender is from the one contact listed, and from nobody among two", async () => {
    const message = { ...TEXT_MESSAGE, from: undefined };
    const one = { contacts: [{ user_id: "JM.1" }], messages: [message] };
    const two = { contacts: [{ wa_id: "1" }, { wa_id: "2" }], messages: [message] };
    expect(await eventsOf(delivery(one))).toMatchObject([{ from: "JM.1", fromUserId: "JM.1" }]);
    expect(await eventsOf(delivery(two))).toMatchObject([{ from: null, fromUserId: null }]);
  });

  test("beyond the bound is cut and says so", async () => {
    const message = await messageOf({ ...TEXT_MESSAGE, text: { body: "🦀".repeat(4_097) } });
    expect(message.text).toBe("🦀".repeat(4_096));
    expect(message.textTruncated).toBe(true);
  });
});

describe("other kinds", () => {
  test.each([
    [IMAGE_MESSAGE, { kind: "image", text: "the invoice", mediaId: "400000000000001" }],
    [DOCUMENT_MESSAGE, { kind: "document", text: null, mediaId: "400000000000002" }],
    [BUTTON_REPLY, { kind: "interactive", text: "Yes, please", contextId: "wamid.ASKED01" }],
    [REACTION, { kind: "reaction", text: "👍", contextId: "wamid.ASKED01" }],
    [UNSUPPORTED, { kind: "unsupported", text: null, mediaId: null }],
    [{ ...TEXT_MESSAGE, type: "hologram", hologram: {} }, { kind: "hologram" }],
    [
      { ...TEXT_MESSAGE, type: "round_video", round_video: { mime_type: "video/mp4", id: "9" } },
      { kind: "round_video", mediaId: "9" },
    ],
    [
      { ...TEXT_MESSAGE, type: "__proto__" },
      { kind: "__proto__", text: TEXT_MESSAGE.text.body },
    ],
  ])("%j keep what they carry", async (message, stored) => {
    expect(await messageOf(message)).toMatchObject(stored);
  });

  test("fields of an unexpected form count as absent", async () => {
    const odd = { id: "wamid.ODD01", from: 7, timestamp: {}, type: null, text: "x", image: [] };
    expect(await messageOf(odd)).toEqual({
      type: "message",
      messageId: "wamid.ODD01",
      from: "7",
      fromUserId: null,
      phoneNumberId: "300000000000001",
      kind: "unknown",
      text: null,
      textTruncated: false,
      mediaId: null,
      contextId: null,
      dataJson: '{"timestamp":{},"text":"x","image":[]}',
      sentAtMs: NOW_MS,
    });
  });

  test.each([
    ["the body of a text", { text: { body: 123 } }, { text: { body: 123 } }],
    ["an object as body", { text: { body: { a: 1 } } }, { text: { body: { a: 1 } } }],
    ["a list as body", { text: { body: ["a"] } }, { text: { body: ["a"] } }],
    [
      "a text beside a picture",
      { type: "image", image: { id: "1" }, text: { body: "beside" } },
      { image: { id: "1" }, text: { body: "beside" } },
    ],
    ["a sender of another form", { from: { wa_id: "1" } }, { from: { wa_id: "1" } }],
    ["a sender of half a character", { from: "1\ud800" }, { from: "1\ud800" }],
    ["a sender beyond the bound", { from: "1".repeat(300) }, { from: "1".repeat(300) }],
    ["a negative sender", { from: -1 }, { from: -1 }],
    ["a user id of another form", { from_user_id: [1] }, { from_user_id: [1] }],
    ["an id beyond the bound", { id: "x".repeat(300) }, { id: "x".repeat(300) }],
    ["a number as kind", { type: 7 }, { type: 7 }],
    ["a list as kind", { type: ["text"] }, { type: ["text"] }],
    ["a time of another form", { timestamp: "0x10" }, { timestamp: "0x10" }],
    [
      "who wrote what is answered",
      { context: { id: "wamid.A", from: "1" } },
      { context: { id: "wamid.A", from: "1" } },
    ],
  ])("%s is kept as data where no column took it", async (_name, changed, data) => {
    const { dataJson } = await messageOf({ ...TEXT_MESSAGE, ...changed });
    expect(JSON.parse(dataJson ?? "null")).toEqual(data);
  });

  test.each([
    ["a number as sender", { from: 18765550123 }, { from: "18765550123" }],
    ["a plain answer", { context: { id: "wamid.A" } }, { contextId: "wamid.A" }],
    ["null", { from_user_id: null, context: null, type: null }, { kind: "unknown" }],
    [
      "an id that is a column's",
      { id: "wamid.A", context: { id: "wamid.A" } },
      { contextId: "wamid.A" },
    ],
  ])("%s needs no data", async (_name, changed, columns) => {
    const message = await messageOf({ ...TEXT_MESSAGE, ...changed });
    expect(message).toMatchObject(columns);
    expect(message).not.toHaveProperty("dataJson");
  });

  test("an edit that does not fit leaves out the text that its column has", async () => {
    const body = "é".repeat(4_096);
    const message = { type: "text", text: { body } };
    const edit = { original_message_id: "wamid.A", message };
    const read = await messageOf({ ...TEXT_MESSAGE, text: undefined, type: "edit", edit });
    expect(read).toMatchObject({ text: body, textTruncated: false });
    expect(JSON.parse(read.dataJson ?? "null")).toEqual({
      edit: { original_message_id: "wamid.A", message: { type: "text", text: {} } },
    });
    expect(read).not.toHaveProperty("dataTruncated");
  });

  test.each([
    ...["", "x", "-1", "1.5", "99999999999999", "1e400", "  ", " 1", "0x10", "1e9", "١"],
    ...[-1, 1.5, NOW_MS, String(NOW_MS), NOW_MS / 1000 + 86_401, null, [1]],
  ])("the timestamp %j is replaced by the time of receipt", async (timestamp) => {
    expect((await messageOf({ ...TEXT_MESSAGE, timestamp })).sentAtMs).toBe(NOW_MS);
  });
});

test.each([1_790_000_000, "1790000000", "001790000000"])(
  "the timestamp %j is WhatsApp's",
  async (timestamp) => {
    const { sentAtMs } = await messageOf({ ...TEXT_MESSAGE, timestamp });
    expect(sentAtMs).toBe(1_790_000_000_000);
  },
);

test("a clock that is a day ahead is believed, and no more", async () => {
  const ahead = NOW_MS / 1000 + 86_400;
  const timestamp = String(ahead);
  expect((await messageOf({ ...TEXT_MESSAGE, timestamp })).sentAtMs).toBe(ahead * 1000);
});

test("a message with the id of the one it is about has its own row all the same", async () => {
  const edit = { original_message_id: TEXT_MESSAGE.id, message: { text: { body: "new" } } };
  const event = await messageOf({ ...TEXT_MESSAGE, type: "edit", text: undefined, edit });
  expect(event).toMatchObject({ text: "new", contextId: TEXT_MESSAGE.id });
  expect(event.messageId).toMatch(/^sha256:[0-9a-f]{64}$/);
});

describe("a message without a usable id", () => {
  test.each([[undefined], [""], [7], ["x".repeat(257)], ["wamid.S\ud800"], ["\udc00"]])(
    "such as %j is known by its digest, the same at every delivery",
    async (id) => {
      const message = { ...TEXT_MESSAGE, id };
      const first = await messageOf(message);
      expect(first.messageId).toMatch(/^sha256:[0-9a-f]{64}$/);
      expect((await messageOf(message)).messageId).toBe(first.messageId);
      const other = await messageOf({ ...message, text: { body: "another" } });
      expect(other.messageId).not.toBe(first.messageId);
    },
  );
});

test("ids that differ in half a character stay two messages, and name no third", async () => {
  const ids = ["wamid.S\ud800", "wamid.S\udbff"];
  const messages = ids.map((id) => ({ ...TEXT_MESSAGE, id, context: { id } }));
  const events = await eventsOf(delivery({ messages }));
  expect(new Set(events.map(({ messageId }) => messageId)).size).toBe(2);
  expect(events).toMatchObject([{ contextId: null }, { contextId: null }]);
});

describe("a delivery", () => {
  test("may carry many entries, changes, messages and reports", async () => {
    const messages = ["a", "b"].map((id) => ({ ...TEXT_MESSAGE, id }));
    const entry = (id: string) => ({
      id,
      changes: [change({ messages }), change({ statuses: [status("sent", 1), status("read", 2)] })],
    });
    const events = await eventsOf({ entry: [entry("1"), entry("2")] });
    expect(events.map(({ type }) => type)).toEqual([
      ...["message", "message", "status", "status"],
      ...["message", "message", "status", "status"],
    ]);
  });

  test("of more messages and reports than one may hold is too large", async () => {
    const half = Array.from({ length: DELIVERY_EVENTS_MAX / 2 }, () => ({}));
    expect(await refusalOf(delivery({ messages: [], statuses: [...half, ...half] }))).toBeNull();
    const more = [change({ statuses: half }), change({ statuses: [...half, {}] })];
    const refusal = await refusalOf({ entry: [{ id: "1", changes: more }] });
    expect(refusal?.code).toBe("payload_too_large");
  });

  test("of another field is ignored", async () => {
    expect(await readDelivery(ACCOUNT_UPDATE, NOW_MS)).toEqual({ events: [], ignored: 1 });
  });

  test("without entries, changes or messages holds nothing", async () => {
    expect(await eventsOf({})).toEqual([]);
    expect(await eventsOf({ entry: [] })).toEqual([]);
    expect(await eventsOf({ entry: [{ id: "1" }] })).toEqual([]);
    expect(await eventsOf(delivery({}))).toEqual([]);
  });

  test.each([
    [null, ""],
    [[], ""],
    ["x", ""],
    [{ entry: {} }, "entry"],
    [{ entry: 7 }, "entry"],
  ])("with a broken frame %j is refused at %j", async (body, path) => {
    const refusal = await refusalOf(body);
    expect(refusal?.code).toBe("invalid_request");
    expect(refusal?.issues?.[0]?.path).toBe(path);
  });

  const SENT = status("sent", 1);
  test.each<[string, unknown, { messages?: number; statuses?: number; ignored: number }]>([
    ["no entries", { entry: null }, { ignored: 0 }],
    ["a number as entry", { entry: [7] }, { ignored: 1 }],
    [
      "null beside an entry",
      { entry: [null, { changes: [change({ messages: [TEXT_MESSAGE] })] }] },
      { messages: 1, ignored: 1 },
    ],
    ["a text as changes", { entry: [{ changes: "x" }] }, { ignored: 1 }],
    ["null as changes", { entry: [{ changes: null }] }, { ignored: 1 }],
    ["null as change", { entry: [{ changes: [null] }] }, { ignored: 1 }],
    ["no value", { entry: [{ changes: [{ field: "messages" }] }] }, { ignored: 1 }],
    [
      "null as value beside another",
      {
        entry: [
          { changes: [{ field: "messages", value: null }, change({ messages: [TEXT_MESSAGE] })] },
        ],
      },
      { messages: 1, ignored: 1 },
    ],
    [
      "an object as messages",
      delivery({ messages: {}, statuses: [SENT] }),
      { statuses: 1, ignored: 1 },
    ],
    [
      "null as messages",
      delivery({ messages: null, statuses: [SENT] }),
      { statuses: 1, ignored: 1 },
    ],
    ["null as message", delivery({ messages: [null, TEXT_MESSAGE] }), { messages: 1, ignored: 1 }],
    ["a text as message", delivery({ messages: ["x", TEXT_MESSAGE] }), { messages: 1, ignored: 1 }],
    ["a list as message", delivery({ messages: [[1], TEXT_MESSAGE] }), { messages: 1, ignored: 1 }],
    [
      "null as statuses",
      delivery({ messages: [TEXT_MESSAGE], statuses: null }),
      { messages: 1, ignored: 1 },
    ],
    ["null as status", delivery({ statuses: [null, SENT] }), { statuses: 1, ignored: 1 }],
    ["a text as status", delivery({ statuses: ["sent", SENT] }), { statuses: 1, ignored: 1 }],
  ])("with %s holds the rest all the same", async (_name, body, expected) => {
    const { events, ignored } = await readDelivery(body, NOW_MS);
    const count = (type: string) => events.filter((event) => event.type === type).length;
    expect({ messages: count("message"), statuses: count("status"), ignored }).toEqual({
      messages: 0,
      statuses: 0,
      ...expected,
    });
  });

  test("whose list of contacts has an odd item knows the sender from the other", async () => {
    const message = { ...TEXT_MESSAGE, from: undefined };
    const body = delivery({ contacts: [null, { wa_id: 18765550123 }], messages: [message] });
    expect(await eventsOf(body)).toMatchObject([{ from: "18765550123" }]);
  });

  test("of any JSON at all is read or refused as invalid_request", async () => {
    const inside = fc.jsonValue({ maxDepth: 6 });
    const bodies = fc.oneof(
      inside,
      inside.map((messages) => delivery({ messages })),
      fc.array(inside).map((messages) => delivery({ messages, statuses: messages })),
    );
    await fc.assert(
      fc.asyncProperty(bodies, async (body) => {
        expect(["invalid_request", undefined]).toContain((await refusalOf(body))?.code);
      }),
    );
  });
});

describe("a status report", () => {
  test("is read with its failure code, for the recipient", async () => {
    const body = delivery({ statuses: [status("failed", 1_790_000_009, FAILURE)] });
    expect(await eventsOf(body)).toEqual([
      {
        type: "status",
        messageId: "wamid.SENT01",
        status: "failed",
        atMs: 1_790_000_009_000,
        errorCode: 131026,
        recipient: "18765550123",
      },
    ]);
  });

  test("of a hidden number is for the business-scoped id", async () => {
    const body = delivery({ statuses: [status("read", 1, { recipient_id: undefined })] });
    expect(await eventsOf(body)).toMatchObject([{ recipient: "JM.10000000000000001" }]);
  });

  test("of a payment says nothing about a message", async () => {
    const statuses = [status("failed", 1, { type: "payment", payment: { reference_id: "1" } })];
    expect(await readDelivery(delivery({ statuses }), NOW_MS)).toEqual({ events: [], ignored: 1 });
  });

  test.each([
    [131026, 131026],
    ["131026", 131026],
    ["", null],
    ["1e3", null],
    [1.5, null],
    [null, null],
  ])("with the failure code %j has %j", async (code, errorCode) => {
    const failed = status("failed", 1, { errors: [{ code }] });
    expect(await eventsOf(delivery({ statuses: [failed] }))).toMatchObject([{ errorCode }]);
  });

  test.each([
    [[null, { code: 5 }], 5],
    [["x", { code: null }, { code: "6" }, { code: 7 }], 6],
    [[], null],
    [{ code: 5 }, null],
  ])("with the errors %j has %j", async (errors, errorCode) => {
    const failed = status("failed", 1, { errors });
    expect(await eventsOf(delivery({ statuses: [failed] }))).toMatchObject([{ errorCode }]);
  });

  test("for a number that is no text is for its digits", async () => {
    const body = delivery({ statuses: [status("read", 1, { recipient_id: 18765550123 })] });
    expect(await eventsOf(body)).toMatchObject([{ recipient: "18765550123" }]);
  });

  test("of half a character joins nothing", async () => {
    const statuses = [status("read", 1, { id: "wamid.S\ud800" })];
    expect(await readDelivery(delivery({ statuses }), NOW_MS)).toEqual({ events: [], ignored: 1 });
  });

  test("with an unknown word or without a message joins nothing and is ignored", async () => {
    const statuses = [status("deleted", 1), status("read", 1, { id: "" }), status("toString", 1)];
    expect(await readDelivery(delivery({ statuses }), NOW_MS)).toEqual({ events: [], ignored: 3 });
  });
});

test("claims tell messages, and reports of one message, apart", async () => {
  const events = await eventsOf(
    delivery({
      messages: [TEXT_MESSAGE],
      statuses: [status("sent", 1), status("sent", 2), status("failed", 2, FAILURE)],
    }),
  );
  expect(events.map(claimKey)).toEqual([
    { scope: "whatsapp_message", key: "wamid.TEXT01" },
    { scope: "whatsapp_status", key: "wamid.SENT01:sent:1000:" },
    { scope: "whatsapp_status", key: "wamid.SENT01:sent:2000:" },
    { scope: "whatsapp_status", key: "wamid.SENT01:failed:2000:131026" },
  ]);
});
