import { expect, test } from "vitest";
import { NOT_RUN } from "../../src/channels/chat/callEvents";
import { encodeFrame, frameData, KEEP_ALIVE } from "../../src/channels/chat/events";
import { eventStream } from "../../src/channels/chat/sse";
import { record } from "../../src/sim/json";
import { historyFault } from "../../src/sim/strictHistory";
import {
  answer,
  call,
  Conversation,
  delta,
  DONE,
  finish,
  frame,
  part,
  type Stream,
  shownFault,
  text,
  type TurnSeen,
} from "../edge/conversation";

const fn = (name: string, args: unknown) => ({ function: { name, arguments: args } });
const calling = (...parts: string[]): Stream => [...parts, finish("tool_calls"), DONE];

/** One turn, whose requests and whose next turn's are all taken by a strict provider. */
async function turnOf(...streams: readonly Stream[]): Promise<TurnSeen & { talk: Conversation }> {
  const talk = new Conversation();
  const seen = await talk.turn("question", [...streams, answer("Done.")]);
  expectSound(talk, seen);
  return { ...seen, talk };
}

function expectSound(talk: Conversation, { events, requests }: TurnSeen): void {
  for (const messages of [...requests, talk.next()])
    expect(historyFault(messages.map(record))).toBeNull();
  expect(shownFault(events, new Set())).toBeNull();
}

const ran = ({ ran: calls }: TurnSeen) => calls.map(({ arguments: args, name }) => [name, args]);

/** What the provider is sent of the calls of an answer: the message itself, and the results. */
function sentBack({ requests }: TurnSeen, round = 1) {
  const messages = (requests[round] ?? []).slice(requests[round - 1]?.length);
  const [asked, ...results] = messages;
  return { asked: record(asked), results: results.map(record) };
}

// Source: NousResearch/hermes-agent#62940, dyedd/lens#49
test("hermes-agent#62940, lens#49: parallel calls that all have index 0 are calls of their own", async () => {
  const seen = await turnOf(
    calling(
      part({ index: 0, id: "call_a", ...fn("search_web", '{"query":"x"}') }),
      part({ index: 0, id: "call_b", ...fn("search_products", '{"query":"y"}') }),
    ),
  );
  expect(ran(seen)).toMatchObject([
    ["search_web", { query: "x" }],
    ["search_products", { query: "y" }],
  ]);
  const { asked, results } = sentBack(seen);
  expect(asked["tool_calls"]).toMatchObject([{ id: "call_a" }, { id: "call_b" }]);
  expect(results).toMatchObject([{ tool_call_id: "call_a" }, { tool_call_id: "call_b" }]);
  // One without a name of its own is refused, and the model is told.
  const merged = await turnOf(
    calling(
      part({ index: 0, id: "call_a", ...fn("search_web", '{"query":"x"}') }),
      part({ index: 0, function: { arguments: '{"query":"y"}' } }),
    ),
  );
  expect(ran(merged)).toEqual([["search_web", { query: "x" }]]);
  expect(sentBack(merged).results.at(-1)).toMatchObject({
    content: "There is no tool of this name.",
  });
});

// Source: can1357/oh-my-pi#2055, QwenLM/qwen-code#8382
test("oh-my-pi#2055, qwen-code#8382: calls with one id, or with ids that begin anew, are each answered once", async () => {
  const twice = await turnOf(
    calling(
      call(0, "call_x", "search_web", '{"query":"x"}'),
      call(1, "call_x", "search_web", '{"query":"y"}'),
    ),
  );
  expect(sentBack(twice).results.map(({ content }) => content)).toMatchObject([
    expect.stringContaining('"x"'),
    expect.stringContaining('"y"'),
  ]);
  const restarted = await turnOf(
    calling(call(0, "tool:0", "search_web", '{"query":"x"}')),
    calling(call(0, "tool:0", "search_products", '{"query":"y"}')),
  );
  expect(restarted.ran.map(({ name }) => name)).toEqual(["search_web", "search_products"]);
  const absent = await turnOf(
    calling(
      part({ index: 0, ...fn("search_web", '{"query":"x"}') }),
      part({ index: 1, id: "", ...fn("search_products", '{"query":"y"}') }),
    ),
  );
  expect(absent.ran).toHaveLength(2);
});

