// The app's own code against the simulators: what it reads and what they write must be one shape.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { fetchGoogleKeys } from "../channels/gmail/fetchKeys";
import { verifyGoogleToken } from "../channels/gmail/googleToken";
import { readNotification } from "../channels/gmail/envelope";
import { readDelivery } from "../channels/whatsapp/delivery";
import { errorData } from "../errors/appError";
import type { CallIo, Gate } from "../providers/call";
import type { ChatDelta, ChatEnding, ChatMessage } from "../providers/chat";
import type { TokenStore } from "../providers/ebay";
import { platformIo } from "../providers/io";
import { openChatStream } from "../providers/openrouter";
import { runTool } from "../tools/executors";
import { gmailPush } from "./deliveries";
import { WHATSAPP_DELIVERIES } from "./fixtures/whatsapp";
import { startSimulators, type Simulators } from "./index";
import { list, record, text } from "./json";

let sim: Simulators;
let io: CallIo;
let admitted = 0;
const env = (name: string): string => sim.env[name] ?? "";

const gate: Gate = {
  admit: async (provider) => {
    admitted += 1;
    return { ok: true, permit: provider };
  },
  mayRetry: async () => true,
  settle: async () => undefined,
};
const tokens: TokenStore = { load: async () => null, store: async () => undefined };

beforeAll(async () => {
  sim = await startSimulators();
  io = { ...platformIo, env: sim.env };
});
afterAll(() => sim.close());
beforeEach(async () => {
  admitted = 0;
  await fetch(`${sim.url}/control/reset`, { method: "POST" });
});

