import { expect, test, vi } from "vitest";
import { internal } from "../../convex/_generated/api";
import { fullJitterMs } from "../../src/core/backoff";
import { MINUTE, SECOND } from "../../src/core/time";
import { CHAT_ENDINGS, type ChatDelta, type ChatEnding } from "../../src/providers/chat";
import { openChatStream } from "../../src/providers/openrouter";
import { BREAK, type BodyStep, HANG, scriptedBody, virtualIo } from "../../src/providers/testing";
import { advance, backend, START_MS } from "../edge/backend";
import { append, begin, dana, newThread, session, settle, stored } from "../edge/chat";
import { api } from "../../convex/_generated/api";

const frame = (fields: object): string => `data: ${JSON.stringify(fields)}\n\n`;
const choice = (delta: object, finish: string | null = null): object => ({
  choices: [{ index: 0, delta, finish_reason: finish }],
});
const text = (content: string): string => frame(choice({ role: "assistant", content }));
const finish = (reason: string): string => frame(choice({ content: "" }, reason));
const error = (code: unknown): string =>
  frame({ error: { code, message: "a secret word" }, choices: [] });
const DONE = "data: [DONE]\n\n";

interface Heard {
  readonly said: string;
  readonly ending: ChatEnding;
}

/** What a caller hears of a provider's stream. */
async function hear(...steps: readonly BodyStep[]): Promise<Heard> {
  const { io, run } = virtualIo(async (_call, _init, over) => {
    const body = scriptedBody(steps, over);
    return new Response(body.stream, { headers: { "content-type": "text/event-stream" } });
  });
  return await run(
    listen(
      openChatStream(
        {
          baseUrl: "https://openrouter.example/api/v1",
          apiKey: "key-of-the-test",
          model: "m",
          messages: [{ role: "user", content: "hi" }],
        },
        { firstByteTimeoutMs: 45_000, idleTimeoutMs: 30_000, totalTimeoutMs: 300_000, io },
      ),
    ),
  );
}

async function listen(stream: AsyncGenerator<ChatDelta, ChatEnding>): Promise<Heard> {
  let said = "";
  for (;;) {
    const step = await stream.next();
    if (step.done === true) return { said, ending: step.value };
    if (step.value.kind === "text") said += step.value.text;
  }
}

test("litellm#24005: a stream that fails in the middle is a failure, never a success", async () => {
  for (const rest of [[error(502), DONE], [finish("error"), DONE], [BREAK], [HANG]]) {
    const { ending } = await hear(text("half"), ...rest);
    expect([ending.outcome, ending.code === null]).toEqual(["failure", false]);
  }
  const failures = Object.values(CHAT_ENDINGS).filter(({ outcome }) => outcome === "failure");
  expect(failures.length).toBeGreaterThanOrEqual(5);
});

test("litellm#26015: a 429 in the middle of a stream ends it at once, with its own code", async () => {
  const { ending } = await hear(text("half"), error(429), HANG);
  expect(ending).toMatchObject({ kind: "error_in_band", code: "upstream_rate_limited" });
});

test("litellm#19077, #28216: what was seen is not followed by another model's answer", async () => {
  const { ending } = await hear(text("half"), error(500));
  // The engine falls back only from what was not visible.
  expect(ending.visible).toBe(true);
  expect((await hear(error(500))).ending.visible).toBe(false);
});

test("litellm#6957, #6532, #29808: a stream that fails before its first token can be taken elsewhere", async () => {
  for (const steps of [[error("overloaded")], [error(529)], [finish("error")]]) {
    const { ending } = await hear(...steps);
    expect([ending.visible, ending.outcome]).toEqual([false, "failure"]);
  }
  await expect(hear(BREAK)).rejects.toMatchObject({ data: { code: "upstream_unavailable" } });
});

test("OrcaRouter-Lite#115, local-operator#223: an end without a finish reason is a failure", async () => {
  for (const rest of [[], [DONE], [BREAK]] as const)
    expect((await hear(text("part"), ...rest)).ending).toMatchObject({
      kind: "eof_without_finish_reason",
      outcome: "failure",
    });
});

test("OmniRoute#8210: a success that says nothing is a failure", async () => {
  const { ending } = await hear(finish("stop"), DONE);
  expect(ending).toMatchObject({ kind: "empty_success", outcome: "failure" });
});

test("vercel ai#2720, openai-go#227: an error in the body of a 200 is that error", async () => {
  const { io, run } = virtualIo(async () =>
    Response.json({ error: { code: 402, message: "no credit" } }, { status: 200 }),
  );
  const stream = openChatStream(
    { baseUrl: "https://openrouter.example", apiKey: "key-of-the-test", model: "m", messages: [] },
    { firstByteTimeoutMs: 1_000, idleTimeoutMs: 1_000, totalTimeoutMs: 1_000, io },
  );
  const thrown: unknown = await run(
    listen(stream).then(
      ({ ending }) => ({ data: { code: ending.code } }),
      (failed: unknown) => failed,
    ),
  );
  expect(thrown).toMatchObject({ data: { code: "upstream_quota_exceeded" } });
});