// Source: NousResearch/hermes-agent#102629
test("hermes-agent#102629: an id that comes again in a later turn leaves the thread usable", async () => {
  const talk = new Conversation();
  const shown = new Set<string>();
  for (const query of ["x", "y", "z"]) {
    const seen = await talk.turn(query, [
      calling(call(0, "tool:0", "search_web", JSON.stringify({ query }))),
      answer("Done."),
    ]);
    expectSound(talk, seen);
    expect(shownFault(seen.events, shown)).toBeNull();
  }
  const results = talk.next().flatMap((one) => (one.role === "tool" ? [one.content] : []));
  expect(results.map((one) => (JSON.parse(one) as { with: object }).with)).toEqual([
    { query: "x" },
    { query: "y" },
    { query: "z" },
  ]);
  // Of a thread that is longer than what was read, no id is trusted to be new.
  const late = await talk.turn("again", [calling(call(0, "fresh", "search_web", "{}"))], {
    isWhole: false,
  });
  expect(JSON.stringify(late.events)).not.toContain("fresh");
});

// Source: MoonshotAI/kimi-cli#1171, petersalomonsen/javascriptmusic#208
test("kimi-cli#1171, javascriptmusic#208: arguments that are no JSON do not end the thread", async () => {
  const broken = ['{"timeZone":"UT', "", "null", "[1]", '{"a":1}{"b":2}', '{"q":"\\ud83e"}'];
  for (const args of broken) {
    const seen = await turnOf(calling(call(0, "call_a", "get_current_time", args)));
    const { asked, results } = sentBack(seen);
    const [sent] = asked["tool_calls"] as { function: { arguments: string } }[];
    expect(JSON.parse(sent?.function.arguments ?? "")).toEqual(
      args.includes("ud83e") ? { q: "\ufffd" } : {},
    );
    expect(results).toHaveLength(1);
    // The text itself is kept for display, and is sent to no provider.
    expect(seen.result.toolCalls).toMatchObject([{ arguments: args }]);
    expect(seen.result.status).toBe("completed");
  }
  const cut = await turnOf(calling(call(0, "call_a", "get_current_time", '{"timeZone":"UT')));
  expect(cut.ran).toEqual([]);
});

// Source: Zoo-Code-Org/Zoo-Code#695, jjang-ai/vmlx#244, can1357/oh-my-pi#4417
test("Zoo-Code#695, vmlx#244, oh-my-pi#4417: the parts of a call may come in any order and form", async () => {
  const inPieces = calling(
    part({ index: 0, function: { arguments: '{"query":' } }),
    part({ index: 0, function: { name: "search_" } }),
    part({ index: 0, function: { arguments: '"x"}' } }),
    part({ index: 0, function: { name: "products" } }),
    part({ index: 0, id: "call_a" }),
  );
  const asObject = calling(
    part({ index: 0, id: "call_a", ...fn("search_products", { query: "x" }) }),
  );
  const unnamedFirst = calling(
    part({ index: 0, id: "call_a", ...fn("", "") }),
    part({ index: 0, id: "call_a", ...fn("search_products", '{"query":"x"}') }),
  );
  for (const stream of [inPieces, asObject, unnamedFirst])
    expect(ran(await turnOf(stream))).toEqual([["search_products", { query: "x" }]]);
  const batched = delta({
    tool_calls: [fn("search_web", '{"query":"x"}'), fn("search_web", '{"query":"y"}')],
  });
  expect(ran(await turnOf(calling(batched)))).toMatchObject([
    ["search_web", { query: "x" }],
    ["search_web", { query: "y" }],
  ]);
});

