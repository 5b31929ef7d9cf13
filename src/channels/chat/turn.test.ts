import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { AppError } from "../../errors/appError";
import type { ErrorCode } from "../../errors/table";
import { CHAT_ENDINGS, type ChatDelta, type ChatEnding, type ToolCall } from "../../providers/chat";
import { oneUse } from "../../tools/cacheUse";
import type { ToolBounds, ToolOutcome } from "./toolTurn";
import {
  type Route,
  runTurn,
  type Settled,
  type StreamRequest,
  type TurnPorts,
  type TurnResult,
} from "./turn";

const PRIMARY: Route = {
  providerId: "openrouter_chat_primary",
  routeId: "primary",
  modelClass: "agent",
  modelId: "model/primary",
};
const SECONDARY: Route = {
  ...PRIMARY,
  providerId: "openrouter_chat_secondary",
  routeId: "secondary",
  modelId: "model/secondary",
};

const USAGE = {
  promptTokens: 10,
  completionTokens: 5,
  totalTokens: 15,
  cachedTokens: 0,
  reasoningTokens: 0,
  cost: 0.001,
};

function ending(kind: keyof typeof CHAT_ENDINGS, more: Partial<ChatEnding> = {}): ChatEnding {
  return {
    kind,
    ...CHAT_ENDINGS[kind],
    finishReason: kind === "completed" ? "stop" : null,
    toolCalls: [],
    state: null,
    usage: USAGE,
    model: "model/primary",
    visible: true,
    latencyMs: 1,
    firstTokenMs: 1,
    ...more,
  };
}

const text = (content: string): ChatDelta => ({ kind: "text", text: content });

type Script = readonly (ChatDelta | ChatEnding | AppError)[];

interface Backend {
  readonly ports: TurnPorts;
  readonly requests: StreamRequest[];
  readonly stored: string[];
  readonly sent: string[];
  settled: TurnResult | null;
  clockMs: number;
}

interface BackendOptions {
  readonly scripts: readonly Script[];
  readonly runTool?: (call: ToolCall, bounds: ToolBounds) => Promise<ToolOutcome>;
  /** What the n-th store answers; the default goes on. */
  readonly store?: (n: number) => { live: true; abort: boolean } | { live: false } | Error;
  /** How far each delta moves the clock. */
  readonly stepMs?: number;
  readonly switchOk?: boolean;
  readonly settled?: Settled;
}

/** Ports over memory: what is stored is what a resuming client would get. */
function backend(options: BackendOptions): Backend {
  const scripts = [...options.scripts];
  let stores = 0;
  const self: Backend = {
    requests: [],
    stored: [],
    sent: [],
    settled: null,
    clockMs: 0,
    ports: {
      now: () => self.clockMs,
      random: Math.random,
      sleep: async (_ms, signal) => {
        await new Promise<void>((resolve) => {
          if (signal?.aborted === true) resolve();
          else
            signal?.addEventListener("abort", () => {
              resolve();
            });
        });
      },
      stream: async function* (request) {
        self.requests.push(request);
        for (const step of scripts.shift() ?? []) {
          self.clockMs += options.stepMs ?? 0;
          if (request.signal.aborted) return ending("client_abort");
          if (step instanceof AppError) throw step;
          if ("outcome" in step) return step;
          yield step;
        }
        throw new Error("the script has no ending");
      },
      runTool:
        options.runTool ?? (async () => ({ kind: "result", text: '{"ok":true}', degraded: false })),
      store: async (firstFrameId, frames) => {
        const reply = options.store?.(++stores) ?? { live: true as const, abort: false };
        if (reply instanceof Error) throw reply;
        if (!reply.live) return reply;
        expect(firstFrameId).toBe(self.stored.length + FRAMES.length + 1);
        self.stored.push(...frames);
        return reply;
      },
      switchRoute: async () => ({ ok: options.switchOk ?? true }),
      settle: async (firstFrameId, frames, result) => {
        if (options.settled !== undefined) return options.settled;
        expect(firstFrameId).toBe(self.stored.length + FRAMES.length + 1);
        self.stored.push(...frames);
        self.settled = result;
        return "now";
      },
      send: (frame) => self.sent.push(frame),
    },
  };
  return self;
}

