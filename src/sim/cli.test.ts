import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join, resolve } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { runSim } from "./cli";
import { hub256 } from "./deliveries";
import { WHATSAPP_DELIVERIES } from "./fixtures/whatsapp";
import { startSimulators, type Simulators } from "./index";
import { list, record, text } from "./json";

const NOW_MS = 1_760_000_000_000;
const SCRATCH = resolve(".output/tmp");

let sim: Simulators;
let site: Server;
let siteUrl = "";
let received: { url: string; headers: IncomingHttpHeaders; body: string }[] = [];
let siteStatus = 200;
let cwd = "";

beforeAll(async () => {
  sim = await startSimulators({ now: () => NOW_MS });
  site = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8");
    request.on("data", (part: string) => (body += part));
    request.on("end", () => {
      received.push({ url: request.url ?? "", headers: request.headers, body });
      response.writeHead(siteStatus, { "x-idempotent-replay": "1" }).end("OK");
    });
  }).listen(0, "127.0.0.1");
  await once(site, "listening");
  siteUrl = `http://127.0.0.1:${(site.address() as AddressInfo).port}`;
});
afterAll(async () => {
  await sim.close();
  site.closeAllConnections();
  site.close();
});
beforeEach(async () => {
  received = [];
  siteStatus = 200;
  mkdirSync(SCRATCH, { recursive: true });
  cwd = mkdtempSync(join(SCRATCH, "sim-"));
  await fetch(`${sim.url}/control/reset`, { method: "POST" });
});
afterEach(() => {
  rmSync(cwd, { recursive: true, force: true });
});

function deploy(fields: object = {}, secrets: object = {}, dir = ".ballast"): void {
  mkdirSync(join(cwd, dir), { recursive: true });
  const deployment = {
    cloudUrl: "http://127.0.0.1:1",
    siteUrl,
    adminKey: "k",
    pid: 1,
    simUrl: sim.url,
  };
  writeFileSync(join(cwd, dir, "deployment.json"), JSON.stringify({ ...deployment, ...fields }));
  writeFileSync(join(cwd, dir, "secrets.json"), JSON.stringify(secrets));
}

async function run(argv: string[], env: Record<string, string> = {}) {
  const out: string[] = [];
  const err: string[] = [];
  const code = await runSim(argv, {
    print: (line) => out.push(line),
    printError: (line) => err.push(line),
    env,
    cwd,
    now: () => NOW_MS,
  });
  return { code, out: out.join("\n"), err: err.join("\n") };
}

const SECRETS = { WHATSAPP_APP_SECRET: "development-secret" };

