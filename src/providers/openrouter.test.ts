import * as fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { errorData } from "../errors/appError";
import { CHAT_ENDINGS, type ChatDelta, type ChatEnding } from "./chat";
import { FRAME_CHARS_MAX } from "./chatFrames";
import { type ChatLimits, type ChatParams, openChatStream, STREAM_BYTES_MAX } from "./openrouter";
import { BREAK, type BodyStep, type FetchScript, HANG, scriptedBody, virtualIo } from "./testing";
import { TOOL_ARGUMENTS_CHARS_MAX, TOOL_CALLS_MAX } from "./toolCallParts";

// Frames in the shape of https://openrouter.ai/docs/api/reference/streaming and, for errors in
// band, https://openrouter.ai/docs/api/reference/errors-and-debugging; the values are our own.
const chunk = (fields: Record<string, unknown>) => ({
  id: "gen-1800000000-a1B2c3",
  provider: "Ballast",
  model: "ballast/test-1",
  object: "chat.completion.chunk",
  created: 1_800_000_000,
  ...fields,
});
const delta = (value: Record<string, unknown>, finish: string | null = null) =>
  chunk({
    choices: [{ index: 0, delta: value, finish_reason: finish, native_finish_reason: finish }],
  });
const text = (content: string) => delta({ role: "assistant", content });
const finish = (reason: string) => delta({ role: "assistant", content: "" }, reason);
const toolCall = (index: number, fields: Record<string, unknown>) =>
  delta({ role: "assistant", content: null, tool_calls: [{ index, type: "function", ...fields }] });
const USAGE = chunk({
  choices: [],
  usage: {
    prompt_tokens: 21,
    completion_tokens: 9,
    total_tokens: 30,
    prompt_tokens_details: { cached_tokens: 4 },
    completion_tokens_details: { reasoning_tokens: 3 },
    cost: 0.00042,
  },
});
const ERROR_IN_BAND = chunk({
  error: { code: 502, message: "Upstream said a secret word" },
  choices: [{ index: 0, delta: { content: "" }, finish_reason: "error" }],
});

const frame = (value: unknown, end = "\n\n") => `data: ${JSON.stringify(value)}${end}`;
const DONE = "data: [DONE]\n\n";
const HELLO = [frame(text("Hello, ")), frame(text("wörld 🌍"))];

const PARAMS: ChatParams = {
  baseUrl: "https://openrouter.example/api/v1",
  apiKey: "key-of-the-test",
  model: "ballast/test-1",
  messages: [{ role: "user", content: "hi" }],
};
const LIMITS = { firstByteTimeoutMs: 45_000, idleTimeoutMs: 30_000, totalTimeoutMs: 300_000 };

interface Heard {
  readonly deltas: ChatDelta[];
  readonly ending: ChatEnding;
}

async function listen(stream: AsyncGenerator<ChatDelta, ChatEnding>): Promise<Heard> {
  const deltas: ChatDelta[] = [];
  for (;;) {
    const step = await stream.next();
    if (step.done === true) return { deltas, ending: step.value };
    deltas.push(step.value);
  }
}

function streamOf(steps: readonly BodyStep[]) {
  const state: { cancelled: () => boolean; signal: AbortSignal | null } = {
    cancelled: () => false,
    signal: null,
  };
  const virtual = virtualIo(async (_call, init, io) => {
    const body = scriptedBody(steps, io);
    state.cancelled = body.wasCancelled;
    state.signal = init.signal ?? null;
    return new Response(body.stream, { headers: { "content-type": "text/event-stream" } });
  });
  return { ...virtual, state };
}

async function hear(
  steps: readonly BodyStep[],
  limits: Partial<ChatLimits> = {},
): Promise<Heard & { closed: boolean; timersLeft: number }> {
  const { io, pendingTimers, run, state } = streamOf(steps);
  const heard = await run(listen(openChatStream(PARAMS, { ...LIMITS, ...limits, io })));
  return { ...heard, closed: state.signal?.aborted ?? false, timersLeft: pendingTimers() };
}

const textOf = (deltas: readonly ChatDelta[]) =>
  deltas.map((part) => (part.kind === "text" ? part.text : "")).join("");