const FRAMES = ['{"type":"start"}', '{"type":"provider-route"}'];

const start = (more: { cyclesMax?: number; fallback?: Route | null } = {}) => ({
  route: PRIMARY,
  fallback: SECONDARY,
  messages: [{ role: "user" as const, content: "hello" }],
  frames: FRAMES,
  webSearch: true,
  callIds: { taken: [], isAll: true },
  cyclesMax: 5,
  totalTimeoutMs: 60_000,
  ...more,
});

interface Seen {
  readonly id: number | null;
  readonly event: { readonly type: string; readonly content?: string; readonly code?: string };
}

function seen(frames: readonly string[]): Seen[] {
  return frames.map((frame) => {
    const [, id, data] = /^(?:id: (\d+)\n)?data: ([^\n]*)\n\n$/.exec(frame) ?? [];
    return {
      id: id === undefined ? null : Number(id),
      event: JSON.parse(data ?? "null") as Seen["event"],
    };
  });
}

const TERMINAL = ["done", "error", "aborted"];
const terminals = (frames: readonly string[]) =>
  seen(frames).filter(({ event }) => TERMINAL.includes(event.type));

const call = (name: string, args = "{}", index = 0): ToolCall => ({
  index,
  id: `call_${name}`,
  name,
  argumentsText: args,
  arguments: { query: "x" },
});

