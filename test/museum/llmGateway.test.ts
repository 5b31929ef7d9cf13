import { expect, test, vi } from "vitest";
import { internal } from "../../convex/_generated/api";
import { MINUTE, SECOND } from "../../src/core/time";
import type { ChatDelta, ChatEnding } from "../../src/providers/chat";
import { openChatStream } from "../../src/providers/openrouter";
import { BREAK, type BodyStep, HANG, scriptedBody, virtualIo } from "../../src/providers/testing";
import { advance, backend, START_MS } from "../edge/backend";
import { append, begin, dana, newThread, session, settle, stored } from "../edge/chat";
import { api } from "../../convex/_generated/api";
import { DONE, finish, frame, text } from "./chatTurn";

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

// Source: OrcaRouter-Lite#115, local-operator#223
test("OrcaRouter-Lite#115, local-operator#223: an end without a finish reason is a failure", async () => {
  for (const rest of [[], [DONE], [BREAK]] as const)
    expect((await hear(text("part"), ...rest)).ending).toMatchObject({
      kind: "eof_without_finish_reason",
      outcome: "failure",
    });
});

// Source: OmniRoute#8210
test("OmniRoute#8210: a success that says nothing is a failure", async () => {
  const { ending } = await hear(finish("stop"), DONE);
  expect(ending).toMatchObject({ kind: "empty_success", outcome: "failure" });
});

// Source: vercel/ai#2720
test("vercel/ai#2720: an error frame in the stream is that error, and not a stream that broke", async () => {
  // As it was reported: no choices, and the provider's own error as a text in the error.
  const quota = JSON.stringify({ error: { code: 429, status: "RESOURCE_EXHAUSTED" } });
  const frames = [
    frame({ error: { message: quota, code: 429 } }),
    frame({ error: { message: quota, code: "429" }, user_id: "u" }),
  ];
  for (const one of frames) {
    const { ending } = await hear(one);
    expect(ending).toMatchObject({ kind: "error_in_band", code: "upstream_rate_limited" });
    expect(JSON.stringify(ending)).not.toContain("RESOURCE_EXHAUSTED");
  }
});

// Source: openai/openai-go#227
test("openai-go#227: comments between the frames are signs of life, and no frames", async () => {
  const beat = ": OPENROUTER PROCESSING\n\n";
  const heard = await hear(
    beat,
    beat,
    text("all of "),
    beat,
    text("it"),
    finish("stop"),
    beat,
    DONE,
  );
  expect([heard.said, heard.ending.kind]).toEqual(["all of it", "completed"]);
  // Half a minute without one is silence; with one each twenty seconds it is none.
  const alive = [beat, { waitMs: 20_000 }, beat, { waitMs: 20_000 }, text("it"), finish("stop")];
  expect((await hear(...alive)).ending.kind).toBe("completed");
});

// Source: OpenRouter (errors in band)
test("OpenRouter: an error in the body of a 200, before any stream, is that error", async () => {
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

// Source: earendil-works/pi#7441
test("pi#7441: an answer whose finish reason is missing is kept, and said not to be whole", async () => {
  const { ending, said } = await hear(text("all of "), text("it"), DONE);
  expect([said, ending.finishReason, ending.kind]).toEqual([
    "all of it",
    null,
    "eof_without_finish_reason",
  ]);
});

// Source: W2-30
test("the original lost the token whose frame came in two pieces", async () => {
  const whole = text("Hello ") + text("brave ") + text("world") + finish("stop") + DONE;
  const bytes = new TextEncoder().encode(whole);
  for (let cut = 1; cut < bytes.length; cut += 7) {
    const { ending, said } = await hear(bytes.slice(0, cut), bytes.slice(cut));
    expect([cut, said, ending.kind]).toEqual([cut, "Hello brave world", "completed"]);
  }
});

// Source: W2-31
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

// Source: W2-32
test("the original ended a stream more than once: here only the first ending counts", async () => {
  vi.useFakeTimers();
  const t = backend();
  const { streamId } = await begin(t);
  const terminal = ['{"type":"error","code":"upstream_error"}'];
  const failed = { status: "error", errorCode: "upstream_error", outcome: "failure" } as const;
  expect(await settle(t, streamId, failed, { frames: terminal })).toEqual({ settled: true });
  // Whoever comes second, with frames that would follow, is told that it is over.
  const again = { first: 4, frames: ['{"type":"done"}'] };
  expect(await settle(t, streamId, {}, again)).toEqual({ settled: false });
  expect(await append(t, streamId, 4, "more")).toEqual({ live: false });
  const [message] = (await stored(t)).messages.filter(({ role }) => role === "assistant");
  expect(message).toMatchObject({ status: "error", errorCode: "upstream_error" });
  const page = await t.query(internal.chatTurns.read, { userId: "dana", streamId, afterId: 0 });
  const ends = page.frames.filter(({ data }) => /"type":"(done|error|aborted)"/.test(data));
  expect(ends.map(({ data }) => data)).toEqual(terminal);
  vi.useRealTimers();
});

// Source: W2-38
test("the original could stop a stream only from the instance that ran it", async () => {
  vi.useFakeTimers();
  const t = backend();
  const { messageId, streamId, threadId } = await begin(t);
  await t.mutation(internal.chatTurns.abort, { userId: "dana", threadId, messageId });
  // The worker learns it wherever it runs, with the next words it stores.
  expect(await append(t, streamId, 3, "more")).toMatchObject({ live: true, abort: true });
  vi.useRealTimers();
});

// Source: W2-48
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

// Source: W2-37
test("the original had no limit on how long a stream may say nothing", async () => {
  const { ending } = await hear(text("part"), HANG);
  expect(ending).toMatchObject({ kind: "idle_timeout", code: "upstream_timeout" });
  const beats: BodyStep[] = Array.from({ length: 12 }, () => [
    ": beat\n\n",
    { waitMs: MINUTE / 2 - 1 },
  ]).flat();
  expect((await hear(text("part"), ...beats)).ending.kind).toBe("total_timeout");
});