describe("the eleven endings", () => {
  const CASES: [string, BodyStep[], Partial<ChatEnding>][] = [
    ["completed", [...HELLO, frame(finish("stop")), frame(USAGE), DONE], { finishReason: "stop" }],
    ["length", [...HELLO, frame(finish("length")), DONE], { finishReason: "length" }],
    ["content_filter", [frame(finish("content_filter")), DONE], { visible: false }],
    [
      "tool_calls",
      [
        frame(toolCall(0, { id: "call_1", function: { name: "search_web", arguments: "" } })),
        frame(toolCall(0, { function: { arguments: '{"query":' } })),
        frame(toolCall(0, { function: { arguments: '"tides"}' } })),
        frame(finish("tool_calls")),
        DONE,
      ],
      { visible: true },
    ],
    ["error_in_band", [...HELLO, frame(ERROR_IN_BAND)], { code: "upstream_unavailable" }],
    ["eof_without_finish_reason", HELLO, { code: "upstream_error", visible: true }],
    ["idle_timeout", [...HELLO, HANG], { code: "upstream_timeout" }],
    [
      "total_timeout",
      [
        ...HELLO,
        ...Array.from({ length: 30 }, () => [
          { waitMs: 20_000 },
          ": OPENROUTER PROCESSING\n\n",
        ]).flat(),
      ],
      { code: "upstream_timeout" },
    ],
    ["invalid_json_chunk", [...HELLO, 'data: {"choices": [\n\n'], { code: "upstream_error" }],
    ["empty_success", [frame(finish("stop")), DONE], { code: "upstream_error", visible: false }],
  ];
  test.each(CASES)("%s", async (kind, steps, fields) => {
    const { closed, ending, timersLeft } = await hear(steps);
    expect(ending).toMatchObject({ kind, ...fields });
    expect(closed).toBe(true);
    expect(timersLeft).toBe(0);
  });

  test("client_abort, in the middle of a silence", async () => {
    const user = new AbortController();
    const abort = () => {
      user.abort();
    };
    const { closed, deltas, ending } = await hear([...HELLO, { waitMs: 2_000 }, abort, HANG], {
      signal: user.signal,
    });
    expect(ending).toMatchObject({ kind: "client_abort", code: null, outcome: "neutral" });
    expect(ending.latencyMs).toBe(2_000);
    expect(textOf(deltas)).toBe("Hello, wörld 🌍");
    expect(closed).toBe(true);
  });

  test("every kind of the table is provoked above", () => {
    const provoked = [...CASES.map(([kind]) => kind), "client_abort"].sort();
    expect(provoked).toEqual(Object.keys(CHAT_ENDINGS).sort());
  });

  test("only whole answers count as success", async () => {
    for (const [kind, steps] of CASES) {
      const { ending } = await hear(steps);
      const whole = ["completed", "length", "content_filter", "tool_calls"].includes(kind);
      expect([kind, ending.outcome]).toEqual([kind, whole ? "success" : "failure"]);
      expect([kind, ending.code === null]).toEqual([kind, whole]);
    }
  });
});