describe("endings", () => {
  const expected: Record<
    keyof typeof CHAT_ENDINGS,
    { event: string; status: string; code?: ErrorCode }
  > = {
    completed: { event: "done", status: "completed" },
    length: { event: "done", status: "completed" },
    content_filter: { event: "done", status: "completed" },
    tool_calls: { event: "done", status: "completed" },
    error_in_band: { event: "error", status: "error", code: "upstream_error" },
    eof_without_finish_reason: { event: "error", status: "error", code: "upstream_error" },
    idle_timeout: { event: "error", status: "error", code: "upstream_timeout" },
    total_timeout: { event: "error", status: "error", code: "upstream_timeout" },
    client_abort: { event: "aborted", status: "aborted" },
    invalid_json_chunk: { event: "error", status: "error", code: "upstream_error" },
    empty_success: { event: "error", status: "error", code: "upstream_error" },
  };
  test.each(Object.entries(expected))(
    "%s ends the stream and the tables alike",
    async (kind, want) => {
      // With one cycle the model may not call tools: an answer that still does has ended with it.
      const b = backend({ scripts: [[text("part "), ending(kind as keyof typeof CHAT_ENDINGS)]] });
      const result = await runTurn(start({ cyclesMax: 1 }), b.ports);
      const ended = terminals(b.sent);
      expect(ended.map(({ event }) => event.type)).toEqual([want.event]);
      expect(ended[0]?.event.code).toBe(want.code);
      expect(b.settled?.status).toBe(want.status);
      expect(b.settled?.content).toBe("part ");
      expect(result.errorCode).toBe(want.code);
      expect(seen(b.sent).at(-1)?.event.type).toBe(want.event);
      // The terminal frame carries the last id: its client has nothing more to fetch.
      expect(ended[0]?.id).toBe(FRAMES.length + b.stored.length);
    },
  );

  test("a failure after text is not answered by another route", async () => {
    const b = backend({ scripts: [[text("half"), ending("error_in_band")], [text("other")]] });
    await runTurn(start(), b.ports);
    expect(b.requests).toHaveLength(1);
    expect(b.settled?.content).toBe("half");
  });

  test.each([
    "upstream_timeout",
    "upstream_rate_limited",
    "upstream_unavailable",
    "upstream_quota_exceeded",
    "upstream_auth",
    "upstream_bad_request",
  ] as const)("%s before the first byte falls back, and says which route", async (code) => {
    const b = backend({
      scripts: [[new AppError(code)], [text("from the second"), ending("completed")]],
    });
    await runTurn(start(), b.ports);
    expect(b.requests.map(({ route }) => route.routeId)).toEqual(["primary", "secondary"]);
    expect(b.settled).toMatchObject({ status: "completed", content: "from the second" });
    expect(seen(b.sent).filter(({ event }) => event.type === "provider-route")).toHaveLength(2);
  });

  const SEEN_OF: Record<string, ChatDelta> = {
    content: text("half"),
    reasoning: { kind: "reasoning", text: "hm" },
    "tool-input": { kind: "tool_call_start", index: 0, id: "c", name: "search_web" },
  };
  test.each(Object.entries(SEEN_OF))("after %s there is no other route", async (_, delta) => {
    const b = backend({ scripts: [[delta, ending("error_in_band")], [text("other")]] });
    await runTurn(start(), b.ports);
    expect(b.requests).toHaveLength(1);
    expect(b.settled).toMatchObject({ status: "error", ending: "error_in_band" });
  });

  test("nor in a later request of a turn that has shown a tool call", async () => {
    const b = backend({
      scripts: [
        [
          { kind: "tool_call_start", index: 0, id: "c", name: "get_current_time" },
          ending("tool_calls", { toolCalls: [call("get_current_time")] }),
        ],
        [new AppError("upstream_unavailable")],
        [text("other"), ending("completed")],
      ],
    });
    await runTurn(start(), b.ports);
    expect(b.requests.map(({ route }) => route.routeId)).toEqual(["primary", "primary"]);
    expect(b.settled).toMatchObject({ status: "error", errorCode: "upstream_unavailable" });
    expect(terminals(b.sent).map(({ event }) => event.type)).toEqual(["error"]);
  });

  test("the second route is timed and counted by itself", async () => {
    const b = backend({
      scripts: [
        [ending("empty_success", { usage: null, model: "model/first" })],
        [text("hi"), ending("completed", { model: null })],
      ],
      stepMs: 5_000,
    });
    await runTurn(start(), b.ports);
    // The first took five seconds, and so did the second.
    expect(b.settled).toMatchObject({
      latencyMs: 5_000,
      modelId: "model/secondary",
      usage: { ...USAGE, estimated: false },
    });
    const usage = seen(b.sent).find(({ event }) => event.type === "usage")?.event;
    expect(usage).toMatchObject({ metrics: { ttftMs: 10_000 } });
  });

  test("a turn whose time is up asks no other route, and blames none that was not asked", async () => {
    const b = backend({ scripts: [[ending("total_timeout")], [text("late")]], stepMs: 59_500 });
    await runTurn(start(), b.ports);
    expect(b.requests).toHaveLength(1);
    expect(b.settled).toMatchObject({ ending: "total_timeout", outcome: "failure" });
    const slow = backend({
      scripts: [[ending("tool_calls", { toolCalls: [call("search_web")] })], [text("late")]],
      runTool: async () => {
        slow.clockMs = 59_500;
        return { kind: "result", text: "{}", degraded: false };
      },
    });
    await runTurn(start(), slow.ports);
    expect(slow.requests).toHaveLength(1);
    expect(slow.settled).toMatchObject({
      ending: "total_timeout",
      errorCode: "upstream_timeout",
      outcome: "neutral",
    });
  });

  test("with no route left the code reaches the stream and the tables", async () => {
    const refusal = new AppError("upstream_rate_limited", { retryAfterMs: 7_000 });
    const b = backend({ scripts: [[refusal], [refusal]] });
    await runTurn(start(), b.ports);
    expect(terminals(b.sent)[0]?.event).toMatchObject({
      type: "error",
      code: "upstream_rate_limited",
      retryAfterMs: 7_000,
    });
    expect(b.settled).toMatchObject({
      status: "error",
      errorCode: "upstream_rate_limited",
      outcome: "failure",
      visible: false,
    });
  });

  test("a missing key is misconfigured and never blames the provider", async () => {
    const b = backend({ scripts: [[new AppError("misconfigured")]] });
    await runTurn(start(), b.ports);
    expect(b.requests).toHaveLength(1);
    expect(b.settled).toMatchObject({ errorCode: "misconfigured", outcome: "neutral" });
  });

  test("a bug in the engine's ports still settles, as our own fault", async () => {
    const b = backend({ scripts: [[]] });
    await runTurn(start({ fallback: null }), b.ports);
    expect(b.settled).toMatchObject({ errorCode: "internal_error", outcome: "infrastructure" });
    expect(terminals(b.sent)).toHaveLength(1);
  });
});

