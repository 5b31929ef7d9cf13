// @vitest-environment node
// Our side of each wire format against the simulators' side, over real connections: two readings
// of the same documents have to agree.
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { errorData } from "../errors/appError";
import { type Simulators, startSimulators } from "../sim";
import { parseToolArgs, toolDefinitions } from "../tools/definitions";
import { runTool } from "../tools/executors";
import type { ToolDeps } from "../tools/result";
import type { ToolId } from "../tools/table";
import type { Gate } from "./call";
import type { ChatEnding } from "./chat";
import { openChatRoute } from "./chatRoute";
import { platformIo } from "./io";
import type { Outcome } from "./outcome";

// Real connections on a machine that may be busy.
vi.setConfig({ testTimeout: 60_000 });

let simulators: Simulators;

beforeAll(async () => {
  simulators = await startSimulators();
});
afterAll(async () => {
  await simulators.close();
});
beforeEach(async () => {
  await control("reset", {});
});

async function control(path: string, body: object): Promise<void> {
  const answer = await fetch(`${simulators.url}/control/${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  expect(answer.status).toBe(200);
}

const IDLE_MS = 30_000;

async function chat(prompt: string, webSearch = false, user = new AbortController()) {
  const env = { ...simulators.env, CHAT_STREAM_IDLE_TIMEOUT_MS: String(IDLE_MS) };
  // Silence passes here at once where it is what is asked for; elsewhere a busy machine may make some.
  const idleMs = prompt.includes("[[hang]]") ? 100 : IDLE_MS;
  const sleep = async (delayMs: number, signal?: AbortSignal) => {
    await platformIo.sleep(delayMs === IDLE_MS ? idleMs : delayMs, signal);
  };
  const stream = openChatRoute(
    {
      provider: "openrouter_chat_primary",
      model: "ballast/test-1",
      messages: [{ role: "user", content: prompt }],
      tools: toolDefinitions({ webSearch }),
      signal: user.signal,
    },
    { env, io: { ...platformIo, sleep }, mayRetry: async () => true },
  );
  let text = "";
  for (;;) {
    const step = await stream.next();
    if (step.done === true) return { text, ending: step.value };
    if (step.value.kind === "text") text += step.value.text;
    if (step.value.kind === "text" && prompt.includes("abort me")) user.abort();
  }
}

describe("OpenRouter", () => {
  test.each<[string, ChatEnding["kind"]]>([
    ["hello", "completed"],
    ["hello [[words:5]] [[split:64]] [[reason]]", "completed"],
    ["hello [[finish:length]]", "length"],
    ["hello [[finish:content_filter]]", "content_filter"],
    ['[[tool:search_global {"query":"tea é 茶"}]]', "tool_calls"],
    ["hello [[error:inband]]", "error_in_band"],
    ["hello [[error:inband:429]]", "error_in_band"],
    ["hello [[error:bare]]", "error_in_band"],
    ["hello [[eof]]", "eof_without_finish_reason"],
    ["hello [[cut]]", "eof_without_finish_reason"],
    ["hello [[hang]]", "idle_timeout"],
    ["hello [[badjson]]", "invalid_json_chunk"],
    ["hello [[empty]]", "empty_success"],
    ["abort me [[words:400]] [[slow:5]]", "client_abort"],
  ])("%s ends as %s", async (prompt, kind) => {
    const { ending } = await chat(prompt);
    expect(ending.kind).toBe(kind);
  });

  test("usage comes with a whole answer", async () => {
    const { ending, text } = await chat("hello [[words:20]]");
    expect(text.length).toBeGreaterThan(20);
    expect(ending.usage?.totalTokens).toBeGreaterThan(0);
    expect(ending.usage?.cost).toBeGreaterThan(0);
  });

  test("the arguments of a call arrive whole", async () => {
    const { ending } = await chat('[[split:33]] [[tool:search_global {"query":"tea é 茶"}]]');
    expect(ending.toolCalls).toMatchObject([
      { name: "search_global", arguments: { query: "tea é 茶" } },
    ]);
  });

  test("with web search the model is offered it and calls it", async () => {
    const { ending } = await chat("hello", true);
    expect(ending.toolCalls).toMatchObject([{ name: "search_web", arguments: { query: "hello" } }]);
  });

  test.each([
    [400, "upstream_bad_request"],
    [401, "upstream_auth"],
    [402, "upstream_quota_exceeded"],
    [403, "upstream_auth"],
    [408, "upstream_timeout"],
    [429, "upstream_rate_limited"],
    [502, "upstream_unavailable"],
    [503, "upstream_unavailable"],
  ])("status %i before the first byte is %s", async (status, code) => {
    const error = await chat(`hello [[error:${status}]]`).catch((caught: unknown) => caught);
    expect(errorData(error).code).toBe(code);
  });

  test("a connection that is dropped before any answer is unavailable", async () => {
    await control("fault", { provider: "openrouter", disconnect: true });
    const error = await chat("hello").catch((caught: unknown) => caught);
    expect(errorData(error).code).toBe("upstream_unavailable");
  });
});

describe("the searches", () => {
  const outcomes: Outcome[] = [];
  const gate: Gate = {
    admit: async () => ({ ok: true, permit: 1 }),
    mayRetry: async () => true,
    settle: async (_, outcome) => {
      outcomes.push(outcome);
    },
  };

  async function search(id: ToolId, raw: object) {
    outcomes.length = 0;
    const deps: ToolDeps = {
      gate,
      io: { ...platformIo, random: () => 0, env: simulators.env },
      tokens: { load: async () => null, store: async () => undefined },
    };
    const parsed = parseToolArgs(id, raw);
    if (!parsed.ok) throw new Error(parsed.problem);
    const result = await runTool(id, parsed.args, deps);
    const { results } = JSON.parse(result.value) as { results: Record<string, unknown>[] };
    return { ...result, results };
  }

  test.each<[ToolId, number]>([
    ["search_web", 5],
    ["search_products", 5],
    ["search_global", 5],
  ])("%s finds as many as wanted", async (id, limit) => {
    const { kind, results } = await search(id, { query: "teak chair", limit });
    expect([kind, results.length]).toEqual(["complete", limit]);
    for (const result of results) {
      expect(typeof result["title"]).toBe("string");
      expect(result["link"]).toMatch(/^https:\/\//);
    }
  });

  test.each<ToolId>(["search_web", "search_products", "search_global"])(
    "%s says when there is nothing",
    async (id) => {
      expect((await search(id, { query: "[[none]]" })).kind).toBe("empty");
    },
  );

  test("product filters are understood", async () => {
    const { results } = await search("search_products", {
      query: "chair",
      minPrice: 100,
      maxPrice: 20,
      condition: "used",
      shipping: "free",
      location: "US",
      sellerRating: 97,
    });
    for (const { price } of results) {
      expect(price).toBeGreaterThanOrEqual(20);
      expect(price).toBeLessThanOrEqual(100);
    }
    const ebay = results.filter((result) => result["source"] === "eBay");
    for (const { shipping } of ebay) expect(shipping).toBe("free");
  });

  test("a source that is down makes a product search partial", async () => {
    await control("fault", { provider: "ebay", status: 500 });
    const { kind, missing } = await search("search_products", { query: "chair" });
    expect([kind, missing]).toEqual(["partial", ["ebay_search"]]);
    expect(outcomes).toMatchObject([{ kind: "success" }, { kind: "failure", attempts: 3 }]);
  });

  test("a fault that passes is overcome by a retry", async () => {
    await control("fault", { provider: "serper", status: 500, times: 2 });
    expect((await search("search_web", { query: "tides" })).kind).toBe("complete");
    expect(outcomes).toMatchObject([{ kind: "success", attempts: 3 }]);
  });
});