describe("faults", () => {
  const search = () =>
    fetch(`${sim.env["SERPER_BASE_URL"] ?? ""}/search`, {
      method: "POST",
      headers: { "x-api-key": sim.env["SERPER_API_KEY"] ?? "" },
      body: '{"q":"x"}',
    });

  test("are set by their names on the command line, shown, and lifted", async () => {
    deploy();
    const set = await run([
      "fault",
      "serper",
      "status=429",
      "retry-after=9",
      "times=5",
      "path=/search",
    ]);
    expect(set).toMatchObject({ code: 0, err: "" });
    expect((await search()).headers.get("retry-after")).toBe("9");
    const shown = await run(["state"]);
    expect(shown.out).toMatch(/serper +1 requests {2}\{"status":429,.*"times":5/);
    expect(shown.out).toContain("POST /serper/search -> 429");
    expect(record(JSON.parse((await run(["state", "--json"])).out))["recent"]).toHaveLength(1);
    expect((await run(["fault", "serper", "off"])).out).toBe("serper: no fault");
    expect((await search()).status).toBe(200);
    await run(["fault", "serper", "malformed"]);
    expect((await run(["state"])).out).toContain('{"malformedFrame":true}');
    expect((await run(["reset"])).code).toBe(0);
    expect((await search()).status).toBe(200);
    const every = [
      "latency=1",
      "error-rate=0.5",
      "cut=5",
      "hang-after=9",
      "hang",
      "disconnect=false",
      "body=x",
    ];
    expect((await run(["fault", "openrouter", ...every])).code).toBe(0);
  });

  test("mistakes are one clear message and exit 1", async () => {
    deploy();
    expect((await run(["fault", "nobody", "status=500"])).err).toContain(
      "nobody is not a provider",
    );
    expect((await run(["fault", "serper", "speed=1"])).err).toContain("no fault speed");
    expect((await run(["fault", "serper", "latency=soon"])).err).toBe(
      "latencyMs must be a whole number, 0 or more",
    );
    for (const argv of [[], ["dance"], ["fault", "serper"], ["state", "--nope"]])
      expect((await run(argv)).code).toBe(1);
    expect(await run(["--help"])).toMatchObject({ code: 0, err: "" });
  });
});

describe("whatsapp", () => {
  test("posts a signed delivery and prints the answer", async () => {
    deploy({}, SECRETS);
    const done = await run(["whatsapp", "hello", "--from", "+15557654321", "--id", "wamid.x"]);
    expect(done).toMatchObject({ code: 0, err: "" });
    expect(done.out).toContain(`POST ${siteUrl}/api/whatsapp/webhook -> 200 OK`);
    expect(done.out).toContain("x-idempotent-replay: 1");
    const [delivery] = received;
    expect(delivery?.url).toBe("/api/whatsapp/webhook");
    expect(delivery?.headers["content-type"]).toBe("application/json");
    expect(delivery?.headers["x-hub-signature-256"]).toBe(
      hub256(SECRETS.WHATSAPP_APP_SECRET, delivery?.body ?? ""),
    );
    expect(delivery?.body).toContain('"id":"wamid.x"');
    expect(delivery?.body).toContain('"from":"15557654321"');
  });

  const sent = async (argv: readonly string[]) => {
    received = [];
    const done = await run(["whatsapp", ...argv]);
    expect(done).toMatchObject({ code: 0, err: "" });
    const body = received[0]?.body ?? "{}";
    const signature = received[0]?.headers["x-hub-signature-256"];
    expect(signature).toBe(hub256(SECRETS.WHATSAPP_APP_SECRET, body));
    const { entry } = JSON.parse(body) as typeof WHATSAPP_DELIVERIES.text;
    const { value } = entry[0]?.changes[0] ?? {};
    return record(value);
  };

  test.each([
    [["new", "text", "--edit", "wamid.a"], WHATSAPP_DELIVERIES.edit],
    [["--revoke", "wamid.a"], WHATSAPP_DELIVERIES.revoke],
    [["👍", "--react", "wamid.a"], WHATSAPP_DELIVERIES.reaction],
    [["--react", "wamid.a"], WHATSAPP_DELIVERIES.reactionRemoved],
    [["Quay 3", "--location=-17.9,76"], WHATSAPP_DELIVERIES.location],
    [["please", "--order", "sku-1:2,sku-7"], WHATSAPP_DELIVERIES.order],
    [["--flow", '{"rating":"5"}'], WHATSAPP_DELIVERIES.flow],
  ])("sends %j with the fields that Meta's reference shows", async (argv, fixture) => {
    deploy({}, SECRETS);
    const [message] = list((await sent(argv))["messages"]).map(record);
    const documented = record(fixture.entry[0]?.changes[0]?.value["messages" as never][0]);
    const type = text(documented["type"]);
    expect(message?.["type"]).toBe(type);
    const own = record(message?.[type]);
    expect(Object.keys(own).length).toBeGreaterThan(0);
    for (const key of Object.keys(own)) expect(record(documented[type])).toHaveProperty(key);
  });

  test("sends what it is told", async () => {
    deploy({}, SECRETS);
    const only = async (argv: readonly string[]) => list((await sent(argv))["messages"])[0];
    expect(await only(["new", "text", "--edit", "wamid.a"])).toMatchObject({
      edit: { original_message_id: "wamid.a", message: { text: { body: "new text" } } },
    });
    expect(await only(["Quay 3", "--location=-17.9,76"])).toMatchObject({
      location: { latitude: -17.9, longitude: 76, name: "Quay 3" },
    });
    expect(await only(["--order", "sku-1:2,sku-7"])).toMatchObject({
      order: {
        product_items: [
          { product_retailer_id: "sku-1", quantity: 2 },
          { product_retailer_id: "sku-7", quantity: 1 },
        ],
      },
    });
    expect(await only(["--flow", '{"rating":"5"}'])).toMatchObject({
      interactive: { nfm_reply: { response_json: '{"flow_token":"sim","rating":"5"}' } },
    });
  });

  test("sends a batch of reports, each on another message", async () => {
    deploy({}, SECRETS);
    const statuses = list((await sent(["--statuses", "1000"]))["statuses"]).map(record);
    expect(new Set(statuses.map(({ id }) => id)).size).toBe(1_000);
    expect(statuses.every(({ status }) => status === "delivered")).toBe(true);
    expect(received[0]?.body.length).toBeGreaterThan(256 * 1_024);
  });

  test.each([
    [["--statuses", "0"], "--statuses"],
    [["--statuses", "20001"], "--statuses"],
    [["--edit", "wamid.a"], "say what"],
    [["x", "--edit", ""], "--edit takes"],
    [["x", "--edit", "a", "--react", "b"], "at a time"],
    [["--location", "1"], "--location"],
    [["--location", "91,0"], "--location"],
    [["--order", "a:b"], "--order"],
    [["--flow", "x"], "--flow"],
  ])("says what is wrong with %j", async (argv, said) => {
    deploy({}, SECRETS);
    const done = await run(["whatsapp", ...argv]);
    expect(done).toMatchObject({ code: 1, out: "" });
    expect(done.err).toContain(said);
    expect(received).toEqual([]);
  });

  test("tells of every kind in its help", async () => {
    const { out } = await run(["--help"]);
    for (const option of ["--edit", "--react", "--location", "--order", "--flow", "--statuses"])
      expect(out).toContain(`${option} `);
  });

  test("signs with the secret that the server reads: environment, then .env.local, then its own", async () => {
    deploy({}, SECRETS, "elsewhere");
    const signedBy = async (secret: string, env: Record<string, string> = {}) => {
      received = [];
      await run(["whatsapp", "hi", "--data-dir", "elsewhere"], env);
      return (
        received[0]?.headers["x-hub-signature-256"] === hub256(secret, received[0]?.body ?? "")
      );
    };
    expect(await signedBy(SECRETS.WHATSAPP_APP_SECRET, { WHATSAPP_APP_SECRET: "" })).toBe(true);
    writeFileSync(join(cwd, ".env.local"), '# keys\nexport WHATSAPP_APP_SECRET="from file"\n');
    expect(await signedBy("from file")).toBe(true);
    expect(await signedBy("from shell", { WHATSAPP_APP_SECRET: "from shell" })).toBe(true);
  });

  test("a refusal is exit 1, and so is everything that is missing", async () => {
    expect((await run(["whatsapp", "hello"])).err).toMatch(
      /^no deployment is running on .*npm start/,
    );
    deploy();
    expect((await run(["whatsapp", "hello"])).err).toContain("WHATSAPP_APP_SECRET is set neither");
    deploy({}, SECRETS);
    expect((await run(["whatsapp"])).err).toContain("say what");
    expect((await run(["whatsapp", "x", "--from", "me"])).err).toContain("--from");
    siteStatus = 403;
    expect(await run(["whatsapp", "hello"])).toMatchObject({ code: 1, err: "" });
    deploy({ siteUrl: "http://127.0.0.1:9" }, SECRETS);
    const gone = await run(["whatsapp", "hello"]);
    expect(gone).toMatchObject({ code: 1, out: "" });
    expect(gone.err).toContain("the deployment does not answer at http://127.0.0.1:9");
    expect(gone.err).not.toContain("\n");
  });
});

describe("gmail", () => {
  test("delivers mail up to the history id and pushes it with a Google token", async () => {
    deploy();
    const done = await run(["gmail", "ada@example.com", "12345"]);
    expect(done).toMatchObject({ code: 0, err: "" });
    const [push] = received;
    expect(push?.url).toBe("/api/gmail/push");
    const claims = record(
      JSON.parse(atob((push?.headers.authorization ?? "").split(".")[1] ?? "")) as unknown,
    );
    expect(claims).toMatchObject({
      aud: sim.env["GMAIL_PUSH_AUDIENCE"],
      email: sim.env["GMAIL_PUSH_SERVICE_ACCOUNT"],
    });
    const { message } = JSON.parse(push?.body ?? "{}") as { message: { data: string } };
    expect(atob(message.data)).toBe('{"emailAddress":"ada@example.com","historyId":12345}');
    const again = await fetch(`${sim.url}/control/google/mailbox`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: '{"email":"ada@example.com","historyId":1}',
    });
    expect(await again.json()).toMatchObject({ historyId: 12345, messages: 13 });
  });

  test("the deployment's own audience is used; bad arguments and no simulator are said", async () => {
    deploy();
    await run(["gmail", "ada@example.com", "1"], { GMAIL_PUSH_AUDIENCE: "mine" });
    const body = received[0]?.headers.authorization?.split(".")[1] ?? "";
    expect(text(record(JSON.parse(atob(body)))["aud"])).toBe("mine");
    expect((await run(["gmail", "ada"])).err).toContain("say whose mail");
    deploy({ simUrl: undefined });
    expect((await run(["gmail", "ada@example.com", "1"])).err).toContain("no simulator is running");
    expect((await run(["state"])).code).toBe(1);
    deploy({ simUrl: "http://127.0.0.1:9" });
    expect((await run(["reset"])).err).toContain("the simulator does not answer");
  });
});