describe("tools", () => {
  const toolScripts = (name: string): Script[] => [
    [
      { kind: "tool_call_start", index: 0, id: `call_${name}`, name },
      { kind: "tool_call_delta", index: 0, id: `call_${name}`, argumentsText: "{}" },
      ending("tool_calls", { toolCalls: [call(name)] }),
    ],
    [text("answer"), ending("completed")],
  ];

  test("a call is told, run, shown and given back to the model", async () => {
    const b = backend({ scripts: toolScripts("search_web") });
    await runTurn(start(), b.ports);
    expect(seen(b.sent).map(({ event }) => event.type)).toEqual([
      "start",
      "provider-route",
      "tool-input-start",
      "tool-input-delta",
      "tool-input-available",
      "tool-output-partially-available",
      "content",
      "usage",
      "done",
    ]);
    expect(b.requests[1]?.messages.slice(-2)).toMatchObject([
      { role: "assistant", tool_calls: [{ id: "call_search_web" }] },
      { role: "tool", tool_call_id: "call_search_web", content: '{"ok":true}' },
    ]);
    expect(b.settled).toMatchObject({
      toolCalls: [{ name: "search_web" }],
      toolResults: [{ content: '{"ok":true}' }],
      usage: { totalTokens: 30, estimated: false },
    });
  });

  test("a tool asked for too often is refused and no more are offered", async () => {
    const again = (): Script => [ending("tool_calls", { toolCalls: [call("get_current_time")] })];
    let runs = 0;
    const b = backend({
      scripts: [again(), again(), [text("fine"), ending("completed")]],
      runTool: async () => {
        runs += 1;
        return { kind: "result", text: "{}", degraded: false };
      },
    });
    await runTurn(start(), b.ports);
    expect(runs).toBe(1);
    expect(b.requests.map(({ toolChoice }) => toolChoice)).toEqual(["auto", "auto", "none"]);
  });

  test("backpressure is said to the client and the turn goes on", async () => {
    const b = backend({
      scripts: toolScripts("search_web"),
      runTool: async () => ({
        kind: "backpressure",
        text: "busy",
        reason: "queue_saturated",
        retryAfterMs: 1_000,
      }),
    });
    await runTurn(start(), b.ports);
    expect(seen(b.sent).map(({ event }) => event.type)).toContain("tool-backpressure");
    expect(b.settled?.status).toBe("completed");
  });
});

test("a tool is told when the turn ends, and what the cache was to it is settled", async () => {
  const deadlines: number[] = [];
  const b = backend({
    scripts: [
      [
        ending("tool_calls", {
          toolCalls: [call("search_web"), call("get_current_time", "{}", 1)],
        }),
      ],
      [ending("tool_calls", { toolCalls: [call("search_web")] })],
      [text("fine"), ending("completed")],
    ],
    runTool: async ({ name }, { deadlineAtMs }) => {
      deadlines.push(deadlineAtMs);
      const told = { kind: "result", text: "{}", degraded: false } as const;
      if (name !== "search_web") return told;
      return { ...told, cacheUse: oneUse("web_v1", deadlines.length === 1 ? "misses" : "hits") };
    },
  });
  b.clockMs = 500;
  await runTurn(start(), b.ports);
  expect(deadlines).toEqual([60_500, 60_500, 60_500]);
  expect(b.settled?.cacheUse).toEqual([{ ...oneUse("web_v1", "misses"), hits: 1 }]);
});

test("an abort learned from a store ends the turn as aborted", async () => {
  const b = backend({
    scripts: [[...Array.from({ length: 20 }, () => text("word ")), ending("completed")]],
    stepMs: 600,
    store: (n) => ({ live: true, abort: n === 2 }),
  });
  await runTurn(start(), b.ports);
  expect(b.settled?.status).toBe("aborted");
  expect(terminals(b.sent).map(({ event }) => event.type)).toEqual(["aborted"]);
  expect(b.settled?.content.length).toBeLessThan(20 * 5);
});

// The end that someone else stored is the only one: a client that resumes gets it, with its id.
test.each([
  ["learned from a store", { store: () => ({ live: false }) as const }, []],
  ["learned at the settlement", { settled: "elsewhere" } as const, []],
  ["and not of one that will be settled later", { settled: "later" } as const, ["done"]],
])("a stream that someone else ended is given no second end, %s", async (_, options, ends) => {
  const b = backend({
    scripts: [[...Array.from({ length: 20 }, () => text("word ")), ending("completed")]],
    stepMs: 600,
    ...options,
  });
  await runTurn(start(), b.ports);
  expect(b.settled).toBeNull();
  expect(terminals(b.sent).map(({ event }) => event.type)).toEqual(ends);
  expect(terminals(b.sent).filter(({ id }) => id !== null)).toEqual([]);
});

