import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import {
  advance,
  backend,
  type Backend,
  pending,
  refused,
  settleAll,
  START_MS,
  useStillClock,
} from "../test/edge/backend";
import {
  append,
  begin,
  contentFrame,
  dana,
  session,
  settle,
  stored,
  UNSEEN_FAILURE,
  USER,
} from "../test/edge/chat";
import { NOT_RUN } from "../src/channels/chat/callEvents";
import { utf8Bytes } from "../src/core/bytes";
import { DAY, HOUR, MINUTE, SECOND } from "../src/core/time";
import { api, internal } from "./_generated/api";
import type { Id } from "./_generated/dataModel";

useStillClock();

type StreamId = Id<"streamSessions">;

const read = (t: Backend, streamId: string, afterId: number, userId = USER) =>
  t.query(internal.chatTurns.read, { userId, streamId, afterId });

const heartbeat = (t: Backend, streamId: StreamId, first = 3) => append(t, streamId, first);

/** Everything after an id, page by page, as a reader that resumes gets it. */
async function readAll(t: Backend, streamId: string, afterId: number) {
  const frames: { id: number; data: string }[] = [];
  for (let lastId = afterId; ;) {
    const page = await read(t, streamId, lastId);
    frames.push(...page.frames);
    lastId = page.frames.at(-1)?.id ?? lastId;
    if (page.frames.length === 0 || page.ended) return { frames, ended: page.ended };
  }
}

describe("what a worker appends", () => {
  test("is stored with the next ids, and renews its pulse", async () => {
    const t = backend();
    const { streamId, frames } = await begin(t);
    vi.setSystemTime(START_MS + 700);
    expect(await append(t, streamId, 3, "a", "b")).toEqual({
      live: true,
      abort: false,
      nextFrameId: 5,
    });
    const [a, b] = [contentFrame("a"), contentFrame("b")];
    expect(await session(t)).toMatchObject({
      nextFrameId: 5,
      lastHeartbeatAt: START_MS + 700,
      storedBytes: [...frames, a, b].join("").length,
    });
    expect((await read(t, streamId, 2)).frames).toEqual([
      { id: 3, data: a },
      { id: 4, data: b },
    ]);
  });

  test("is stored once, though the reply was lost and it comes again with more", async () => {
    const t = backend();
    const { streamId } = await begin(t);
    await append(t, streamId, 3, "a", "b");
    expect(await append(t, streamId, 3, "a", "b")).toMatchObject({ nextFrameId: 5 });
    expect(await append(t, streamId, 3, "a", "b", "c")).toMatchObject({ nextFrameId: 6 });
    await settle(t, streamId, {}, { first: 4, frames: ["b", "c", "d"].map(contentFrame) });
    const { frames } = await readAll(t, streamId, 2);
    expect(frames.map(({ id, data }) => [id, data])).toEqual(
      ["a", "b", "c", "d"].map((text, i) => [i + 3, contentFrame(text)]),
    );
  });

  test("is refused where frames before it are missing", async () => {
    const t = backend();
    const { streamId } = await begin(t);
    await expect(append(t, streamId, 4, "b")).rejects.toThrow("must follow");
  });

  test("is refused, and writes nothing, after the end", async () => {
    const t = backend();
    const { streamId } = await begin(t);
    await settle(t, streamId);
    const before = await stored(t);
    expect(await append(t, streamId, 4, "late")).toEqual({ live: false });
    expect(await stored(t)).toEqual(before);
  });

  test("renews the slot of the turn, once half of its lease has passed", async () => {
    vi.stubEnv("BULKHEAD_OR_PRI_LEASE_TTL_MS", "60000");
    const t = backend();
    const { streamId } = await begin(t);
    const expiry = async () => ((await stored(t)).slots[0]?.e ?? 0) - START_MS;
    expect(await expiry()).toBe(MINUTE);
    vi.setSystemTime(START_MS + 30 * SECOND);
    await heartbeat(t, streamId);
    expect(await expiry()).toBe(MINUTE);
    vi.setSystemTime(START_MS + 31 * SECOND);
    await heartbeat(t, streamId);
    expect(await expiry()).toBe(91 * SECOND);
  });

  // The public original: each flush rewrote the growing message.
  test("leaves the message alone until the end, and is written once", async () => {
    const t = backend();
    const { streamId } = await begin(t);
    const before = (await stored(t)).messages;
    for (let i = 0; i < 50; i++) await append(t, streamId, 3 + i, "word ");
    const { chunks, messages } = await stored(t);
    expect(messages).toEqual(before);
    expect(chunks.flatMap(({ frames }) => frames)).toHaveLength(52);
  });
});