describe("what surrounds an ending", () => {
  test("usage is reported and kept", async () => {
    const { deltas, ending } = await hear([...HELLO, frame(finish("stop")), frame(USAGE), DONE]);
    const usage = {
      promptTokens: 21,
      completionTokens: 9,
      totalTokens: 30,
      cachedTokens: 4,
      reasoningTokens: 3,
      cost: 0.00042,
    };
    expect(ending.usage).toEqual(usage);
    expect(deltas.at(-1)).toEqual({ kind: "usage", usage });
    expect(ending.model).toBe("ballast/test-1");
  });

  test("reasoning alone is no answer", async () => {
    const { deltas, ending } = await hear([
      frame(delta({ content: "", reasoning: "hm" })),
      frame(finish("stop")),
      DONE,
    ]);
    expect(deltas).toEqual([{ kind: "reasoning", text: "hm" }]);
    expect(ending).toMatchObject({ kind: "empty_success", visible: false });
  });

  test("two tool calls, interleaved, are told apart and parsed when whole", async () => {
    const { deltas, ending } = await hear([
      frame(toolCall(0, { id: "a", function: { name: "search_web", arguments: '{"query":"x"' } })),
      frame(toolCall(1, { id: "b", function: { name: "get_current_time", arguments: "" } })),
      frame(toolCall(0, { function: { arguments: "}" } })),
      frame(finish("tool_calls")),
      DONE,
    ]);
    expect(ending.toolCalls).toEqual([
      {
        index: 0,
        id: "a",
        name: "search_web",
        argumentsText: '{"query":"x"}',
        arguments: { query: "x" },
      },
      { index: 1, id: "b", name: "get_current_time", argumentsText: "", arguments: {} },
    ]);
    expect(deltas.map((part) => part.kind)).toEqual([
      "tool_call_start",
      "tool_call_delta",
      "tool_call_start",
      "tool_call_delta",
    ]);
  });

  test("arguments that are no JSON object are handed on as text only", async () => {
    const { ending } = await hear([
      frame(toolCall(0, { id: "a", function: { name: "search_web", arguments: "[1]" } })),
      frame(finish("tool_calls")),
      DONE,
    ]);
    expect(ending.toolCalls).toMatchObject([{ argumentsText: "[1]", arguments: null }]);
  });

  test("calls without index are told apart by id", async () => {
    const part = (fields: Record<string, unknown>) => delta({ tool_calls: [fields] });
    const { ending } = await hear([
      frame(part({ id: "a", function: { name: "search_web", arguments: "{}" } })),
      frame(part({ id: "b", function: { name: "search_global", arguments: '{"query":' } })),
      frame(part({ function: { arguments: '"y"}' } })),
      frame(finish("stop")),
      DONE,
    ]);
    expect(ending.kind).toBe("tool_calls");
    expect(ending.toolCalls.map((call) => [call.id, call.arguments])).toEqual([
      ["a", {}],
      ["b", { query: "y" }],
    ]);
  });

  test("a call whose name might go on is told at the latest with the finish reason", async () => {
    const tools = ["search", "search_web"].map((name) => ({
      type: "function" as const,
      function: { name, description: "d", parameters: { type: "object" } },
    }));
    const call = toolCall(0, { id: "a", function: { name: "search", arguments: "{}" } });
    const { io, run } = streamOf([frame(call), frame(finish("tool_calls")), DONE]);
    const { deltas, ending } = await run(
      listen(openChatStream({ ...PARAMS, tools }, { ...LIMITS, io })),
    );
    expect(deltas).toMatchObject([
      { kind: "tool_call_start", name: "search" },
      { kind: "tool_call_delta", argumentsText: "{}" },
    ]);
    expect(ending.toolCalls).toMatchObject([{ name: "search", arguments: {} }]);
  });

  test("a call cut short is not handed on", async () => {
    const start = frame(
      toolCall(0, { id: "a", function: { name: "search_web", arguments: '{"q' } }),
    );
    const { ending } = await hear([start]);
    expect(ending).toMatchObject({
      kind: "eof_without_finish_reason",
      toolCalls: [],
      visible: true,
    });
    const cut = await hear([start, frame(finish("length")), DONE]);
    expect(cut.ending).toMatchObject({ kind: "length", toolCalls: [] });
  });

  test.each<[string, BodyStep[]]>([
    ["silence", [HANG]],
    ["a cut", [BREAK]],
    ["an end without [DONE]", []],
  ])("%s after the finish reason takes nothing from the answer", async (_, rest) => {
    const { ending } = await hear([...HELLO, frame(finish("stop")), ...rest]);
    expect(ending).toMatchObject({ kind: "completed", outcome: "success", usage: null });
  });

  test.each<[string, BodyStep[]]>([
    ["the end of the body", []],
    ["a connection that breaks", [BREAK]],
    ["silence", [HANG]],
  ])("a last frame without its blank line is read, before %s", async (_, rest) => {
    const last = frame(finish("stop"), "");
    const { deltas, ending } = await hear([...HELLO, last, ...rest]);
    expect([textOf(deltas), ending.kind]).toEqual(["Hello, wörld 🌍", "completed"]);
    const broken = await hear([...HELLO, last.slice(0, -4), ...rest]);
    expect(["eof_without_finish_reason", "idle_timeout"]).toContain(broken.ending.kind);
  });

  test("an error after the finish reason is still an error", async () => {
    const { ending } = await hear([...HELLO, frame(finish("stop")), frame(ERROR_IN_BAND), DONE]);
    expect(ending.kind).toBe("error_in_band");
  });

  test("a connection that breaks early is an end without finish reason", async () => {
    expect((await hear([...HELLO, BREAK])).ending.kind).toBe("eof_without_finish_reason");
  });

  test("nothing is read after [DONE]", async () => {
    const { closed, ending } = await hear([...HELLO, frame(finish("stop")), DONE, HANG]);
    expect(ending).toMatchObject({ kind: "completed", latencyMs: 0 });
    expect(closed).toBe(true);
  });

  test.each([
    [429, "upstream_rate_limited", "failure"],
    [402, "upstream_quota_exceeded", "neutral"],
    ["400", "upstream_bad_request", "neutral"],
    ["rate_limit_exceeded", "upstream_rate_limited", "failure"],
    ["server_error", "upstream_unavailable", "failure"],
    ["something_new", "upstream_error", "failure"],
  ])("an error in band of code %s is %s", async (code, expected, outcome) => {
    const { ending } = await hear([frame(chunk({ error: { code, message: "m" } }))]);
    expect(ending).toMatchObject({ kind: "error_in_band", code: expected, outcome });
  });

  test.each([
    ["MAX_TOKENS", "length"],
    ["max_tokens", "length"],
    ["LENGTH", "length"],
    ["SAFETY", "content_filter"],
    ["ERROR", "error_in_band"],
    ["malformed_function_call", "error_in_band"],
    ["end_turn", "tool_calls"],
  ])("the finish reason %s after a call is the ending %s", async (word, kind) => {
    const call = toolCall(0, { id: "a", function: { name: "get_current_time", arguments: "" } });
    const { ending } = await hear([frame(call), frame(finish(word)), DONE]);
    expect(ending).toMatchObject({ kind, finishReason: word });
  });

  test.each([
    ["an event of the name error", "event: error\ndata: Internal server error\n\n"],
    ["a list of errors", frame([{ error: { code: 429 } }])],
    ["an error in the second choice", frame(chunk({ choices: [{}, { error: { code: 500 } }] }))],
  ])("%s is an error", async (_, one) => {
    const { ending } = await hear([...HELLO, one, frame(finish("stop")), DONE]);
    expect(ending.kind).toBe("error_in_band");
  });

  test.each([[{}], [[]], [{ message: "", code: 0 }], [{ code: null }], ["null"], ["none"]])(
    "the field error that is always there, as %j, is none",
    async (error) => {
      const last = { ...finish("stop"), error };
      expect((await hear([...HELLO, frame(last), DONE])).ending.kind).toBe("completed");
    },
  );

  test.each([
    ["an empty line", `${HELLO[0]?.trimEnd() ?? ""}\ndata:\n${HELLO[1] ?? ""}`],
    ["a sign of life", `data: ping\n${HELLO.map((one) => one.trimEnd()).join("\n")}\n\n`],
  ])("frames with %s where a blank one should be are read", async (_, joined) => {
    const { deltas, ending } = await hear([joined, frame(finish("stop")), DONE]);
    expect([textOf(deltas), ending.kind]).toEqual(["Hello, wörld 🌍", "completed"]);
  });

  test("calls in another choice than the text are read", async () => {
    const call = { index: 0, id: "a", function: { name: "search_web", arguments: "{}" } };
    const choices = [
      { index: 0, delta: { content: "So." } },
      { index: 1, delta: { tool_calls: [call] }, finish_reason: "tool_calls" },
    ];
    const { deltas, ending } = await hear([frame(chunk({ choices })), DONE]);
    expect(textOf(deltas)).toBe("So.");
    expect(ending.toolCalls).toMatchObject([{ id: "a" }]);
  });

  test.each([
    [{ prompt_tokens: "100", completion_tokens: "5" }, { totalTokens: 105 }],
    [{ prompt_tokens: 100, completion_tokens: 5, total_tokens: -400_000 }, { totalTokens: 105 }],
    [
      { prompt_tokens: 100, total_tokens: 1e15 },
      { promptTokens: 100, totalTokens: 100 },
    ],
    [
      { prompt_tokens: 1.4, cost: -3 },
      { promptTokens: 1, cost: null },
    ],
    [{ prompt_tokens: 1, cost: "0.5" }, { cost: 0.5 }],
  ])("of the usage %j what can be counts is kept", async (usage, kept) => {
    const { ending } = await hear([...HELLO, frame(finish("stop")), frame(chunk({ usage })), DONE]);
    expect(ending.usage).toMatchObject(kept);
  });

  test.each([[{}], [{ total_tokens: -1 }], [{ prompt_tokens: 1e308 }], ["much"], [[]]])(
    "the usage %j is none",
    async (usage) => {
      const { ending } = await hear([
        ...HELLO,
        frame(finish("stop")),
        frame(chunk({ usage })),
        DONE,
      ]);
      expect(ending.usage).toBeNull();
    },
  );

  test("an error told by the finish reason alone is an error in band", async () => {
    const { ending } = await hear([...HELLO, frame(finish("error")), DONE]);
    expect(ending).toMatchObject({ kind: "error_in_band", code: "upstream_error" });
  });

  test("a frame without end is cut off", async () => {
    const part = "x".repeat(FRAME_CHARS_MAX / 4);
    const { closed, ending } = await hear([`data: ${part}`, part, part, part, part, HANG]);
    expect(ending.kind).toBe("invalid_json_chunk");
    expect(closed).toBe(true);
  });

  test("calls beyond the bound are ignored", async () => {
    const call = (index: number) =>
      frame(
        toolCall(index, { id: `c${index}`, function: { name: "search_web", arguments: "{}" } }),
      );
    const calls = Array.from({ length: TOOL_CALLS_MAX + 1 }, (_, index) => call(index));
    const { ending } = await hear([...calls, frame(finish("tool_calls")), DONE]);
    expect(ending.toolCalls).toHaveLength(TOOL_CALLS_MAX);
  });

  test("arguments without end are cut off, and a name of any length is none", async () => {
    const call = (name: string, args: string) =>
      frame(toolCall(0, { id: "c", function: { name, arguments: args } }));
    const half = "x".repeat(TOOL_ARGUMENTS_CHARS_MAX / 2);
    const parts = [call("search_web", half), call("search_web", half), call("search_web", "x")];
    const { ending } = await hear([...parts, frame(finish("tool_calls")), DONE]);
    expect(ending).toMatchObject({ kind: "invalid_json_chunk", toolCalls: [] });
    const named = await hear([call("n".repeat(257), "{}"), frame(finish("tool_calls")), DONE]);
    expect(named.ending).toMatchObject({ kind: "empty_success", visible: false });
  });

  test("an answer without end is cut off", async () => {
    const part = new TextEncoder().encode(": OPENROUTER PROCESSING\n\n".repeat(40_000));
    const parts = Array.from({ length: STREAM_BYTES_MAX / part.byteLength + 1 }, () => part);
    const { closed, ending } = await hear([...HELLO, ...parts, HANG]);
    expect(ending.kind).toBe("eof_without_finish_reason");
    expect(closed).toBe(true);
  });

  test("the first token is timed from the request", async () => {
    const { ending } = await hear([
      { waitMs: 700 },
      ...HELLO,
      { waitMs: 300 },
      frame(finish("stop")),
      DONE,
    ]);
    expect(ending).toMatchObject({ firstTokenMs: 700, latencyMs: 1_000 });
  });

  test("a consumer that stops listening closes the connection", async () => {
    const { io, pendingTimers, run, state } = streamOf([...HELLO, HANG]);
    const stream = openChatStream(PARAMS, { ...LIMITS, io });
    await run(stream.next());
    await run(stream.return(undefined as never));
    expect([state.signal?.aborted, state.cancelled(), pendingTimers()]).toEqual([true, true, 0]);
  });
});

