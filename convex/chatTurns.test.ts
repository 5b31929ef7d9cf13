import { describe, expect, test, vi } from "vitest";
import {
  advance,
  backend,
  type Backend,
  pending,
  START_MS,
  useStillClock,
} from "../test/edge/backend";
import {
  admit,
  ANSWER_LAST,
  begin,
  dana,
  newThread,
  session,
  settle,
  stored,
  UNSEEN_FAILURE,
} from "../test/edge/chat";
import { DAY, HOUR, MINUTE, SECOND } from "../src/core/time";
import { api } from "./_generated/api";
import type { TurnRequest } from "./model/turnAdmission";

useStillClock();

/** Expects a refusal, and that it wrote nothing but, where it is counted, its count. */
async function refusal(
  t: Backend,
  request: Partial<TurnRequest>,
  counted: { bucket: string; outcome: string } | null = null,
) {
  const { refusals: countedBefore, ...before } = await stored(t);
  const scheduled = await pending(t);
  const verdict = await admit(t, request);
  const { refusals, ...after } = await stored(t);
  expect(after).toEqual(before);
  // Operators may be told of a circuit or a pool; nothing of the turn itself is left behind.
  const told = ({ name }: { readonly name: string }): boolean => name !== "alerts:lookAtProvider";
  expect((await pending(t)).filter(told)).toEqual(scheduled.filter(told));
  if (counted === null) expect(refusals).toEqual(countedBefore);
  else expect(refusals.at(-1)).toMatchObject({ ...counted, count: 1 });
  if (verdict.kind !== "refused") throw new Error(`not refused: ${verdict.kind}`);
  return verdict.error;
}

const openCircuit = (t: Backend, provider: string, openings = 1) =>
  t.run(async (ctx) => {
    await ctx.db.insert("circuitBreakers", {
      provider,
      state: { kind: "open", openedAtMs: START_MS, openings, reason: "consecutive_failures" },
      generation: 7,
      updatedAt: START_MS,
    });
  });

const PRIMARY = "openrouter_chat_primary";
const SECONDARY = "openrouter_chat_secondary";