describe("stored frames", () => {
  test("are read back exactly from any id on, however they were chunked", async () => {
    const texts = fc.array(fc.string({ unit: "binary", maxLength: 40 }), { maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(fc.array(texts, { maxLength: 8 }), fc.nat(60), async (chunks, afterId) => {
        const t = backend();
        const { streamId, frames } = await begin(t);
        const said = [...frames];
        for (const chunk of chunks) {
          await append(t, streamId, said.length + 1, ...chunk);
          said.push(...chunk.map(contentFrame));
        }
        await settle(t, streamId, {}, { first: said.length + 1, frames: ['{"type":"done"}'] });
        said.push('{"type":"done"}');
        const all = await readAll(t, streamId, Math.min(afterId, said.length));
        const expected = said.map((data, i) => ({ id: i + 1, data }));
        expect(all.frames).toEqual(expected.slice(afterId));
        expect(all.ended).toBe(true);
      }),
      { numRuns: 6 },
    );
  });

  test("of a long answer come in pages, and end with the last one only", async () => {
    const t = backend();
    const { streamId } = await begin(t);
    const texts = Array.from({ length: 9_000 }, (_, i) => `${i} `);
    await append(t, streamId, 3, ...texts);
    await settle(t, streamId, {}, { first: 9_003 });
    const first = await read(t, streamId, 0);
    expect([first.frames.length, first.ended]).toEqual([2_000, false]);
    const all = await readAll(t, streamId, 0);
    expect(all.frames.map(({ id }) => id)).toEqual(Array.from({ length: 9_003 }, (_, i) => i + 1));
    expect(all.ended).toBe(true);
  });

  test("of the largest answer fit the platform's limits, stored at once or in parts", async () => {
    const t = backend();
    const { streamId, threadId } = await begin(t);
    const wide = "語".repeat(40 * 1024);
    await append(t, streamId, 3, ...Array.from({ length: 30 }, () => wide));
    for (let i = 30; i < 34; i++) await append(t, streamId, 3 + i, wide);
    // A document holds 1 MiB.
    const sizes = (await stored(t)).chunks.map(({ frames }) => utf8Bytes(frames.join("")));
    expect(Math.max(...sizes)).toBeLessThanOrEqual(256 * 1024);
    const answer = (await dana(t).query(api.messages.list, { threadId })).at(-1);
    expect(answer?.content).toHaveLength(34 * 40 * 1024);
    expect((await readAll(t, streamId, 0)).frames).toHaveLength(36);
  });

  test("are live until the end", async () => {
    const t = backend();
    const { streamId } = await begin(t);
    expect(await read(t, streamId, 2)).toEqual({ frames: [], ended: false, newestId: 2 });
    await settle(t, streamId);
    expect(await read(t, streamId, 2)).toMatchObject({ frames: [{ id: 3 }], ended: true });
    expect(await read(t, streamId, 3)).toEqual({ frames: [], ended: true, newestId: 3 });
  });

  test("are their owner's: anyone else's, missing or malformed is not found", async () => {
    const t = backend();
    const { streamId, threadId } = await begin(t);
    await refused(read(t, streamId, 0, "eli"), "not_found");
    for (const id of [threadId, "", "nonsense"]) await refused(read(t, id, 0), "not_found");
  });

  test("are gone an hour after the end, cleaned up or not", async () => {
    const t = backend();
    const { streamId } = await begin(t);
    await settle(t, streamId);
    vi.setSystemTime(START_MS + HOUR - 1);
    expect((await read(t, streamId, 0)).ended).toBe(true);
    vi.setSystemTime(START_MS + HOUR);
    await refused(read(t, streamId, 0), "not_found");
  });
});

describe("a settlement", () => {
  test("writes everything that remains of a turn", async () => {
    const t = backend();
    const { messageId, streamId, threadId } = await begin(t);
    await append(t, streamId, 3, "Hi ");
    await advance(t, SECOND);
    const call = { id: "call", name: "search_web", arguments: "{}" };
    const toolResults = [{ toolCallId: "call", name: "search_web", content: '{"results":[]}' }];
    const frames = [contentFrame("there."), '{"type":"done"}'];
    const result = { reasoning: "hm", toolCalls: [call], toolResults };
    expect(await settle(t, streamId, result, { first: 4, frames })).toEqual({ settled: true });
    const rows = await stored(t);
    expect(rows.sessions).toMatchObject([
      { status: "completed", ending: "completed", endedAt: START_MS + SECOND, nextFrameId: 6 },
    ]);
    for (const field of ["permit", "reaperId", "errorCode"])
      expect(rows.sessions[0]).not.toHaveProperty(field);
    expect(rows.messages.slice(1)).toMatchObject([
      {
        _id: messageId,
        content: "Hi there.",
        status: "completed",
        ending: "completed",
        modelId: "model-that-answered",
        reasoningContent: "hm",
        toolCalls: [call],
        usage: { totalTokens: 30, cost: 0.001 },
      },
      { threadId, role: "tool", toolCallId: "call", content: '{"results":[]}', streamId },
    ]);
    expect(rows.slots).toMatchObject([{ e: START_MS + SECOND, t: { c: { c: 1 } } }]);
    expect(rows.slots[0]).not.toHaveProperty("h");
    expect(rows.threads[0]).toMatchObject({ lastMessageAt: START_MS + SECOND });
    expect(rows.threads[0]).not.toHaveProperty("activeStreamId");
    expect(rows.budgets).toMatchObject([{ tokens: 30 }]);
    expect(await pending(t)).toEqual([]);
  });

  test("happens once: a second one changes nothing", async () => {
    const t = backend();
    const { streamId } = await begin(t);
    await settle(t, streamId);
    const before = await stored(t);
    expect(await settle(t, streamId, UNSEEN_FAILURE)).toEqual({ settled: false });
    expect(await stored(t)).toEqual(before);
  });

  test("leaves the turn alone that streams into the thread by then", async () => {
    const t = backend();
    const { threadId, streamId } = await begin(t);
    await t.run((ctx) => ctx.db.patch("threads", threadId, { activeStreamId: undefined }));
    const later = await begin(t, { threadId });
    await settle(t, streamId);
    expect((await stored(t)).threads).toMatchObject([{ activeStreamId: later.streamId }]);
  });

  test("of failures opens the circuit, and neither an abort nor our own fault counts", async () => {
    vi.stubEnv("CIRCUIT_OPENROUTER_PRIMARY_THRESHOLD", "2");
    const t = backend();
    const end = async (outcome: "failure" | "neutral" | "infrastructure") => {
      const { streamId } = await begin(t);
      await settle(t, streamId, { ...UNSEEN_FAILURE, outcome });
      const { breakers, slots } = await stored(t);
      return breakers[0]?.state.kind ?? slots.flatMap((slot) => slot.t?.x ?? []).length;
    };
    // The public original: contention counted against the provider.
    for (const outcome of ["infrastructure", "neutral"] as const)
      for (let i = 0; i < 3; i++) expect(await end(outcome)).toBe(0);
    expect(await end("failure")).toBe(1);
    expect(await end("infrastructure")).toBe(1);
    expect(await end("failure")).toBe("open");
  });

  test("of an error says which, in the session and in the message", async () => {
    const t = backend();
    const { streamId } = await begin(t);
    await settle(t, streamId, UNSEEN_FAILURE);
    const { messages, sessions } = await stored(t);
    const expected = {
      status: "error",
      ending: "error_in_band",
      errorCode: "upstream_unavailable",
    };
    expect(sessions).toMatchObject([expected]);
    expect(messages.at(-1)).toMatchObject({ ...expected, content: "" });
  });

  test.each([
    [5_000, 5_000],
    [0, 0],
  ])("of %i tokens leaves the budget at what was spent", async (totalTokens, left) => {
    const t = backend();
    const { streamId } = await begin(t);
    await settle(t, streamId, {
      usage: {
        promptTokens: 0,
        completionTokens: totalTokens,
        totalTokens,
        cachedTokens: 0,
        reasoningTokens: 0,
        cost: null,
        estimated: true,
      },
    });
    expect((await stored(t)).budgets).toMatchObject([{ tokens: left }]);
  });
});

describe("changing to the secondary route", () => {
  const change = (t: Backend, streamId: StreamId, attempts?: number) =>
    t.mutation(internal.chatTurns.switchRoute, {
      streamId,
      outcome: "failure",
      ...(attempts === undefined ? {} : { attempts }),
    });

  test("settles the one and takes the other", async () => {
    const t = backend();
    const { streamId } = await begin(t);
    expect(await change(t, streamId)).toEqual({ ok: true });
    const { breakers, slots } = await stored(t);
    expect(breakers).toEqual([]);
    expect(slots).toMatchObject([
      { p: "openrouter_chat_primary", e: START_MS, t: { c: { c: 1, f: 1 } } },
      { p: "openrouter_chat_secondary", e: START_MS + 10 * MINUTE, h: USER },
    ]);
    expect(slots[0]).not.toHaveProperty("h");
    expect(await session(t)).toMatchObject({ permit: { provider: "openrouter_chat_secondary" } });
    expect(await change(t, streamId)).toEqual({ ok: false });
    await settle(t, streamId);
    expect((await stored(t)).slots.map(({ e, h }) => [e, h])).toEqual([
      [START_MS, undefined],
      [START_MS, undefined],
    ]);
  });

  test("leaves the turn where it is when there is no room on the other", async () => {
    vi.stubEnv("BULKHEAD_OR_SEC_MAX_CONCURRENT", "1");
    const t = backend();
    const [first, second] = [await begin(t), await begin(t)];
    await change(t, first.streamId);
    expect(await change(t, second.streamId)).toEqual({ ok: false });
    const { sessions, refusals } = await stored(t);
    expect(sessions[1]).toMatchObject({ permit: { provider: "openrouter_chat_primary" } });
    expect(refusals).toMatchObject([
      { bucket: "openrouter_chat_secondary", outcome: "bulkhead_saturated" },
    ]);
  });

  test("takes what each route was asked again from its own retry budget", async () => {
    const t = backend();
    const { streamId } = await begin(t);
    await change(t, streamId, 3);
    await settle(t, streamId, { attempts: 2 });
    expect((await stored(t)).slots).toMatchObject([
      { p: "openrouter_chat_primary", t: { c: { r: 2 } } },
      { p: "openrouter_chat_secondary", t: { c: { r: 1 } } },
    ]);
  });

  test("is not for a turn that has ended", async () => {
    const t = backend();
    const { streamId } = await begin(t);
    await settle(t, streamId);
    expect(await change(t, streamId)).toEqual({ ok: false });
  });
});

// The public original: a message whose worker died stayed streaming for ever.
test("a turn that says more than a document holds ends all the same, with less of it", async () => {
  const t = backend();
  const { streamId } = await begin(t);
  const call = { id: "a", name: "search_web", arguments: "x".repeat(200_000) };
  const wide = "\u65e5".repeat(300_000);
  const huge = { content: wide, reasoning: wide, toolCalls: [call] };
  expect(await settle(t, streamId, huge)).toEqual({ settled: true });
  const message = (await stored(t)).messages.find(({ role }) => role === "assistant");
  expect(message?.status).toBe("completed");
  expect(message?.content).toMatch(/^\u65e5+$/);
  expect(message).not.toHaveProperty("toolCalls");
});

describe("a worker that is not heard of", () => {
  test("for 30 seconds is dead: its stream ends as an error, once, with what was stored", async () => {
    const t = backend();
    const { streamId, threadId } = await begin(t);
    await append(t, streamId, 3, "Hi ", "the");
    await advance(t, 30 * SECOND - 1);
    expect(await session(t)).toMatchObject({ status: "streaming" });
    await advance(t, 1);
    const rows = await stored(t);
    expect(rows.sessions).toMatchObject([
      { status: "error", ending: "worker_lost", errorCode: "internal_error", nextFrameId: 6 },
    ]);
    expect(rows.messages.at(-1)).toMatchObject({ content: "Hi the", status: "error" });
    expect(rows.threads[0]).not.toHaveProperty("activeStreamId");
    expect(rows.slots).toMatchObject([{ e: START_MS + 30 * SECOND }]);
    expect(rows.slots[0]).not.toHaveProperty("h");
    // Nobody knows what it spent, so what was reserved stays spent.
    expect(rows.budgets).toMatchObject([{ tokens: 1_002 }]);
    expect(rows.breakers).toEqual([]);
    const { frames } = await readAll(t, streamId, 4);
    expect(frames.map(({ data }) => JSON.parse(data) as unknown)).toMatchObject([
      { type: "error", code: "internal_error", retryable: true },
    ]);
    // The worker was slow, not dead: what it says now comes too late.
    expect(await append(t, streamId, 5, "re")).toEqual({ live: false });
    expect(await settle(t, streamId, {}, { first: 5 })).toEqual({ settled: false });
    await settleAll(t);
    expect(await stored(t)).toEqual(rows);
    await begin(t, { threadId });
  });

  test("had calls: those that ended are kept with their results, the others are ended for it", async () => {
    const t = backend();
    const { streamId } = await begin(t);
    const frame = (type: string, toolCallId: string, more: object) =>
      JSON.stringify({ type, toolCallId, ...more });
    const done = { toolName: "search_web", state: "streaming" };
    const output = { toolName: "search_web", output: { found: 1 }, degraded: false };
    await t.mutation(internal.chatTurns.append, {
      streamId,
      firstFrameId: 3,
      frames: [
        frame("tool-input-start", "a", done),
        frame("tool-input-delta", "a", { inputTextDelta: "{}", argsSnapshot: "{}" }),
        frame("tool-input-available", "a", { toolName: "search_web", input: {} }),
        frame("tool-output-partially-available", "a", output),
        frame("tool-input-start", "b", done),
        frame("tool-input-delta", "b", { inputTextDelta: '{"q', argsSnapshot: '{"q' }),
        frame("tool-input-start", "c", done),
        frame("tool-input-available", "c", { toolName: "search_web", input: {} }),
      ],
    });
    await advance(t, 30 * SECOND);
    const { frames } = await readAll(t, streamId, 10);
    expect(frames.map(({ data }) => JSON.parse(data) as unknown)).toMatchObject([
      { type: "tool-input-available", toolCallId: "b", input: '{"q' },
      { type: "tool-output-partially-available", toolCallId: "b", output: NOT_RUN },
      { type: "tool-output-partially-available", toolCallId: "c", output: NOT_RUN },
      { type: "error" },
    ]);
    const { messages } = await stored(t);
    expect(messages.find(({ role }) => role === "assistant")?.toolCalls).toEqual([
      { id: "a", name: "search_web", arguments: "{}" },
      { id: "b", name: "search_web", arguments: '{"q' },
      { id: "c", name: "search_web", arguments: "" },
    ]);
    const results = messages.filter(({ role }) => role === "tool");
    expect(results.map(({ content, toolCallId }) => [toolCallId, content])).toEqual([
      ["a", '{"found":1}'],
      ["b", NOT_RUN],
      ["c", NOT_RUN],
    ]);
  });

  test("is left alone while it is heard of", async () => {
    const t = backend();
    const { streamId } = await begin(t);
    for (let i = 0; i < 30; i++) {
      await advance(t, 5 * SECOND);
      expect(await heartbeat(t, streamId)).toMatchObject({ live: true });
    }
    await advance(t, 29 * SECOND);
    expect(await session(t)).toMatchObject({ status: "streaming" });
    await advance(t, SECOND);
    expect(await session(t)).toMatchObject({ status: "error" });
    expect(await pending(t)).toEqual([]);
  });

  test("after it was asked to abort has aborted", async () => {
    const t = backend();
    const { streamId } = await begin(t);
    await dana(t).mutation(api.streamSessions.abort, { streamId });
    await advance(t, 30 * SECOND);
    expect(await session(t)).toMatchObject({ status: "aborted", ending: "client_abort" });
    expect((await readAll(t, streamId, 2)).frames).toEqual([{ id: 3, data: '{"type":"aborted"}' }]);
  });

  test.each([
    ["nothing", [], 0],
    ["another route only", ['{"type":"provider-route"}'], 0],
    ["a thought", ['{"type":"reasoning","content":"hm"}'], 1],
    ["a tool call", ['{"type":"tool-input-start"}'], 1],
    ["a word", [contentFrame("a")], 1],
  ])("and had said %s: its key is free again, or not", async (_, frames, claims) => {
    const t = backend();
    const { streamId } = await begin(t, { idempotency: { key: "k", fingerprint: "f" } });
    await t.mutation(internal.chatTurns.append, { streamId, firstFrameId: 3, frames });
    await advance(t, 30 * SECOND);
    expect((await stored(t)).claims).toHaveLength(claims);
  });
});

describe("aborting by thread and message", () => {
  test("is told to the worker with its next chunk", async () => {
    const t = backend();
    const { messageId, streamId, threadId } = await begin(t);
    await t.mutation(internal.chatTurns.abort, { userId: USER, threadId, messageId });
    expect(await append(t, streamId, 3, "a")).toMatchObject({ live: true, abort: true });
    expect(await session(t)).toMatchObject({ status: "streaming" });
  });

  test("is refused for a thread that is not the user's, or a message that is not the thread's", async () => {
    const t = backend();
    const { messageId, threadId } = await begin(t);
    const other = await begin(t);
    const abort = (args: Partial<{ userId: string; threadId: string; messageId: string }>) =>
      t.mutation(internal.chatTurns.abort, { userId: USER, threadId, messageId, ...args });
    for (const args of [{ userId: "eli" }, { threadId: "" }, { threadId: messageId }])
      await refused(abort(args), "not_found");
    for (const id of [other.messageId, threadId, ""])
      await refused(abort({ messageId: id }), "invalid_request");
    expect((await stored(t)).sessions.map((row) => "abortRequestedAt" in row)).toEqual([
      false,
      false,
    ]);
  });
});

describe("cleanup", () => {
  const clean = (t: Backend) => t.mutation(internal.chatTurns.cleanupExpired, {});

  test("deletes streams an hour after their end, and the budgets of past days", async () => {
    const t = backend();
    const { streamId } = await begin(t);
    await begin(t, { userId: "eli" });
    await settle(t, streamId);
    vi.setSystemTime(START_MS + HOUR);
    expect(await clean(t)).toEqual({ deleted: 0 });
    vi.setSystemTime(START_MS + HOUR + 1);
    expect(await clean(t)).toEqual({ deleted: 3 });
    const { sessions, chunks, budgets } = await stored(t);
    expect([sessions.length, chunks.length, budgets.length]).toEqual([1, 1, 2]);
    vi.setSystemTime(START_MS + 2 * DAY);
    await clean(t);
    expect((await stored(t)).budgets).toEqual([]);
  });

  test("goes on by itself in batches that fit a transaction", async () => {
    const t = backend();
    for (let i = 0; i < 3; i++) {
      const { streamId } = await begin(t);
      for (let chunk = 0; chunk < 5; chunk++)
        await append(t, streamId, 3 + chunk, "x".repeat(900 * 1024));
      await settle(t, streamId, {}, { first: 8 });
    }
    vi.setSystemTime(START_MS + 2 * HOUR);
    await clean(t);
    expect((await stored(t)).chunks.length).toBeGreaterThan(0);
    await settleAll(t);
    const { sessions, chunks } = await stored(t);
    expect([sessions, chunks]).toEqual([[], []]);
  });
});
