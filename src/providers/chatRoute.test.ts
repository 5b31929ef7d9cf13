import { describe, expect, test } from "vitest";
import { errorData } from "../errors/appError";
import { type ChatRequest, openChatRoute } from "./chatRoute";
import { type FetchScript, HANG, jsonResponse, scriptedBody, virtualIo } from "./testing";

const ENV = {
  OPENROUTER_API_KEY: "key-of-the-test-1234",
  OPENROUTER_BASE_URL: "https://openrouter.example/api/v1",
  CHAT_PROVIDER_PRIMARY_RETRIES: "2",
};

const ANSWER = [
  'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n',
  'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
];

async function listen(
  script: FetchScript,
  setup: {
    env?: Record<string, string>;
    budget?: (attempts: number) => Promise<boolean>;
    request?: Partial<ChatRequest>;
  } = {},
) {
  const { io, pendingTimers, run } = virtualIo(script);
  const request: ChatRequest = {
    provider: "openrouter_chat_primary",
    model: "ballast/test-1",
    messages: [{ role: "user", content: "hi" }],
    signal: new AbortController().signal,
    ...setup.request,
  };
  const deps = { env: setup.env ?? ENV, io, mayRetry: setup.budget ?? (async () => true) };
  const result = await run(
    (async () => {
      const stream = openChatRoute(request, deps);
      let text = "";
      try {
        for (;;) {
          const step = await stream.next();
          if (step.done === true) return { text, ending: step.value, error: null };
          if (step.value.kind === "text") text += step.value.text;
        }
      } catch (error) {
        return { text, ending: null, error: errorData(error) };
      }
    })(),
  );
  expect(pendingTimers()).toBe(0);
  return { ...result, io };
}

const streaming: FetchScript = async (_, __, io) => new Response(scriptedBody(ANSWER, io).stream);
const failing =
  (times: number, headers: Record<string, string> = {}): FetchScript =>
  async (call, init, io) =>
    call <= times ? jsonResponse({}, { status: 503, headers }) : await streaming(call, init, io);