describe("before the first byte", () => {
  async function failure(script: FetchScript, limits: Partial<ChatLimits> = {}) {
    const { io, pendingTimers, run } = virtualIo(script);
    const caught = await run(
      listen(openChatStream(PARAMS, { ...LIMITS, ...limits, io })).then(
        () => null,
        (error: unknown) => error,
      ),
    );
    expect(caught).not.toBeNull();
    expect(pendingTimers()).toBe(0);
    expect(JSON.stringify(errorData(caught))).not.toContain("secret");
    return errorData(caught);
  }
  // https://openrouter.ai/docs/api/reference/errors-and-debugging, "Error Codes"
  const refusal = (status: number, headers: Record<string, string> = {}) =>
    new Response(JSON.stringify({ error: { code: status, message: "a secret word" } }), {
      status,
      headers: { "content-type": "application/json", ...headers },
    });

  test.each([
    [400, "upstream_bad_request"],
    [401, "upstream_auth"],
    [402, "upstream_quota_exceeded"],
    [403, "upstream_auth"],
    [404, "upstream_bad_request"],
    [408, "upstream_timeout"],
    [422, "upstream_bad_request"],
    [429, "upstream_rate_limited"],
    [500, "upstream_unavailable"],
    [502, "upstream_unavailable"],
    [503, "upstream_unavailable"],
    [302, "upstream_error"],
    [418, "upstream_error"],
  ])("status %i is %s", async (status, code) => {
    const data = await failure(async () => refusal(status));
    expect(data.code).toBe(code);
  });

  test("Retry-After is passed on", async () => {
    const data = await failure(async () => refusal(429, { "retry-after": "7" }));
    expect(data).toMatchObject({ code: "upstream_rate_limited", retryAfterMs: 7_000 });
  });

  test("a refused connection is unavailable", async () => {
    const data = await failure(async () => {
      throw new TypeError("fetch failed: a secret address");
    });
    expect(data.code).toBe("upstream_unavailable");
  });

  test("one attempt only: what retries is decided elsewhere", async () => {
    const { io, run } = virtualIo(async () => refusal(503));
    await run(listen(openChatStream(PARAMS, { ...LIMITS, io })).catch(() => null));
    expect(io.requests).toHaveLength(1);
  });

  test.each<[string, FetchScript]>([
    ["no headers", async () => await new Promise(() => undefined)],
    ["headers but no body", async (_, __, io) => new Response(scriptedBody([HANG], io).stream)],
  ])("%s in time is a timeout", async (_, script) => {
    expect((await failure(script)).code).toBe("upstream_timeout");
  });

  test("an answer that comes after it was given up is closed", async () => {
    let late = { wasCancelled: () => false };
    const { io, run } = virtualIo(async (_, __, virtual) => {
      await virtual.sleep(LIMITS.firstByteTimeoutMs + 1);
      const body = scriptedBody([HANG], virtual);
      late = body;
      return new Response(body.stream);
    });
    await run(listen(openChatStream(PARAMS, { ...LIMITS, io })).catch(() => null));
    await run(io.sleep(10));
    expect(late.wasCancelled()).toBe(true);
  });

  test("an error body that never ends is not waited for", async () => {
    const { io, run } = virtualIo(
      async (_, __, virtual) => new Response(scriptedBody([HANG], virtual).stream, { status: 500 }),
    );
    await run(listen(openChatStream(PARAMS, { ...LIMITS, io })).catch(() => null));
    expect(io.slept).toEqual([]);
  });

  test("an error in JSON with status 200 is that error", async () => {
    const body = JSON.stringify({ error: { code: 429, message: "a secret word" } }, null, 2);
    const data = await failure(
      async () => new Response(body, { headers: { "content-type": "application/json" } }),
    );
    expect(data.code).toBe("upstream_rate_limited");
  });

  test("an answer in JSON, of a provider that does not stream, is an answer", async () => {
    const message = { role: "assistant", content: "Bonjour" };
    const answer = { choices: [{ message, finish_reason: "stop" }], usage: null, error: null };
    const body = JSON.stringify(answer);
    const { io, run } = virtualIo(
      async () => new Response(body, { headers: { "content-type": "application/json" } }),
    );
    const { deltas, ending } = await run(listen(openChatStream(PARAMS, { ...LIMITS, io })));
    expect(textOf(deltas)).toBe("Bonjour");
    expect(ending).toMatchObject({ kind: "completed", finishReason: "stop" });
  });

  test("an abort before the answer is an ending, not an error", async () => {
    const user = new AbortController();
    const { io, run } = virtualIo(async () => {
      user.abort();
      return await new Promise(() => undefined);
    });
    const { ending } = await run(
      listen(openChatStream(PARAMS, { ...LIMITS, io, signal: user.signal })),
    );
    expect(ending.kind).toBe("client_abort");
    const again = virtualIo(async () => refusal(500));
    const aborted = await again.run(
      listen(openChatStream(PARAMS, { ...LIMITS, io: again.io, signal: user.signal })),
    );
    expect(aborted.ending.kind).toBe("client_abort");
    expect(again.io.requests).toEqual([]);
  });
});