test("text beyond what a message holds ends the answer as length", async () => {
  const b = backend({
    scripts: [[...Array.from({ length: 40 }, () => text("x".repeat(8_192))), ending("completed")]],
  });
  await runTurn(start(), b.ports);
  expect(b.settled).toMatchObject({ status: "completed", ending: "length" });
  expect(b.settled?.content.length).toBe(256 * 1024);
  expect(terminals(b.sent)[0]?.event).toMatchObject({ type: "done", finishReason: "length" });
});

test.each([
  ["text", (long: string): ChatDelta => ({ kind: "text", text: long })],
  ["reasoning", (long: string): ChatDelta => ({ kind: "reasoning", text: long })],
])("one huge part of %s comes in frames that can be stored", async (_, delta) => {
  const b = backend({
    // Characters of two halves: no frame may begin with the second.
    scripts: [[delta(`a${"\u{1F9ED}".repeat(400_000)}`), text("end"), ending("completed")]],
  });
  await runTurn(start(), b.ports);
  expect(Math.max(...b.stored.map((frame) => frame.length))).toBeLessThan(40_000);
  expect(b.stored.join("")).not.toContain("\\ud");
  const { content = "", reasoning = "" } = b.settled ?? {};
  expect(Buffer.byteLength(content + reasoning)).toBeGreaterThan(64 * 1024);
  expect(Buffer.byteLength(content)).toBeLessThan(400 * 1024);
  expect(Buffer.byteLength(reasoning)).toBeLessThan(400 * 1024);
});

test("arguments without end are the end of the answer", async () => {
  const begun: ChatDelta = { kind: "tool_call_start", index: 0, id: "c", name: "search_web" };
  const more = { kind: "tool_call_delta", index: 0, id: "c", argumentsText: "x".repeat(16_384) };
  const b = backend({
    scripts: [[begun, ...Array.from({ length: 9 }, () => more as ChatDelta), ending("completed")]],
  });
  await runTurn(start(), b.ports);
  expect(b.settled?.ending).toBe("length");
  expect(b.stored.filter((frame) => frame.includes("tool-input-delta"))).toHaveLength(4);
});

test("whatever a turn says fits into one document, counted in bytes", async () => {
  const wide = "\u65e5".repeat(32 * 1_024);
  const begun = (index: number): ChatDelta => ({
    kind: "tool_call_start",
    index,
    id: `\u65e5${"x".repeat(240)}${index}`,
    name: "n".repeat(256),
  });
  const args = (index: number): ChatDelta => ({
    kind: "tool_call_delta",
    index,
    id: "",
    argumentsText: wide,
  });
  const b = backend({
    scripts: [
      [
        ...Array.from({ length: 6 }, (): ChatDelta => ({ kind: "reasoning", text: wide })),
        ...Array.from({ length: 60 }, (_, index) => begun(index)),
        ...Array.from({ length: 8 }, () => text(wide)),
        ...Array.from({ length: 8 }, (_, index) => args(index)),
        ending("completed"),
      ],
    ],
  });
  await runTurn(start(), b.ports);
  const { content = "", reasoning = "", toolCalls = [] } = b.settled ?? {};
  expect(Buffer.byteLength(JSON.stringify([content, reasoning, toolCalls]))).toBeLessThan(
    900 * 1_024,
  );
  expect(content).not.toBe("");
});