// Source: google-ai-edge/gallery#1018, openai/openai-agents-python#3115
test("gallery#1018, openai-agents-python#3115: a tool that the turn does not offer does not run", async () => {
  const talk = new Conversation();
  const streams = [calling(call(0, "a", "search_web", '{"query":"x"}')), answer("Sorry.")];
  const seen = await talk.turn("question", streams, { webSearch: false });
  expectSound(talk, seen);
  expect(seen.ran).toEqual([]);
  expect(sentBack(seen).results).toMatchObject([{ content: "There is no tool of this name." }]);
});

// Source: LibreChat-AI/agents#37, RooCodeInc/Roo-Code#10307
test("LibreChat agents#37, Roo-Code#10307: what a provider wants back comes back, within its turn only", async () => {
  const details = [
    { type: "reasoning.encrypted", data: "b3BhcXVl", id: "call_a", format: "google-gemini-v1" },
  ];
  const signed = { extra_content: { google: { thought_signature: "c2ln" } } };
  const seen = await turnOf(
    calling(
      delta({ reasoning_details: details }),
      part({ index: 0, id: "call_a", ...fn("search_web", '{"query":"x"}'), ...signed }),
    ),
    calling(call(0, "call_b", "search_web", '{"query":"y"}')),
  );
  const { asked } = sentBack(seen);
  expect(asked["reasoning_details"]).toEqual(details);
  expect(asked["tool_calls"]).toMatchObject([signed]);
  // Each answer has its own; the second had none.
  expect(sentBack(seen, 2).asked).not.toHaveProperty("reasoning_details");
  const kept = JSON.stringify([seen.result, seen.events, seen.talk.history, seen.talk.next()]);
  expect(kept).not.toMatch(/b3BhcXVl|c2ln/);
  // State that names a call by an id which had to be replaced names it by the new one.
  const again = await turnOf(
    calling(call(0, "call_a", "search_web", '{"query":"x"}')),
    calling(
      delta({ reasoning_details: details }),
      call(0, "call_a", "search_web", '{"query":"y"}'),
    ),
  );
  const second = sentBack(again, 2).asked;
  const [renamed] = second["tool_calls"] as { id: string }[];
  expect(second["reasoning_details"]).toEqual([{ ...details[0], id: renamed?.id }]);
  // Text that came in pieces is one text again, with the signature that covers it.
  const pieces = [
    { type: "reasoning.text", text: "One ", index: 0 },
    { type: "reasoning.text", text: "two.", index: 0 },
    { type: "reasoning.text", text: "", signature: "c2ln", index: 0 },
  ].map((detail) => delta({ reasoning_details: [detail] }));
  const thought = await turnOf(calling(...pieces, call(0, "a", "search_web", '{"query":"x"}')));
  expect(sentBack(thought).asked["reasoning_details"]).toEqual([
    { type: "reasoning.text", text: "One two.", signature: "c2ln", index: 0 },
  ]);
});

// Source: OpenRouterTeam/ai-sdk-provider#423, BerriAI/litellm#16895
test("ai-sdk-provider#423, litellm#16895: a signature goes back with its text, or within its id", async () => {
  const reasoning = (fields: object) =>
    delta({ reasoning_details: [{ type: "reasoning.text", index: 0, ...fields }] });
  const claude = await turnOf(
    calling(
      reasoning({ text: "Let" }),
      reasoning({ text: " me" }),
      reasoning({ signature: "c2ln" }),
      call(0, "a", "search_web", '{"query":"x"}'),
    ),
  );
  expect(sentBack(claude).asked["reasoning_details"]).toEqual([
    { type: "reasoning.text", index: 0, text: "Let me", signature: "c2ln" },
  ]);
  // What is within an id is neither shown nor stored; the call has another one there.
  const long = `call_a__thought__${"c2ln".repeat(200)}`;
  const gemini = await turnOf(calling(call(0, long, "search_web", '{"query":"x"}')));
  expect(sentBack(gemini).asked["tool_calls"]).toMatchObject([{ id: long }]);
  expect(JSON.stringify([gemini.events, gemini.result, gemini.talk.next()])).not.toContain("c2ln");
});

