import * as Sentry from "@sentry/node";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import vectors from "../../test/vectors/webhooks.json";
import { gmailPush, hub256, whatsappDelivery } from "./deliveries";
import { WHATSAPP_DELIVERIES } from "./fixtures/whatsapp";
import { startSimulators, type Simulators } from "./index";
import { list, record, text } from "./json";

let sim: Simulators;
const env = (name: string): string => sim.env[name] ?? "";

beforeAll(async () => {
  sim = await startSimulators();
});
afterAll(() => sim.close());
beforeEach(() => fetch(`${sim.url}/control/reset`, { method: "POST" }));

const control = async (path: string) =>
  record(await (await fetch(`${sim.url}/control/${path}`)).json());

describe("WhatsApp Graph", () => {
  const send = (body: object, token = env("WHATSAPP_ACCESS_TOKEN")) =>
    fetch(`${env("WHATSAPP_GRAPH_BASE_URL")}/${env("WHATSAPP_PHONE_NUMBER_ID")}/messages`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  const HELLO = {
    messaging_product: "whatsapp",
    to: "+15551234567",
    type: "text",
    text: { body: "hello" },
  };

  test("a message is accepted, kept, and has an id that follows from it", async () => {
    const accepted = record(await (await send(HELLO)).json());
    expect(accepted).toEqual({
      messaging_product: "whatsapp",
      contacts: [{ input: "+15551234567", wa_id: "15551234567" }],
      messages: [{ id: expect.stringMatching(/^wamid\.[\w=+/]+$/) as string }],
    });
    expect(await (await send(HELLO)).json()).toEqual(accepted);
    const sent = list((await control("whatsapp/messages"))["messages"]);
    expect(sent).toHaveLength(2);
    expect(sent[0]).toMatchObject({ body: HELLO });
    expect(
      await (
        await send({ messaging_product: "whatsapp", status: "read", message_id: "wamid.x" })
      ).json(),
    ).toEqual({ success: true });
  });

  test("a wrong token, none and a bad body are refused in its shape", async () => {
    const refused = await send(HELLO, "wrong");
    expect(refused.status).toBe(401);
    expect(await refused.json()).toMatchObject({
      error: { type: "OAuthException", code: 190, fbtrace_id: expect.any(String) as string },
    });
    for (const body of [{}, { ...HELLO, to: "" }, { ...HELLO, text: undefined }])
      expect(await (await send(body)).json()).toMatchObject({ error: { code: 100 } });
    expect((await fetch(`${env("WHATSAPP_GRAPH_BASE_URL")}/123`)).status).toBe(401);
  });

  test("media has an address, and there are its bytes", async () => {
    const headers = { authorization: `Bearer ${env("WHATSAPP_ACCESS_TOKEN")}` };
    const media = record(
      await (await fetch(`${env("WHATSAPP_GRAPH_BASE_URL")}/1003383421387256`, { headers })).json(),
    );
    expect(media).toMatchObject({ mime_type: "image/png", id: "1003383421387256" });
    const download = await fetch(text(media["url"]), { headers });
    expect(download.headers.get("content-type")).toBe("image/png");
    expect(String((await download.arrayBuffer()).byteLength)).toBe(media["file_size"]);
    expect((await fetch(text(media["url"]))).status).toBe(401);
  });
});

describe("deliveries", () => {
  test("the signature is the published construction", () => {
    const published = vectors.filter((vector) => vector.scheme === "hub-256");
    expect(published.length).toBeGreaterThan(0);
    for (const { secret, body, expect: signature } of published)
      expect(hub256(secret ?? "", body ?? "")).toBe(signature);
  });

  test("a WhatsApp text is escaped as Meta escapes it, signed over those bytes, and new each time", () => {
    const given = {
      text: "港/café 🚢",
      from: "15551234567",
      appSecret: "s",
      nowMs: 1_760_000_000_123,
    };
    const { headers, body } = whatsappDelivery(given);
    expect(body).toMatch(/^\p{ASCII}+$/u);
    expect(body).toContain("\\u6e2f\\/caf\\u00e9 \\ud83d\\udea2");
    expect(headers["x-hub-signature-256"]).toBe(hub256("s", body));
    const sent = JSON.parse(body) as typeof WHATSAPP_DELIVERIES.text;
    expect(sent.entry[0]?.changes[0]?.value).toMatchObject({
      messaging_product: "whatsapp",
      contacts: [{ wa_id: "15551234567" }],
      messages: [
        {
          from: "15551234567",
          timestamp: "1760000000",
          type: "text",
          text: { body: "港/café 🚢" },
        },
      ],
    });
    expect(whatsappDelivery(given).body).toBe(body);
    expect(whatsappDelivery({ ...given, nowMs: given.nowMs + 1 }).body).not.toBe(body);
    expect(whatsappDelivery({ ...given, id: "wamid.fixed" }).body).toContain('"wamid.fixed"');
  });

  test("a Gmail push carries address and history id in its data", () => {
    const { headers, body } = gmailPush({
      email: "a@b.example",
      historyId: "9876543210",
      token: "t",
      nowMs: 0,
    });
    expect(headers["authorization"]).toBe("Bearer t");
    const { message, subscription } = JSON.parse(body) as {
      message: Record<string, string>;
      subscription: string;
    };
    expect(atob(message["data"] ?? "")).toBe(
      '{"emailAddress":"a@b.example","historyId":9876543210}',
    );
    expect(message).toMatchObject({
      messageId: message["message_id"],
      publishTime: "1970-01-01T00:00:00.000Z",
    });
    expect(subscription).toMatch(/^projects\/.+\/subscriptions\/.+$/);
  });

  test("every fixture has the frame that Meta sends", () => {
    for (const fixture of Object.values(WHATSAPP_DELIVERIES)) {
      expect(fixture.object).toBe("whatsapp_business_account");
      expect(fixture.entry.flatMap((entry) => [...entry.changes])).not.toHaveLength(0);
    }
  });
});

describe("Sentry", () => {
  test("keeps what its own client sends", async () => {
    const client = new Sentry.NodeClient({
      dsn: env("SENTRY_DSN"),
      transport: Sentry.makeNodeTransport,
      stackParser: Sentry.defaultStackParser,
      integrations: [],
    });
    client.init();
    const eventId = client.captureException(new Error("queue depth 201"));
    expect(await client.close(5_000)).toBe(true);
    const envelopes = list((await control("sentry/envelopes"))["envelopes"]).map(record);
    expect(envelopes).toHaveLength(1);
    expect(envelopes[0]?.["header"]).toMatchObject({ event_id: eventId });
    expect(envelopes[0]?.["items"]).toMatchObject([
      {
        header: { type: "event" },
        payload: { exception: { values: [{ type: "Error", value: "queue depth 201" }] } },
      },
    ]);
  });

  const post = (body: string, headers: Record<string, string>, project = "1") =>
    fetch(`${sim.url}/sentry/api/${project}/envelope/`, { method: "POST", body, headers });
  const key = () => ({
    "x-sentry-auth": `Sentry sentry_version=7, sentry_key=${new URL(env("SENTRY_DSN")).username}`,
  });

  test("a wrong key or project, no key and a bad envelope are refused", async () => {
    expect((await post("{}\n", {})).status).toBe(401);
    expect((await post("{}\n", { "x-sentry-auth": "Sentry sentry_key=00" })).status).toBe(403);
    expect((await post("{}\n", key(), "2")).status).toBe(403);
    expect((await post("nonsense", key())).status).toBe(400);
  });

  test("items are read by length and by line", async () => {
    const body =
      '{"event_id":"a"}\n{"type":"attachment","length":5}\na\nb\nc\n{"type":"event"}\n{"ok":true}\n';
    expect(await (await post(body, key())).json()).toEqual({ id: "a" });
    expect((await control("sentry/envelopes"))["envelopes"]).toMatchObject([
      { items: [{ payload: "a\nb\nc" }, { payload: { ok: true } }] },
    ]);
  });
});
