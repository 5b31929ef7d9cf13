import { expect, test, vi } from "vitest";
import { internal } from "../../convex/_generated/api";
import { CHAT_ENDINGS } from "../../src/providers/chat";
import { callProvider } from "../../src/providers/call";
import { type BodyStep, BREAK, HANG, jsonResponse, virtualIo } from "../../src/providers/testing";
import { backend, START_MS } from "../edge/backend";
import { begin, settle } from "../edge/chat";
import { DONE, ends, error, finish, frame, type Ran, text, turn } from "./chatTurn";

const WHOLE: readonly BodyStep[] = [text("from the other"), finish("stop"), DONE];

/** How a stream fails once words of it were seen. */
const MIDWAY: readonly (readonly BodyStep[])[] = [
  [error(502), DONE],
  [error(429), HANG],
  [finish("error"), DONE],
  [frame({ error: { code: "server_error", message: "m" } })],
  ["data: {half a frame\n\n"],
  [DONE],
  [BREAK],
  [HANG],
];

const midway = (rest: readonly BodyStep[], more = {}): Promise<Ran> =>
  turn([[text("half"), ...rest], WHOLE], more);

// Source: BerriAI/litellm#24005
test("litellm#24005: a stream that fails in the middle is a failure to the caller, the tables and the breaker", async () => {
  const results = [];
  for (const rest of MIDWAY) {
    const ran = await midway(rest);
    expect([rest, ran.result.status, ran.result.outcome]).toEqual([rest, "error", "failure"]);
    results.push(ran.result);
  }
  vi.useFakeTimers();
  vi.setSystemTime(START_MS);
  const t = backend();
  for (const result of results.slice(0, 3)) {
    const { streamId } = await begin(t);
    await settle(t, streamId, { ...result, toolCalls: [], toolResults: [] });
  }
  const [primary] = (await t.query(internal.circuitBreaker.listStatuses, {})).filter(
    ({ provider }) => provider === "openrouter_chat_primary",
  );
  expect(primary).toMatchObject({ callCount: 3, failedCount: 3, failureCount: 3 });
  vi.useRealTimers();
});

// Source: BerriAI/litellm#26015
test("litellm#26015: a 429 in the middle of a stream ends the turn at once, with its own code", async () => {
  const ran = await midway([error(429), HANG]);
  expect(ran.result).toMatchObject({ ending: "error_in_band", errorCode: "upstream_rate_limited" });
  // Nothing was waited for: neither the silence after it nor another attempt.
  expect([ran.asked, ran.result.latencyMs]).toEqual([["primary"], 0]);
});

// Source: BerriAI/litellm#19077
test("litellm#19077: what was seen is not followed by another model's answer, nor is there one where it is not wanted", async () => {
  for (const rest of MIDWAY) {
    const ran = await midway(rest);
    expect([rest, ran.asked, ran.result.content]).toEqual([rest, ["primary"], "half"]);
  }
  const unwanted = await turn([[error(500)], WHOLE], { hasFallback: false });
  expect([unwanted.asked, ends(unwanted)]).toEqual([["primary"], ["error"]]);
});

// Source: BerriAI/litellm#6957, BerriAI/litellm#6532, BerriAI/litellm#28216
test("litellm#6957, #6532, #28216: a stream that fails before its first token is had elsewhere", async () => {
  const before: (readonly BodyStep[] | number)[] = [
    [error("overloaded_error")],
    [error(529)],
    [frame({ type: "error", error: { type: "overloaded_error", message: "Overloaded" } })],
    [finish("error")],
    [": OPENROUTER PROCESSING\n\n", HANG],
    [": OPENROUTER PROCESSING\n\n", BREAK],
    [finish("stop"), DONE],
    401,
  ];
  for (const answer of before) {
    const ran = await turn([answer, WHOLE]);
    expect([answer, ran.asked, ran.result.content]).toEqual([
      answer,
      ["primary", "secondary"],
      "from the other",
    ]);
    expect([ends(ran), ran.result.outcome]).toEqual([["done"], "success"]);
  }
});