// Source: zed-industries/zed#37021, google-gemini/gemini-cli#11814, anthropics/claude-code#23390
test("zed#37021, gemini-cli#11814, claude-code#23390: no question follows a result, no history begins with calls, no text is blank", async () => {
  const talk = new Conversation();
  const cut = [call(0, "a", "search_web", '{"query":"x"}'), finish("length"), DONE];
  expectSound(talk, await talk.turn("one", [cut]));
  expectSound(talk, await talk.turn("two", [answer("\n\n")]));
  const blank = calling(text(" \n"), call(0, "b", "search_web", '{"query":"x"}'));
  expectSound(talk, await talk.turn("three", [blank, answer("Done.")]));
  // As a history that was cut at its bound, which ends between a question and its answer.
  talk.history.shift();
  const [first] = talk.next();
  expect(first).toEqual({ role: "user", content: "two" });
});

// Source: langchain-ai/langchain-google#1706, HKUDS/nanobot#5783
test("langchain-google#1706, nanobot#5783: what is said beside a call is sent back with it", async () => {
  const seen = await turnOf(
    calling(text("Let me "), text("look."), call(0, "a", "search_web", '{"query":"x"}')),
    calling(text("And more."), call(0, "b", "search_products", '{"query":"x"}')),
  );
  expect(sentBack(seen).asked["content"]).toBe("Let me look.");
  expect(sentBack(seen, 2).asked["content"]).toBe("And more.");
  expect(seen.result.content).toBe("Let me look.And more.Done.");
});

// Source: meilisearch/meilisearch#6327
test("meilisearch#6327: content in parts is the answer, and parts that think are reasoning", async () => {
  const parts = [
    { type: "thinking", thinking: [{ type: "text", text: "hm" }] },
    { type: "reference", reference_ids: [1] },
    { type: "text", text: "Bon" },
  ];
  const seen = await new Conversation().turn("hi", [
    [
      delta({ content: parts }),
      delta({ content: [{ type: "text", text: "jour" }] }),
      finish("stop"),
      DONE,
    ],
  ]);
  expect(seen.result).toMatchObject({ status: "completed", content: "Bonjour", reasoning: "hm" });
  const whole = [frame({ choices: [{ message: { content: "Bonjour" }, finish_reason: "stop" }] })];
  expect((await new Conversation().turn("hi", [whole])).result.content).toBe("Bonjour");
});

// Source: openai/openai-node#2725, google-gemini/gemini-cli#29059, rexxars/eventsource-parser#31
test("openai-node#2725, gemini-cli#29059, eventsource-parser#31: frames without the blank line between or behind them are read", async () => {
  const last = finish("stop").trimEnd();
  for (const stream of [
    [text("Bonjour"), last],
    [text("Bonjour"), `${last}\n`],
    [text("Bonjour"), `${last}\ndata: [DONE]`],
    [`${text("Bon").trimEnd()}\n${text("jour")}`, finish("stop")],
  ])
    expect((await new Conversation().turn("hi", [stream])).result).toMatchObject({
      status: "completed",
      content: "Bonjour",
    });
  // A frame that broke off in the middle still is an answer that broke off.
  const broken = await new Conversation().turn("hi", [
    [text("Bonjour"), 'data: {"choices":[{"del'],
  ]);
  expect(broken.result).toMatchObject({ ending: "eof_without_finish_reason", content: "Bonjour" });
});