test("arguments that come in many small parts are told in frames that stay few", async () => {
  const long = { query: "x".repeat(20_000) };
  const argumentsText = JSON.stringify(long);
  const parts = argumentsText.match(/.{1,4}/g) ?? [];
  const whole: ToolCall = {
    index: 0,
    id: "c",
    name: "search_web",
    argumentsText,
    arguments: long,
  };
  const b = backend({
    scripts: [
      [
        { kind: "tool_call_start", index: 0, id: "c", name: "search_web" },
        ...parts.map((part): ChatDelta => ({
          kind: "tool_call_delta",
          index: 0,
          id: "c",
          argumentsText: part,
        })),
        ending("tool_calls", { toolCalls: [whole] }),
      ],
      [text("fine"), ending("completed")],
    ],
  });
  await runTurn(start(), b.ports);
  expect(b.settled).toMatchObject({ status: "completed", content: "fine" });
  const deltas = seen(b.sent).flatMap(({ event }) =>
    event.type === "tool-input-delta" ? [event as unknown as { inputTextDelta: string }] : [],
  );
  expect(deltas.map(({ inputTextDelta }) => inputTextDelta).join("")).toBe(argumentsText);
  expect(deltas.length).toBeLessThan(500);
});

test("a character of an argument or a thought that is split over two deltas is one", async () => {
  const part = (argumentsText: string): ChatDelta => ({
    kind: "tool_call_delta",
    index: 0,
    id: "c",
    argumentsText,
  });
  const b = backend({
    scripts: [
      [
        { kind: "reasoning", text: "x\ud83e" },
        { kind: "reasoning", text: "\uddedy" },
        { kind: "tool_call_start", index: 0, id: "c", name: "search_web" },
        part('{"query":"\ud83e'),
        part('\udded"}'),
        ending("length"),
      ],
    ],
  });
  await runTurn(start(), b.ports);
  expect(b.settled?.reasoning).toBe("x🧭y");
  expect(b.sent.join("")).not.toMatch(/\\ud[89a-f]/);
  expect(b.settled?.toolCalls).toMatchObject([{ arguments: '{"query":"🧭"}' }]);
});

test("a model that keeps calling tools that there are not goes on without any", async () => {
  const again = (): Script => [ending("tool_calls", { toolCalls: [call("no_such_tool")] })];
  const b = backend({
    scripts: [again(), again(), again(), again(), [text("fine"), ending("completed")]],
  });
  await runTurn(start({ cyclesMax: 10 }), b.ports);
  expect(b.requests.map(({ toolChoice }) => toolChoice).at(-1)).toBe("none");
  expect(b.settled?.status).toBe("completed");
});

test("a character split over two deltas is one, a half without its other is replaced", async () => {
  const b = backend({
    scripts: [[text("a\uD83E"), text("\uDDEDb"), text("\uDC00c\uD800"), ending("completed")]],
  });
  await runTurn(start(), b.ports);
  expect(b.settled?.content).toBe("a🧭b\uFFFDc\uFFFD");
});

const word = fc.oneof(fc.string({ maxLength: 12, unit: "binary" }), fc.constant("zwölf 🧭 "));

test("cut anywhere and resumed, the text by ids is the stored text", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(word, { minLength: 1, maxLength: 60, size: "max" }),
      fc.integer({ min: 0, max: 900 }),
      fc.array(fc.boolean(), { minLength: 1, maxLength: 8 }),
      fc.nat(),
      async (words, stepMs, failures, cut) => {
        const b = backend({
          scripts: [[...words.map(text), ending("completed")]],
          stepMs,
          // Some stores fail: nothing of theirs may be given an id.
          store: (n) =>
            failures[n % failures.length] === true
              ? new Error("conflict")
              : { live: true, abort: false },
        });
        await runTurn(start(), b.ports);
        const all = [...FRAMES, ...b.stored].map((data, i) => ({
          id: i + 1,
          event: JSON.parse(data) as Seen["event"],
        }));
        const live = seen(b.sent);
        // Live and stored are the same frames in the same order, whatever carried an id.
        expect(live.map(({ event }) => event)).toEqual(all.map(({ event }) => event));
        for (const { id, event } of live)
          if (id !== null) expect(all[id - 1]?.event).toEqual(event);
        const before = live.slice(0, cut % (live.length + 1));
        const lastId = before.reduce((last, { id }) => id ?? last, 0);
        const resumed = [...all.slice(0, lastId), ...all.slice(lastId)];
        const kept = live.slice(0, live.findIndex(({ id }) => id === lastId) + 1);
        const content = [...kept, ...resumed.slice(lastId)]
          .map(({ event }) => (event.type === "content" ? event.content : ""))
          .join("");
        expect(content).toBe(b.settled?.content);
        expect(content).toBe(words.join(""));
      },
    ),
    { numRuns: 100 },
  );
});