// Source: BerriAI/litellm#29808
test("litellm#29808: with retries and no other route, what fails before it is seen is tried again", async () => {
  for (const answer of [503, 429, [BREAK], [error(429)], [": OPENROUTER PROCESSING\n\n", BREAK]]) {
    const ran = await turn([answer, WHOLE], { hasFallback: false, retries: 1 });
    expect([answer, ran.asked, ends(ran)]).toEqual([answer, ["primary", "primary"], ["done"]]);
  }
  for (const rest of MIDWAY) {
    const ran = await midway(rest, { hasFallback: false, retries: 1 });
    expect([rest, ran.asked]).toEqual([rest, ["primary"]]);
  }
});

// Source: Portkey-AI/gateway (jitter)
test("Portkey: callers that failed together do not come back together", async () => {
  const draws = Array.from({ length: 8 }, (_, i) => i / 8);
  const ofChats = [];
  const ofCalls = [];
  for (const draw of draws) {
    const { slept } = await turn([503, WHOLE], { hasFallback: false, retries: 1, draw });
    ofChats.push(slept);
    const { io, run } = virtualIo(async () => jsonResponse({}, { status: 503 }), draw);
    const gate = {
      admit: async () => ({ ok: true as const, permit: 1 }),
      mayRetry: async () => true,
      settle: async () => undefined,
    };
    const call = callProvider(
      gate,
      { provider: "serper_search", method: "GET", path: "/", parse: ({ json }) => json },
      { ...io, env: { SERPER_API_KEY: "key-of-the-test" } },
    );
    await run(call.catch(() => undefined));
    ofCalls.push(io.slept);
  }
  // From none to the whole of it, each where chance put it.
  for (const waits of [ofChats, ofCalls]) {
    const first = waits.map(([wait = -1]) => wait);
    expect([first[0], new Set(first).size]).toEqual([0, draws.length]);
  }
});

// Source: OpenRouter (errors in band)
test("OpenRouter: an error that comes in band, under status 200, is no answer", async () => {
  // As documented: a chunk with the error at its top and a finish reason of "error".
  const documented = frame({
    id: "gen-1",
    object: "chat.completion.chunk",
    provider: "p",
    error: { code: 502, message: "Provider disconnected" },
    choices: [{ index: 0, delta: { content: "" }, finish_reason: "error" }],
  });
  const ran = await midway([documented]);
  expect(ran.result).toMatchObject({ ending: "error_in_band", errorCode: "upstream_unavailable" });
  expect([ends(ran), JSON.stringify(ran.events).includes("disconnected")]).toEqual([
    ["error"],
    false,
  ]);
});

// Source: W2-32
test("the original ended a stream that its provider broke off with no event at all", async () => {
  for (const rest of MIDWAY) expect(ends(await midway(rest))).toEqual(["error"]);
  expect(ends(await turn([[text("all"), finish("stop"), DONE]]))).toEqual(["done"]);
  expect(ends(await turn([500, 500, 500, 500, 500, 500]))).toEqual(["error"]);
  expect(Object.keys(CHAT_ENDINGS)).toHaveLength(11);
});

// Source: W2-47
test("the original rewrote a growing message 33 times a second", async () => {
  const words = Array.from({ length: 300 }, (_, i) => `word${i} `);
  const steps = words.flatMap((word): BodyStep[] => [text(word), { waitMs: 30 }]);
  const { result, stores } = await turn([[...steps, finish("stop"), DONE]]);
  expect(result.content).toBe(words.join(""));
  // Nine seconds of words: each is stored once, a few together, and less and less often.
  expect(stores.length).toBeLessThanOrEqual(12);
  const stored = stores.flat().map((data) => JSON.parse(data) as { content?: string });
  expect(stored.map(({ content = "" }) => content).join("")).toBe(result.content);
});