async function control(path: string, body: object) {
  const response = await fetch(`${sim.url}/control/${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  return record(await response.json());
}

const TOTAL_MS = 20_000;

describe("chat", () => {
  async function ask(prompt: string, signal?: AbortSignal) {
    const messages: ChatMessage[] = [{ role: "user", content: prompt }];
    // The time for a slow answer is over once it has begun, however long that takes on this machine.
    const begun = new AbortController();
    const sleep = async (delayMs: number, over?: AbortSignal): Promise<void> => {
      const isTotal = delayMs === TOTAL_MS && prompt.includes("[[slow:");
      const ends = [begun.signal, ...(over === undefined ? [] : [over])];
      await io.sleep(delayMs, isTotal ? AbortSignal.any(ends) : over);
    };
    const stream = openChatStream(
      {
        baseUrl: env("OPENROUTER_BASE_URL"),
        apiKey: env("OPENROUTER_API_KEY"),
        model: "a/b",
        messages,
      },
      {
        firstByteTimeoutMs: 10_000,
        idleTimeoutMs: prompt.includes("[[hang]]") ? 100 : 10_000,
        totalTimeoutMs: TOTAL_MS,
        io: { ...io, sleep },
        ...(signal === undefined ? {} : { signal }),
      },
    );
    const deltas: ChatDelta[] = [];
    let step = await stream.next();
    while (step.done !== true) {
      deltas.push(step.value);
      begun.abort();
      step = await stream.next();
    }
    return { deltas, ending: step.value satisfies ChatEnding };
  }

  test.each([
    ["hello", "completed"],
    ["[[finish:length]] hello", "length"],
    ["[[finish:content_filter]] hello", "content_filter"],
    ["[[error:inband]] hello", "error_in_band"],
    ["[[error:bare]] hello", "error_in_band"],
    ["[[eof]] hello", "eof_without_finish_reason"],
    ["[[cut]] hello", "eof_without_finish_reason"],
    ["[[hang]] hello", "idle_timeout"],
    ["[[slow:40]] hello", "total_timeout"],
    ["[[badjson]] hello", "invalid_json_chunk"],
    ["[[empty]] hello", "empty_success"],
  ])("%s ends as %s", async (prompt, kind) => {
    const { ending } = await ask(prompt);
    expect(ending.kind).toBe(kind);
    if (kind === "completed")
      expect(ending.usage).toMatchObject({ totalTokens: expect.any(Number) as number });
  });

  test.each([
    ["400", "upstream_bad_request"],
    ["401", "upstream_auth"],
    ["402", "upstream_quota_exceeded"],
    ["403", "upstream_auth"],
    ["408", "upstream_timeout"],
    ["429", "upstream_rate_limited"],
    ["502", "upstream_unavailable"],
    ["503", "upstream_unavailable"],
    ["inband:429", "upstream_rate_limited"],
    ["inband:server_error", "upstream_unavailable"],
  ])("error %s is %s", async (error, code) => {
    const asked = ask(`[[error:${error}]]`).then(
      ({ ending }) => ending.code,
      (thrown: unknown) => errorData(thrown).code,
    );
    expect(await asked).toBe(code);
  });

  test("every size of tear gives the same text", async () => {
    const textOf = ({ deltas }: { deltas: ChatDelta[] }) =>
      deltas.map((delta) => (delta.kind === "text" ? delta.text : "")).join("");
    for (const size of [1, 3]) {
      const torn = textOf(await ask(`[[words:12]][[split:${size}]]`));
      expect(torn.split(" ")).toHaveLength(12);
      expect(torn).not.toContain("\uFFFD");
    }
  });
});

describe("tools", () => {
  const deps = () => ({ gate, io, tokens });
  const PRODUCT = {
    query: "lamp",
    limit: 10,
    categoryId: null,
    categoryName: null,
    minPrice: 20,
    maxPrice: 300,
    condition: "new",
    shipping: "free",
    sellerRating: 95,
    location: "US",
    marketplaceId: null,
  } as const;

  test("search_web, search_products and search_global find something", async () => {
    const web = await runTool("search_web", { query: "ballast", limit: 4 }, deps());
    expect(web).toMatchObject({ kind: "complete", missing: [] });
    expect(list(record(JSON.parse(web.value))["results"])).toHaveLength(4);
    const products = await runTool("search_products", PRODUCT, deps());
    expect(products).toMatchObject({ kind: "complete", missing: [] });
    expect(products.value).toContain('"source":"eBay"');
    const global = { query: "lamp", limit: 5, country: "US", minPrice: null, maxPrice: null };
    expect(await runTool("search_global", global, deps())).toMatchObject({ kind: "complete" });
    expect(admitted).toBeGreaterThanOrEqual(4);
  });

  test("nothing found is empty, a source that fails is named, a wrong key is upstream_auth", async () => {
    expect(await runTool("search_web", { query: "[[none]]", limit: 4 }, deps())).toMatchObject({
      kind: "empty",
    });
    expect(
      await runTool("search_products", { ...PRODUCT, query: "[[none]]" }, deps()),
    ).toMatchObject({ kind: "empty" });
    await control("fault", { provider: "ebay", status: 400 });
    expect(await runTool("search_products", PRODUCT, deps())).toMatchObject({
      kind: "partial",
      missing: ["ebay_search"],
    });
    const wrong = { ...deps(), io: { ...io, env: { ...sim.env, SERPER_API_KEY: "wrong" } } };
    const refused = runTool("search_web", { query: "x", limit: 1 }, wrong).catch(
      (error: unknown) => errorData(error).code,
    );
    expect(await refused).toBe("upstream_auth");
  });
});

describe("webhooks", () => {
  test.each(Object.entries(WHATSAPP_DELIVERIES))(
    "the channel reads a WhatsApp %s",
    async (name, fixture) => {
      const { events, ignored } = await readDelivery(fixture, 0);
      expect(events.length).toBeGreaterThan(0);
      expect(ignored).toBe(name === "batch" ? 1 : 0);
      for (const event of events) expect(event.messageId).toMatch(/^wamid\./);
    },
  );

  test("a Gmail push is read, and its token verified against the simulator's keys", async () => {
    const nowMs = Date.now();
    const keys = await fetchGoogleKeys(gate, io);
    const rules = {
      audience: env("GMAIL_PUSH_AUDIENCE"),
      serviceAccount: env("GMAIL_PUSH_SERVICE_ACCOUNT"),
    };
    const source = {
      read: async () => ({ ...keys, fetchedAtMs: nowMs, attemptedAtMs: nowMs }),
      beginRefresh: async () => false,
      fetch: async () => keys,
      save: async () => undefined,
      sleep: async () => undefined,
    };
    const verify = async (overrides: object) => {
      const token = text((await control("google/push-token", overrides))["token"]);
      await verifyGoogleToken({ token, rules, keys: source, nowMs });
      return token;
    };
    const token = await verify({});
    for (const overrides of [
      { audience: "x" },
      { foreignKey: true },
      { algorithm: "none" },
      { emailVerified: "true" },
      { email: "x@y.example" },
    ])
      await expect(verify(overrides)).rejects.toThrow();
    const { body } = gmailPush({ email: "Ada@example.com", historyId: "12345", token, nowMs });
    expect(readNotification(JSON.parse(body))).toEqual({
      emailAddress: "ada@example.com",
      historyId: "12345",
    });
  });
});