describe("an admitted turn", () => {
  test("is in the tables as a whole, by one mutation", async () => {
    const t = backend();
    const turn = await begin(t, {
      clientMessageId: "c1",
      addressKey: "address:1",
      idempotency: { key: "k", fingerprint: "f" },
    });
    const rows = await stored(t);
    const { threadId, messageId, streamId } = turn;
    expect(rows.threads).toMatchObject([
      { _id: threadId, userId: "dana", activeStreamId: streamId, lastMessageAt: START_MS },
    ]);
    expect(rows.messages).toMatchObject([
      { threadId, role: "user", content: "hello", clientMessageId: "c1" },
      { _id: messageId, threadId, role: "assistant", content: "", status: "streaming", streamId },
    ]);
    expect(rows.sessions).toMatchObject([
      {
        _id: streamId,
        userId: "dana",
        threadId,
        messageId,
        status: "streaming",
        lastHeartbeatAt: START_MS,
        nextFrameId: 3,
        claimKey: "k",
        permit: { provider: PRIMARY, generation: 0, slotId: rows.slots[0]?._id, fence: 1 },
      },
    ]);
    expect(rows.chunks).toMatchObject([{ streamId, firstFrameId: 1, frames: turn.frames }]);
    expect(rows.slots).toMatchObject([{ p: PRIMARY, h: "dana", f: 1 }]);
    expect(rows.limits.map(({ k }) => k.replace(/#\d+$/, "#")).sort()).toEqual([
      "chat_address:address:1#",
      "chat_stream:user:dana",
      "global:all#",
    ]);
    expect(rows.budgets).toMatchObject([{ userId: "dana", day: "2026-09-21", tokens: 1_002 }]);
    expect(rows.claims).toMatchObject([
      { scope: "chat:dana", key: "k", fingerprint: "f", reference: streamId },
    ]);
    expect([rows.breakers, rows.refusals]).toEqual([[], []]);
    expect(await pending(t)).toEqual([
      { name: "chatTurns:reap", afterMs: 30 * SECOND, args: { streamId } },
    ]);
  });

  test("starts with the frames that say which it is and who answers", async () => {
    const t = backend();
    const { frames, messageId, streamId, threadId } = await begin(t);
    expect(frames.map((data) => JSON.parse(data) as unknown)).toEqual([
      { type: "start", threadId, messageId, streamId },
      {
        type: "provider-route",
        providerId: PRIMARY,
        routeId: "primary",
        modelClass: "agent",
      },
    ]);
  });

  test("tells what is left of its user's limit", async () => {
    vi.stubEnv("RATE_LIMIT_CHAT_STREAM_MAX", "5");
    const { info } = await begin(backend());
    expect(info).toEqual({
      name: "chat_stream",
      limit: 5,
      windowMs: 5 * MINUTE,
      remaining: 4,
      resetMs: MINUTE,
    });
  });

  test.each([
    [undefined, "agent", "anthropic/claude-sonnet-4", "openai/gpt-4.1"],
    ["agent", "agent", "anthropic/claude-sonnet-4", "openai/gpt-4.1"],
    ["fast", "fast", "google/gemini-2.5-flash", "openai/gpt-4.1-mini"],
    ["openai/gpt-4.1-mini", "agent", "openai/gpt-4.1-mini", "openai/gpt-4.1-mini"],
  ])("asked for model %s goes to class %s", async (modelId, modelClass, primary, secondary) => {
    const { route, fallback } = await begin(backend(), modelId === undefined ? {} : { modelId });
    expect(route).toEqual({
      providerId: PRIMARY,
      routeId: "primary",
      modelClass,
      modelId: primary,
    });
    expect(fallback).toMatchObject({ providerId: SECONDARY, modelClass, modelId: secondary });
  });

  test("answers the newest message of a thread, which may be named", async () => {
    const t = backend();
    const threadId = await newThread(t, "first", "second");
    const { messages } = await stored(t);
    const named = messages[1]?._id ?? "";
    const { history } = await begin(t, { threadId, ...ANSWER_LAST, messageId: named });
    expect(history.map(({ content }) => content)).toEqual(["first", "second"]);
    expect((await stored(t)).messages).toHaveLength(3);
  });
});

describe("a turn is refused", () => {
  test("past its user's rate, with the limit and the exact wait", async () => {
    vi.stubEnv("RATE_LIMIT_CHAT_STREAM_MAX", "2");
    vi.stubEnv("RATE_LIMIT_CHAT_STREAM_WINDOW_MS", "60000");
    const t = backend();
    for (let i = 0; i < 2; i++) await settle(t, (await begin(t)).streamId);
    expect(await refusal(t, {}, { bucket: "chat_stream", outcome: "blocked" })).toEqual({
      code: "rate_limited",
      retryAfterMs: 30_000,
      limit: { name: "chat_stream", limit: 2, windowMs: 60_000, remaining: 0, resetMs: 60_000 },
    });
    await begin(t, { userId: "eli" });
    await advance(t, 29_999);
    expect((await admit(t)).kind).toBe("refused");
    await advance(t, 1);
    await begin(t);
  });

  test("past the backstop of all users together", async () => {
    vi.stubEnv("RATE_LIMIT_GLOBAL_MAX", "1");
    const t = backend();
    await begin(t);
    expect(
      await refusal(t, { userId: "eli" }, { bucket: "global", outcome: "blocked" }),
    ).toMatchObject({ code: "rate_limited", limit: { name: "global", limit: 1 } });
  });

  test("past the rate of its address, which is not looked at where it is unknown", async () => {
    vi.stubEnv("RATE_LIMIT_ADDRESS_MAX", "1");
    const t = backend();
    await begin(t, { addressKey: "a" });
    const request = { userId: "eli", addressKey: "a" };
    expect(await refusal(t, request, { bucket: "chat_address", outcome: "blocked" })).toMatchObject(
      { code: "rate_limited", limit: { name: "chat_address" } },
    );
    await begin(t, { userId: "eli", addressKey: "b" });
    await begin(t, { userId: "fay" });
  });

  test("past its user's tokens of the day, until the next", async () => {
    vi.stubEnv("CHAT_TOKENS_PER_DAY", "2000");
    const t = backend();
    const { streamId } = await begin(t);
    await settle(t, streamId, { usage: { ...USED, totalTokens: 1_500 } });
    const untilMidnightMs = DAY - (START_MS % DAY);
    expect(await refusal(t, {}, { bucket: "chat_tokens_day", outcome: "blocked" })).toEqual({
      code: "rate_limited",
      detail: "Today's token budget is spent.",
      retryAfterMs: untilMidnightMs,
      limit: {
        name: "chat_tokens_day",
        limit: 2_000,
        windowMs: DAY,
        remaining: 500,
        resetMs: untilMidnightMs,
      },
    });
    await begin(t, { userId: "eli" });
    vi.setSystemTime(START_MS + untilMidnightMs);
    await begin(t);
  });

  test("while another one streams into the thread", async () => {
    const t = backend();
    const { threadId, streamId } = await begin(t);
    expect(await refusal(t, { threadId })).toMatchObject({
      code: "request_in_progress",
      retryAfterMs: 2 * SECOND,
    });
    await begin(t);
    await settle(t, streamId);
    await begin(t, { threadId });
  });

  test.each([
    [
      "a thread of someone else",
      async (t: Backend) => (await begin(t, { userId: "eli" })).threadId,
    ],
    ["an id that is none", async () => "nonsense"],
    ["an id of another table", async (t: Backend) => (await begin(t)).messageId],
  ])("for %s", async (_, idOf) => {
    const t = backend();
    expect(await refusal(t, { threadId: await idOf(t) })).toEqual({ code: "not_found" });
  });

  test("without anything to answer", async () => {
    const t = backend();
    expect(await refusal(t, ANSWER_LAST)).toMatchObject({ code: "invalid_request" });
    const threadId = await newThread(t);
    expect(await refusal(t, { ...ANSWER_LAST, threadId })).toMatchObject({
      code: "invalid_request",
    });
    await dana(t).mutation(api.messages.send, { threadId, content: "hello" });
    const wrong = { ...ANSWER_LAST, threadId, messageId: threadId };
    expect(await refusal(t, wrong)).toMatchObject({ code: "invalid_request" });
    await settle(t, (await begin(t, { ...ANSWER_LAST, threadId })).streamId);
    expect(await refusal(t, { ...ANSWER_LAST, threadId })).toMatchObject({
      code: "invalid_request",
    });
  });

  test("for a model that is not offered", async () => {
    vi.stubEnv("CHAT_MODEL_ALLOWLIST", "vendor/one");
    const t = backend();
    for (const modelId of ["vendor/two", "openai/gpt-4.1", "FAST", ""])
      expect(await refusal(t, { modelId })).toMatchObject({
        code: "invalid_request",
        issues: [{ path: "modelId" }],
      });
    expect((await begin(t, { modelId: "vendor/one" })).route.modelId).toBe("vendor/one");
  });

  test("while both circuits are open, for as long as the first of them stays so", async () => {
    const t = backend();
    await openCircuit(t, PRIMARY, 2);
    await openCircuit(t, SECONDARY);
    expect(await refusal(t, {}, { bucket: SECONDARY, outcome: "circuit_open" })).toEqual({
      code: "upstream_unavailable",
      retryAfterMs: 45 * SECOND,
    });
  });

  test("while both pools are full, and no limit is debited for that", async () => {
    vi.stubEnv("BULKHEAD_OR_PRI_MAX_CONCURRENT", "1");
    vi.stubEnv("BULKHEAD_OR_SEC_MAX_CONCURRENT", "1");
    const t = backend();
    const first = await begin(t);
    const second = await begin(t);
    expect([first.route.routeId, second.route.routeId]).toEqual(["primary", "secondary"]);
    expect(await refusal(t, {}, { bucket: PRIMARY, outcome: "bulkhead_saturated" })).toEqual({
      code: "overloaded",
      retryAfterMs: SECOND,
    });
    await settle(t, first.streamId);
    expect((await begin(t)).route.routeId).toBe("primary");
  });
});

const USED = {
  promptTokens: 0,
  completionTokens: 0,
  totalTokens: 0,
  cachedTokens: 0,
  reasoningTokens: 0,
  cost: null,
  estimated: false,
};

describe("the secondary route", () => {
  test("takes over while the primary's circuit is open, and has no fallback of its own", async () => {
    const t = backend();
    await openCircuit(t, PRIMARY);
    const { route, fallback } = await begin(t);
    expect(route).toMatchObject({ providerId: SECONDARY, routeId: "secondary" });
    expect(fallback).toBeNull();
    expect((await stored(t)).slots).toMatchObject([{ p: SECONDARY }]);
  });

  test("makes room again when the primary's cooldown is over: one turn probes it", async () => {
    const t = backend();
    await openCircuit(t, PRIMARY);
    vi.setSystemTime(START_MS + MINUTE);
    const probe = await begin(t);
    const other = await begin(t);
    expect([probe.route.routeId, other.route.routeId]).toEqual(["primary", "secondary"]);
    const { sessions } = await stored(t);
    expect(sessions[0]).toMatchObject({ permit: { generation: 7 } });
    expect(sessions.map(({ permit }) => permit?.probeId !== undefined)).toEqual([true, false]);
    await settle(t, probe.streamId);
    expect((await stored(t)).breakers).toMatchObject([
      { state: { kind: "closed" }, generation: 8 },
    ]);
    expect((await begin(t)).route.routeId).toBe("primary");
  });
});

describe("a turn with an idempotency key", () => {
  const KEYED = { idempotency: { key: "k", fingerprint: "f" } };

  test("is replayed, streaming or ended, and a replay takes nothing and writes but its count", async () => {
    vi.stubEnv("RATE_LIMIT_CHAT_STREAM_MAX", "1");
    const t = backend();
    const { streamId } = await begin(t, KEYED);
    for (const end of [false, true]) {
      if (end) await settle(t, streamId);
      const before = await stored(t);
      expect(await admit(t, KEYED)).toEqual({ kind: "replay", streamId });
      const counted = { bucket: "replay", outcome: "duplicate", reason: "chat", count: 1 };
      const { refusals, ...after } = await stored(t);
      expect({ ...after, refusals: before.refusals }).toEqual(before);
      expect(refusals.slice(before.refusals.length)).toMatchObject([counted]);
    }
  });

  test("with another body under the same key is a conflict", async () => {
    const t = backend();
    await begin(t, KEYED);
    const other = { idempotency: { key: "k", fingerprint: "other" }, content: "other" };
    expect(await refusal(t, other)).toEqual({ code: "idempotency_conflict" });
  });

  test("is its user's own", async () => {
    const t = backend();
    await begin(t, KEYED);
    const other = { idempotency: { key: "k", fingerprint: "other" }, userId: "eli" };
    expect((await admit(t, other)).kind).toBe("admitted");
  });

  test("leaves no claim when it is refused", async () => {
    vi.stubEnv("RATE_LIMIT_CHAT_STREAM_MAX", "1");
    const t = backend();
    await begin(t);
    await refusal(t, KEYED, { bucket: "chat_stream", outcome: "blocked" });
    expect((await stored(t)).claims).toEqual([]);
  });

  test("that failed before anything was seen may be tried again", async () => {
    const t = backend();
    const first = await begin(t, KEYED);
    await settle(t, first.streamId, UNSEEN_FAILURE);
    expect((await stored(t)).claims).toEqual([]);
    expect((await begin(t, KEYED)).streamId).not.toBe(first.streamId);
  });

  test.each([
    ["failed after its first token", { ...UNSEEN_FAILURE, visible: true }],
    ["was aborted", { status: "aborted" as const, ending: "client_abort", visible: false }],
  ])("that %s is replayed", async (_, result) => {
    const t = backend();
    const { streamId } = await begin(t, KEYED);
    await settle(t, streamId, result);
    expect(await admit(t, KEYED)).toEqual({ kind: "replay", streamId });
  });

  // The public original: expired keys counted until they were cleaned up, and
  // each duplicate made them live longer.
  test("is forgotten when its time is over, cleaned up or not, whatever came in between", async () => {
    vi.stubEnv("IDEMPOTENCY_TTL_MS", "60000");
    const t = backend();
    const { streamId } = await begin(t, KEYED);
    vi.setSystemTime(START_MS + MINUTE - 1);
    expect(await admit(t, KEYED)).toEqual({ kind: "replay", streamId });
    vi.setSystemTime(START_MS + MINUTE);
    expect((await admit(t, KEYED)).kind).toBe("admitted");
    expect((await stored(t)).claims).toHaveLength(1);
  });

  test("is not answered a second time when its frames are gone", async () => {
    const t = backend();
    const { streamId } = await begin(t, KEYED);
    await settle(t, streamId);
    vi.setSystemTime(START_MS + HOUR - 1);
    expect(await admit(t, KEYED)).toEqual({ kind: "replay", streamId });
    vi.setSystemTime(START_MS + HOUR);
    expect(await refusal(t, KEYED)).toMatchObject({ code: "not_found" });
    await t.run((ctx) => ctx.db.delete("streamSessions", streamId));
    expect(await refusal(t, KEYED)).toMatchObject({ code: "not_found" });
    vi.setSystemTime(START_MS + DAY);
    expect((await admit(t, KEYED)).kind).toBe("admitted");
  });

  test("gives back its own claim only, not that of a turn that took the key over", async () => {
    vi.stubEnv("IDEMPOTENCY_TTL_MS", "60000");
    const t = backend();
    const first = await begin(t, KEYED);
    vi.setSystemTime(START_MS + MINUTE);
    const second = await begin(t, KEYED);
    await settle(t, first.streamId, UNSEEN_FAILURE);
    expect(await admit(t, KEYED)).toEqual({ kind: "replay", streamId: second.streamId });
  });
});

describe("the history a model is shown", () => {
  const shown = async (t: Backend, request: Partial<TurnRequest>) =>
    (await begin(t, request)).history.map(({ content }) => content);

  test("is bounded in messages, the new one counted", async () => {
    vi.stubEnv("CHAT_HISTORY_MESSAGES_MAX", "3");
    const t = backend();
    const threadId = await newThread(t, "1", "2", "3", "4");
    expect(await shown(t, { threadId, content: "5" })).toEqual(["3", "4", "5"]);
  });

  test("is the new message alone where there is room for no other", async () => {
    vi.stubEnv("CHAT_HISTORY_MESSAGES_MAX", "1");
    const t = backend();
    const threadId = await newThread(t, "1", "2");
    expect(await shown(t, { threadId, content: "3" })).toEqual(["3"]);
  });

  test("is bounded in bytes of UTF-8, the new one counted, older ones left out first", async () => {
    vi.stubEnv("CHAT_HISTORY_BYTES_MAX", "4096");
    const t = backend();
    const rockets = "🚀".repeat(250);
    const threadId = await newThread(t, "old", rockets, rockets, rockets);
    expect(await shown(t, { threadId, content: "x".repeat(1_097) })).toHaveLength(3);
    const other = await newThread(t, rockets, "x".repeat(5_000));
    expect(await shown(t, { threadId: other, ...ANSWER_LAST })).toEqual(["x".repeat(5_000)]);
  });

  test("is known to be whole, or not: then ids of its calls may be among those left out", async () => {
    vi.stubEnv("CHAT_HISTORY_MESSAGES_MAX", "3");
    vi.stubEnv("CHAT_HISTORY_BYTES_MAX", "4096");
    const t = backend();
    const isWhole = async (request: Partial<TurnRequest>) =>
      (await begin(t, request)).historyIsWhole;
    expect(await isWhole({ content: "1" })).toBe(true);
    expect(await isWhole({ threadId: await newThread(t, "1", "2"), content: "3" })).toBe(true);
    expect(await isWhole({ threadId: await newThread(t, "1", "2", "3"), content: "4" })).toBe(
      false,
    );
    const long = await newThread(t, "x".repeat(3_000));
    expect(await isWhole({ threadId: long, content: "x".repeat(2_000) })).toBe(false);
  });

  test("counts the arguments of calls among its bytes", async () => {
    vi.stubEnv("CHAT_HISTORY_BYTES_MAX", "4096");
    const t = backend();
    const { threadId, streamId } = await begin(t, { content: "q1" });
    const call = { id: "call", name: "search_web", arguments: `{"q":"${"x".repeat(5_000)}"}` };
    await settle(t, streamId, { toolCalls: [call] });
    expect(await shown(t, { threadId, content: "q2" })).toEqual(["q2"]);
  });

  test("leaves out answers that came to nothing, and keeps those that broke off", async () => {
    const t = backend();
    const { threadId, streamId } = await begin(t, { content: "q1" });
    await settle(t, streamId, UNSEEN_FAILURE);
    const second = await begin(t, { threadId, content: "q2" });
    await settle(t, second.streamId, { ...UNSEEN_FAILURE, content: "half", visible: true });
    expect(await shown(t, { threadId, content: "q3" })).toEqual(["q1", "q2", "half", "q3"]);
  });

  test("is not crowded out by what tools answered", async () => {
    vi.stubEnv("CHAT_HISTORY_MESSAGES_MAX", "4");
    const t = backend();
    const { threadId, streamId } = await begin(t, { content: "q1" });
    const ids = Array.from({ length: 64 }, (_, i) => `call${i}`);
    await settle(t, streamId, {
      content: "important",
      toolCalls: ids.map((id) => ({ id, name: "search_web", arguments: "{}" })),
      toolResults: ids.map((toolCallId) => ({ toolCallId, name: "search_web", content: "x" })),
    });
    const { history } = await begin(t, { threadId, content: "q2" });
    expect(history.filter(({ role }) => role !== "tool").map(({ content }) => content)).toEqual([
      "q1",
      "important",
      "q2",
    ]);
  });

  test("holds no half of a character, though the thread may", async () => {
    const t = backend();
    const threadId = await newThread(t);
    await t.run(async (ctx) => {
      const id = ctx.db.normalizeId("threads", threadId);
      if (id === null) throw new Error("a thread has an id");
      const toolCalls = [{ id: "a", name: "x", arguments: "\ud83e" }];
      await ctx.db.insert("messages", { threadId: id, role: "user", content: "half \ud83e" });
      await ctx.db.insert("messages", { threadId: id, role: "assistant", content: "", toolCalls });
    });
    const { history } = await begin(t, { threadId, content: "whole" });
    expect(JSON.stringify(history)).not.toMatch(/\\ud83e/);
    expect(history).toHaveLength(3);
  });

  test("holds what tools answered", async () => {
    const t = backend();
    const { threadId, streamId } = await begin(t, { content: "q1" });
    const call = { id: "call", name: "search_web", arguments: "{}" };
    const toolResults = [{ toolCallId: "call", name: "search_web", content: "found" }];
    await settle(t, streamId, { toolCalls: [call], toolResults });
    const { history } = await begin(t, { threadId, content: "q2" });
    expect(history).toEqual([
      { role: "user", content: "q1" },
      { role: "assistant", content: "Hi there.", toolCalls: [call] },
      { role: "tool", content: "found", toolCallId: "call" },
      { role: "user", content: "q2" },
    ]);
  });

  test("answers a message sent while tools ran, whose results were stored after it", async () => {
    const t = backend();
    const { threadId, streamId } = await begin(t, { content: "q1" });
    await dana(t).mutation(api.messages.send, { threadId, content: "q2" });
    const call = { id: "call", name: "search_web", arguments: "{}" };
    const toolResults = [{ toolCallId: "call", name: "search_web", content: "found" }];
    await settle(t, streamId, { toolCalls: [call], toolResults });
    expect((await admit(t, { threadId, ...ANSWER_LAST })).kind).toBe("admitted");
  });

  test("says a message once that is sent again under its client id, up to where it stands", async () => {
    const t = backend();
    const request = { content: "q1", clientMessageId: "c1" };
    const { threadId, streamId } = await begin(t, request);
    await settle(t, streamId, { ...UNSEEN_FAILURE, content: "half", visible: true });
    expect(await shown(t, { ...request, threadId })).toEqual(["q1"]);
    expect((await stored(t)).messages.map(({ role }) => role)).toEqual([
      "user",
      "assistant",
      "assistant",
    ]);
  });

  // The public original: every cycle read the whole thread.
  test("is read without reading the thread", async () => {
    vi.stubEnv("CHAT_HISTORY_MESSAGES_MAX", "20");
    const t = backend({ documentsRead: 60 });
    const threadId = await newThread(t);
    await t.run(async (ctx) => {
      for (let i = 0; i < 500; i++)
        await ctx.db.insert("messages", { threadId, role: "user", content: String(i) });
    });
    expect(await shown(t, { threadId, content: "next" })).toHaveLength(20);
  });

  test("of a few large messages is read without reading them all", async () => {
    const t = backend({ bytesRead: 2_000_000 });
    const threadId = await newThread(t);
    const content = "x".repeat(150_000);
    for (let i = 0; i < 40; i++)
      await t.run((ctx) => ctx.db.insert("messages", { threadId, role: "assistant", content }));
    expect(await shown(t, { threadId, content: "next" })).toHaveLength(2);
  });
});

test("what a turn reserved is in its session, whatever the day it ends on", async () => {
  const t = backend();
  vi.setSystemTime(Date.parse("2026-09-21T23:59:59Z"));
  const { streamId } = await begin(t, { content: "x".repeat(400) });
  expect(await session(t)).toMatchObject({ reservedTokens: 1_100, budgetDay: "2026-09-21" });
  vi.setSystemTime(Date.parse("2026-09-22T00:00:05Z"));
  await settle(t, streamId, { usage: { ...USED, totalTokens: 40 } });
  expect((await stored(t)).budgets).toMatchObject([{ day: "2026-09-21", tokens: 40 }]);
});