test("pi#7441: an answer whose finish reason is missing is kept, and said not to be whole", async () => {
  const { ending, said } = await hear(text("all of "), text("it"), DONE);
  expect([said, ending.finishReason, ending.kind]).toEqual([
    "all of it",
    null,
    "eof_without_finish_reason",
  ]);
});

test("Portkey: callers that failed together do not come back together", () => {
  const waits = Array.from({ length: 100 }, (_, i) =>
    fullJitterMs({ attempt: 3, baseMs: 250, capMs: 2_000, random: () => i / 100 }),
  );
  expect(new Set(waits).size).toBeGreaterThan(90);
  expect(Math.max(...waits)).toBeLessThanOrEqual(2_000);
});

test("the original lost the token whose frame came in two pieces", async () => {
  const whole = text("Hello ") + text("brave ") + text("world") + finish("stop") + DONE;
  const bytes = new TextEncoder().encode(whole);
  for (let cut = 1; cut < bytes.length; cut += 7) {
    const { ending, said } = await hear(bytes.slice(0, cut), bytes.slice(cut));
    expect([cut, said, ending.kind]).toEqual([cut, "Hello brave world", "completed"]);
  }
});

test("the original left a message streaming for ever when its worker died", async () => {
  vi.useFakeTimers();
  vi.setSystemTime(START_MS);
  const t = backend();
  const { streamId } = await begin(t);
  await append(t, streamId, 3, "the first words");
  for (let i = 0; i < 4; i++) await advance(t, 30 * SECOND);
  expect(await session(t)).toMatchObject({ status: "error" });
  const [message] = (await stored(t)).messages.filter(({ role }) => role === "assistant");
  expect(message).toMatchObject({ status: "error", content: "the first words" });
  vi.useRealTimers();
});

test("the original ended a stream twice, or not at all, when its provider failed", async () => {
  vi.useFakeTimers();
  const t = backend();
  const { streamId } = await begin(t);
  const terminal = ['{"type":"error","code":"upstream_error"}'];
  const failed = { status: "error", errorCode: "upstream_error", outcome: "failure" } as const;
  await settle(t, streamId, failed, { frames: terminal });
  await settle(t, streamId, {}, { frames: ['{"type":"done"}'] });
  const page = await t.query(internal.chatTurns.read, { userId: "dana", streamId, afterId: 0 });
  const ends = page.frames.filter(({ data }) => /"type":"(done|error|aborted)"/.test(data));
  expect(ends.map(({ data }) => data)).toEqual(terminal);
  vi.useRealTimers();
});

test("the original could stop a stream only from the instance that ran it", async () => {
  vi.useFakeTimers();
  const t = backend();
  const { messageId, streamId, threadId } = await begin(t);
  await t.mutation(internal.chatTurns.abort, { userId: "dana", threadId, messageId });
  // The worker learns it wherever it runs, with the next words it stores.
  expect(await append(t, streamId, 3, "more")).toMatchObject({ live: true, abort: true });
  vi.useRealTimers();
});

test("the original rewrote a growing message 33 times a second", async () => {
  vi.useFakeTimers();
  const t = backend();
  const { streamId } = await begin(t);
  for (let i = 0; i < 5; i++) await append(t, streamId, 3 + i, "word ");
  const { chunks, messages } = await stored(t);
  expect(messages.find(({ role }) => role === "assistant")?.content).toBe("");
  expect(chunks.length).toBe(6);
  vi.useRealTimers();
});

test("the original read the whole thread for every cycle of a turn", async () => {
  vi.useFakeTimers();
  const t = backend({ documentsRead: 200 });
  vi.stubEnv("CHAT_HISTORY_MESSAGES_MAX", "20");
  const threadId = await newThread(t);
  for (let i = 0; i < 5; i++)
    await t.run(async (ctx) => {
      for (let j = 0; j < 100; j++)
        await ctx.db.insert("messages", { threadId, role: "user", content: `old ${i}.${j}` });
    });
  const turn = await begin(t, { threadId });
  expect(turn.history).toHaveLength(20);
  const list = await dana(t).query(api.messages.list, { threadId, limit: 10 });
  expect(list).toHaveLength(10);
  vi.unstubAllEnvs();
  vi.useRealTimers();
});

test("the original had no limit on how long a stream may say nothing", async () => {
  const { ending } = await hear(text("part"), HANG);
  expect(ending).toMatchObject({ kind: "idle_timeout", code: "upstream_timeout" });
  const beats: BodyStep[] = Array.from({ length: 12 }, () => [
    ": beat\n\n",
    { waitMs: MINUTE / 2 - 1 },
  ]).flat();
  expect((await hear(text("part"), ...beats)).ending.kind).toBe("total_timeout");
});