describe("the request", () => {
  test("carries model, messages, tools and key, and nothing of the environment", async () => {
    const { io, run } = streamOf([...HELLO, frame(finish("stop")), DONE]);
    const tools = [
      {
        type: "function" as const,
        function: { name: "search_web", description: "d", parameters: { type: "object" } },
      },
    ];
    const params = {
      ...PARAMS,
      tools,
      toolChoice: "none" as const,
      headers: { traceparent: "00-1" },
    };
    await run(listen(openChatStream(params, { ...LIMITS, io })));
    const [request] = io.requests;
    expect(request?.url).toBe("https://openrouter.example/api/v1/chat/completions");
    const headers = new Headers(request?.init.headers);
    expect(headers.get("authorization")).toBe("Bearer key-of-the-test");
    expect(headers.get("traceparent")).toBe("00-1");
    expect(headers.get("openai-organization")).toBeNull();
    expect(request?.init.redirect).toBe("manual");
    expect(JSON.parse(request?.init.body as string)).toEqual({
      model: "ballast/test-1",
      messages: [{ role: "user", content: "hi" }],
      stream: true,
      stream_options: { include_usage: true },
      tools,
      tool_choice: "none",
    });
  });

  test("nothing is logged, not even of a frame that is no JSON", async () => {
    const spies = (["log", "info", "warn", "error", "debug"] as const).map((level) =>
      vi.spyOn(console, level).mockImplementation(() => undefined),
    );
    // Imported afresh: the package remembers the console it first logged to.
    vi.resetModules();
    const fresh = await import("./openrouter");
    const { io, run } = streamOf([...HELLO, "data: what a user wrote\n\n"]);
    await run(listen(fresh.openChatStream(PARAMS, { ...LIMITS, io })));
    await hear([...HELLO, "event: thread.run\ndata: what a user wrote\n\n"]);
    const calls = spies.flatMap((spy) => spy.mock.calls);
    for (const spy of spies) spy.mockRestore();
    expect(calls).toEqual([]);
  });
});