describe("openChatRoute", () => {
  test("asks the route's address with its key", async () => {
    const { ending, io, text } = await listen(streaming);
    expect([text, ending?.kind]).toEqual(["hi", "completed"]);
    expect(io.requests[0]?.url).toBe("https://openrouter.example/api/v1/chat/completions");
  });

  test("tries again as often as the knob says", async () => {
    expect(await listen(failing(2))).toMatchObject({ text: "hi" });
    const tooOften = await listen(failing(3));
    expect(tooOften.error?.code).toBe("upstream_unavailable");
    expect(tooOften.io.requests).toHaveLength(3);
    const never = await listen(failing(1), { env: { ...ENV, CHAT_PROVIDER_PRIMARY_RETRIES: "0" } });
    expect(never.io.requests).toHaveLength(1);
  });

  test("waits as long as the provider asks, or not at all", async () => {
    const { io } = await listen(failing(1, { "retry-after": "3" }));
    expect(io.slept).toEqual([3_125]);
    const late = await listen(failing(1, { "retry-after": "46" }));
    expect(late.error).toMatchObject({ code: "upstream_unavailable", retryAfterMs: 46_000 });
    expect(late.io.slept).toEqual([]);
  });

  test("an abort ends the wait for another attempt", async () => {
    const user = new AbortController();
    const refused = failing(9, { "retry-after": "30" });
    const { ending, io } = await listen(
      async (call, init, virtual) => {
        void virtual.sleep(1_000).then(() => {
          user.abort();
        });
        return await refused(call, init, virtual);
      },
      { request: { signal: user.signal } },
    );
    expect(ending).toMatchObject({ kind: "client_abort" });
    expect([io.requests.length, io.slept]).toEqual([1, [1_000]]);
  });

  test.each([
    ["nothing", async () => false],
    ["no answer", async () => await Promise.reject(new Error("unreadable"))],
  ])("a budget that grants %s ends it, as the provider's failure", async (_, budget) => {
    const { error, io } = await listen(failing(1), { budget });
    expect([error?.code, io.requests.length]).toEqual(["upstream_unavailable", 1]);
  });

  test("tells the budget how often it asked", async () => {
    const asked: number[] = [];
    const budget = async (attempts: number) => {
      asked.push(attempts);
      return true;
    };
    await listen(failing(3), { budget });
    expect(asked).toEqual([1, 2]);
  });

  test("waits for no attempt that the whole has no time for", async () => {
    const { error, io } = await listen(failing(1, { "retry-after": "3" }), {
      request: { totalTimeoutMs: 2_000 },
    });
    expect([error?.code, io.slept]).toEqual(["upstream_unavailable", []]);
  });

  test("does not repeat what was refused for good", async () => {
    const { error, io } = await listen(async () => jsonResponse({}, { status: 402 }));
    expect(error?.code).toBe("upstream_quota_exceeded");
    expect(io.requests).toHaveLength(1);
  });

  test("does not begin anew once a byte has come", async () => {
    const { ending, io, text } = await listen(
      async (_, __, virtual) => new Response(scriptedBody(ANSWER.slice(0, 1), virtual).stream),
    );
    expect([text, ending?.kind]).toEqual(["hi", "eof_without_finish_reason"]);
    expect(io.requests).toHaveLength(1);
  });

  test.each(['data: {"error":{"code":429}}\n\n', ": working\n\n", "data: no JSON\n\n"])(
    "tries again what failed in band before anything was heard of it",
    async (start) => {
      const failingInBand: FetchScript = async (call, init, virtual) =>
        call <= 2
          ? new Response(scriptedBody([start], virtual).stream)
          : await streaming(call, init, virtual);
      const { io, text } = await listen(failingInBand);
      expect([text, io.requests.length]).toEqual(["hi", 3]);
      const none = await listen(failingInBand, { budget: async () => false });
      expect([none.ending?.outcome, none.io.requests.length]).toEqual(["failure", 1]);
    },
  );

  test.each([
    ["CHAT_PROVIDER_PRIMARY_TIMEOUT_MS", "2000", [HANG], 2_000],
    ["CHAT_PROVIDER_PRIMARY_TIMEOUT_MS", "120000", [HANG], 120_000],
    ["CHAT_STREAM_IDLE_TIMEOUT_MS", "6000", [...ANSWER.slice(0, 1), HANG], 6_000],
    ["CHAT_STREAM_TOTAL_TIMEOUT_MS", "20000", [...ANSWER.slice(0, 1), HANG], 20_000],
  ])("%s bounds it", async (knob, value, steps, waitedMs) => {
    const idle = { CHAT_STREAM_IDLE_TIMEOUT_MS: "30000" };
    const { io } = await listen(
      async (_, __, virtual) => new Response(scriptedBody(steps, virtual).stream),
      { env: { ...ENV, ...idle, CHAT_PROVIDER_PRIMARY_RETRIES: "0", [knob]: value } },
    );
    expect(io.slept).toEqual([waitedMs]);
  });

  test("an attempt that hears nothing leaves time for the next", async () => {
    const { io, text } = await listen(async (call, init, virtual) =>
      call === 1 ? await new Promise(() => undefined) : await streaming(call, init, virtual),
    );
    expect(text).toBe("hi");
    expect(io.slept).toEqual([20_000, 125]);
  });

  test("the caller's own limit on the whole applies too", async () => {
    const { ending, io } = await listen(
      async (_, __, virtual) =>
        new Response(scriptedBody([...ANSWER.slice(0, 1), HANG], virtual).stream),
      { request: { totalTimeoutMs: 1_500 } },
    );
    expect([ending?.kind, io.slept]).toEqual(["total_timeout", [1_500]]);
  });

  test.each([{}, { OPENROUTER_API_KEY: "" }])("without a key nothing is asked", async (env) => {
    const { error, io } = await listen(streaming, { env });
    expect([error?.code, io.requests]).toEqual(["misconfigured", []]);
  });
});