// Source: Growth-Circle/cadis#2329
test("cadis#2329: events that only keep the connection alive are no answer, and no fault", async () => {
  const pings = [
    "data:\n\n",
    "data: \n\n",
    "event: ping\ndata: {}\n\n",
    "data: null\n\n",
    "data: ping\n\n",
    "event: ping\n\n",
  ];
  const stream = [
    ...pings,
    text("Bon"),
    ...pings,
    text("jour"),
    ...pings,
    finish("stop"),
    ...pings,
    DONE,
  ];
  const { result } = await new Conversation().turn("hi", [stream]);
  expect(result).toMatchObject({ status: "completed", content: "Bonjour" });
});

// Source: langchain-ai/langchainjs#11494, redpanda-data/ai-sdk-go#116
test("langchainjs#11494, ai-sdk-go#116: a call that is cut by the length does not run, and is ended", async () => {
  const cut = part({ index: 0, id: "a", ...fn("search_web", '{"query":"ti') });
  const seen = await turnOf([text("So: "), cut, finish("length"), DONE]);
  expect(seen.ran).toEqual([]);
  expect(seen.events.at(-1)).toMatchObject({ type: "done", finishReason: "length" });
  const told = seen.events.find(({ type }) => type === "tool-output-partially-available");
  expect(told).toMatchObject({ toolCallId: "a", degraded: true, output: NOT_RUN });
  expect(seen.result).toMatchObject({
    content: "So: ",
    toolCalls: [{ id: "a", arguments: '{"query":"ti' }],
    toolResults: [{ toolCallId: "a" }],
  });
});

// Source: OpenRouter (errors as text)
test("OpenRouter: an error as a text beside `stop` is an error, and half an answer is not done", async () => {
  for (const fields of [
    { error: "Upstream closed" },
    { error: '{"code":429}' },
    { error: true },
    { object: "error", message: "overloaded" },
  ]) {
    const last = frame({ choices: [{ delta: {}, finish_reason: "stop" }], ...fields });
    const { events, result } = await new Conversation().turn("hi", [[text("half"), last, DONE]]);
    expect(result).toMatchObject({ status: "error", ending: "error_in_band", content: "half" });
    expect(events.at(-1)).toMatchObject({ type: "error" });
  }
  // Where the field is always there, its empty form says that there is none.
  for (const none of [null, "", false, 0]) {
    const last = frame({ choices: [{ delta: {}, finish_reason: "stop" }], error: none });
    const { result } = await new Conversation().turn("hi", [[text("all"), last, DONE]]);
    expect(result.status).toBe("completed");
  }
});

// Source: nestjs/nest#5762, mpetrunic/fastify-sse-v2#8
test("nest#5762, fastify-sse-v2#8: no proxy may compress a stream and hold it back", async () => {
  const response = eventStream(async () => undefined);
  expect(response.headers.get("cache-control")).toBe("no-store, no-transform");
  await response.text();
});

// Source: florimondmanca/httpx-sse#34, langgenius/dify#39008
test("httpx-sse#34, dify#39008: no frame holds a character at which a client may end a line", async () => {
  const ends = "\n\r\v\f\u001c\u001d\u001e\u0085\u2028\u2029";
  const content = `a${ends}b`;
  const data = frameData({ type: "content", content });
  expect(encodeFrame(data, 1)).not.toMatch(/[\r\v\f\u001c-\u001e\u0085\u2028\u2029]/);
  expect(encodeFrame(data, 1).split("\n")).toHaveLength(4);
  expect(JSON.parse(data)).toEqual({ type: "content", content });
  // Nor do those that are not text of the answer.
  const seen = await turnOf(
    calling(text(content), call(0, `id${ends}`, "search_web", JSON.stringify({ query: content }))),
    [text(content), finish(`stop${ends}`), DONE],
  );
  expect(seen.result.content).toContain(content);
  for (const sent of seen.sent) expect(sent).not.toMatch(/[\r\v\f\u001c-\u001e\u0085\u2028\u2029]/);
});

// Source: theopenco/llmgateway#2334
test("llmgateway#2334: a sign of life ends no event, so that no client reads an empty one", () => {
  expect(KEEP_ALIVE).toMatch(/^: [^\n]+\n$/);
});