describe("framing", () => {
  const STREAM = [
    ": OPENROUTER PROCESSING\n\n",
    frame(text("Hello, ")),
    frame(text("wörld 🌍"), "\r\n\r\n"),
    ": OPENROUTER PROCESSING\r\n\r\n",
    frame(delta({ content: "", reasoning: "naïve ☃" })),
    frame(toolCall(0, { id: "a", function: { name: "search_web", arguments: '{"query":' } })),
    `event: message\nid: 7\n${frame(toolCall(0, { function: { arguments: '"é"}' } }))}`,
    frame(finish("tool_calls")),
    frame(USAGE),
    DONE,
  ].join("");

  const shapes = fc.record({
    cuts: fc.array(fc.nat({ max: 4_000 }), { maxLength: 60 }),
    stop: fc.option(fc.nat({ max: 4_000 }), { nil: undefined }),
  });

  const said = ({ deltas, ending }: Heard) => ({ deltas, ending });

  test("any split of the same bytes gives the same deltas and the same ending", async () => {
    const bytes = new TextEncoder().encode(STREAM);
    await fc.assert(
      fc.asyncProperty(shapes, async ({ cuts, stop }) => {
        const end = Math.min(stop ?? bytes.length, bytes.length);
        const marks = [...new Set([0, ...cuts.filter((cut) => cut < end), end])].sort(
          (a, b) => a - b,
        );
        const pieces = marks.slice(1).map((mark, i) => bytes.slice(marks[i], mark));
        const whole = said(await hear([bytes.slice(0, end)]));
        expect(said(await hear(pieces))).toEqual(whole);
      }),
      { numRuns: 200 },
    );
  });

  test("byte by byte, with CRLF throughout", async () => {
    const bytes = new TextEncoder().encode(STREAM.replaceAll(/\r?\n/g, "\r\n"));
    const { deltas, ending } = await hear(Array.from(bytes, (byte) => Uint8Array.of(byte)));
    expect(textOf(deltas)).toBe("Hello, wörld 🌍");
    expect(ending).toMatchObject({
      kind: "tool_calls",
      toolCalls: [{ arguments: { query: "é" } }],
    });
    expect(ending.usage?.totalTokens).toBe(30);
  });
});
