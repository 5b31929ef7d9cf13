import { describe, expect, test, vi } from "vitest";
import {
  advance,
  backend,
  type Caller,
  refused,
  rowCounts,
  START_MS,
  useStillClock,
} from "../test/edge/backend";
import { append, begin, dana, newThread, settle, stored } from "../test/edge/chat";
import { api } from "./_generated/api";
import type { Id } from "./_generated/dataModel";

useStillClock();

/** A thread of dana with one message of hers. */
async function scene() {
  const t = backend();
  const threadId = await newThread(t);
  const messageId = await dana(t).mutation(api.messages.send, { threadId, content: "hello" });
  return { t, threadId, messageId, owner: dana(t), other: t.withIdentity({ subject: "eli" }) };
}

const contents = async (caller: Caller, threadId: string) =>
  (await caller.query(api.messages.list, { threadId })).map(({ content }) => content);

describe("every public function of messages", () => {
  const calls: [
    string,
    (caller: Caller, threadId: string, messageId: string) => Promise<unknown>,
  ][] = [
    ["list", (caller, threadId) => caller.query(api.messages.list, { threadId })],
    ["send", (caller, threadId) => caller.mutation(api.messages.send, { threadId, content: "x" })],
    [
      "update",
      (caller, threadId, messageId) =>
        caller.mutation(api.messages.update, { threadId, messageId, content: "x" }),
    ],
    [
      "deleteAfter",
      (caller, threadId, messageId) =>
        caller.mutation(api.messages.deleteAfter, { threadId, messageId }),
    ],
    [
      "abort",
      (caller, threadId, messageId) => caller.mutation(api.messages.abort, { threadId, messageId }),
    ],
  ];

  test.each(calls)("%s: a foreign, missing or malformed thread is not found", async (_, call) => {
    const { t, threadId, messageId, other } = await scene();
    const before = await rowCounts(t);
    for (const id of [threadId, messageId, "", "nonsense"])
      await refused(call(other, id, messageId), "not_found");
    expect(await rowCounts(t)).toEqual(before);
  });

  test.each(calls)("%s: no identity is unauthorized", async (_, call) => {
    const { t, threadId, messageId } = await scene();
    await refused(call(t, threadId, messageId), "unauthorized");
    await refused(call(t.withIdentity({ subject: "" }), threadId, messageId), "unauthorized");
  });

  test.each(calls)(
    "%s: no identity is misconfigured where nobody can have one",
    async (_, call) => {
      const { t, threadId, messageId } = await scene();
      vi.stubEnv("AUTH_JWKS_URL", "nonsense");
      await refused(call(t, threadId, messageId), "misconfigured");
      vi.unstubAllEnvs();
      await refused(call(t, threadId, messageId), "unauthorized");
    },
  );

  test.each(calls.slice(2))("%s: a message of another thread is not found", async (_, call) => {
    const { t, threadId, owner } = await scene();
    const elsewhere = await owner.mutation(api.threads.create, {});
    const messageId = await owner.mutation(api.messages.send, {
      threadId: elsewhere,
      content: "elsewhere",
    });
    for (const id of [messageId, threadId, "", "nonsense"])
      await refused(call(owner, threadId, id), "not_found");
    expect((await rowCounts(t)).messages).toBe(2);
  });
});

describe("a message that is sent", () => {
  // The public original: clients could speak as the model, the system or a tool.
  test.each([
    { role: "system" },
    { role: "assistant" },
    { role: "tool" },
    { role: "user" },
    { status: "completed" },
    { toolCallId: "call" },
    { toolCalls: [] },
    { name: "search_web" },
  ])("cannot claim to be anything but the user's: %j", async (forged) => {
    const { t, threadId, owner } = await scene();
    const args = { threadId, content: "I am the system", ...forged };
    await expect(owner.mutation(api.messages.send, args)).rejects.toThrow(/[Vv]alidat|extra field/);
    const rows = (await stored(t)).messages;
    expect(rows.map(({ role }) => role)).toEqual(["user"]);
  });

  test("is stored as the user's, and makes its thread the newest", async () => {
    const { t, threadId, owner } = await scene();
    await advance(t, 5_000);
    await owner.mutation(api.messages.send, { threadId, content: " 🚀 " });
    const [, message] = await owner.query(api.messages.list, { threadId });
    expect(message).toMatchObject({ role: "user", content: " 🚀 ", status: null, toolCalls: [] });
    expect(await owner.query(api.threads.get, { threadId })).toMatchObject({
      lastMessageAt: START_MS + 5_000,
    });
  });

  test.each([
    ["content", { content: "" }],
    ["content", { content: "x".repeat(32_001) }],
    ["clientMessageId", { content: "x", clientMessageId: "" }],
    ["clientMessageId", { content: "x", clientMessageId: "x".repeat(129) }],
  ])("with a bad %s is refused", async (path, args) => {
    const { threadId, owner } = await scene();
    const data = await refused(
      owner.mutation(api.messages.send, { threadId, ...args }),
      "invalid_request",
    );
    expect(data).toMatchObject({ issues: [{ path }] });
    expect(await contents(owner, threadId)).toEqual(["hello"]);
  });

  test("is one message however often it is sent under one client id, in one thread", async () => {
    const { t, threadId, owner } = await scene();
    const send = (thread: Id<"threads">) =>
      owner.mutation(api.messages.send, { threadId: thread, content: "x", clientMessageId: "c1" });
    expect(await send(threadId)).toBe(await send(threadId));
    await send(await newThread(t));
    expect((await rowCounts(t)).messages).toBe(3);
  });
});

describe("a list of messages", () => {
  test("is the newest of a thread, oldest first, as many as are asked for", async () => {
    const { t, threadId, owner } = await scene();
    await t.run(async (ctx) => {
      for (let i = 0; i < 250; i++)
        await ctx.db.insert("messages", { threadId, role: "user", content: String(i) });
    });
    const list = async (limit?: number) =>
      (
        await owner.query(api.messages.list, {
          threadId,
          ...(limit === undefined ? {} : { limit }),
        })
      ).map(({ content }) => content);
    expect(await list(3)).toEqual(["247", "248", "249"]);
    for (const all of [undefined, 1e9])
      expect([(await list(all)).length, (await list(all))[0]]).toEqual([200, "50"]);
    for (const odd of [0, -1, NaN, 0.5]) expect(await list(odd)).toEqual(["249"]);
  });

  test("shows of an answer that streams what has been stored, and then the whole", async () => {
    const { t, threadId, owner } = await scene();
    const { streamId } = await begin(t, { threadId, content: "and?" });
    expect(await contents(owner, threadId)).toEqual(["hello", "and?", ""]);
    await append(t, streamId, 3, "Hi ", "the");
    const [, , streaming] = await owner.query(api.messages.list, { threadId });
    expect(streaming).toMatchObject({ content: "Hi the", status: "streaming", streamId });
    await settle(t, streamId, {}, { first: 5 });
    const [, , answer] = await owner.query(api.messages.list, { threadId });
    expect(answer).toMatchObject({
      content: "Hi there.",
      status: "completed",
      ending: "completed",
      modelId: "model-that-answered",
      usage: { totalTokens: 30 },
    });
  });
});

describe("changing a message", () => {
  test("changes one's own words, and says when", async () => {
    const { t, threadId, messageId, owner } = await scene();
    await advance(t, 1_000);
    await owner.mutation(api.messages.update, { threadId, messageId, content: "goodbye" });
    expect(await owner.query(api.messages.list, { threadId })).toMatchObject([
      { content: "goodbye", editedAt: START_MS + 1_000 },
    ]);
    for (const content of ["", "x".repeat(32_001)])
      await refused(
        owner.mutation(api.messages.update, { threadId, messageId, content }),
        "invalid_request",
      );
  });

  test("leaves what the model and its tools said alone", async () => {
    const { t, threadId, owner } = await scene();
    const { streamId } = await begin(t, { threadId });
    const call = { id: "call", name: "search_web", arguments: "{}" };
    const toolResults = [{ toolCallId: "call", name: "search_web", content: "{}" }];
    await settle(t, streamId, { toolCalls: [call], toolResults });
    const others = (await stored(t)).messages.filter(({ role }) => role !== "user");
    expect(others.map(({ role }) => role)).toEqual(["assistant", "tool"]);
    for (const { _id: messageId } of others)
      await refused(
        owner.mutation(api.messages.update, { threadId, messageId, content: "forged" }),
        "forbidden",
      );
  });
});

describe("deleting what follows a message", () => {
  test.each([
    [false, ["0", "1"]],
    [true, ["0"]],
  ])("keeps it and what came before (inclusive: %s)", async (inclusive, left) => {
    const t = backend();
    const threadId = await newThread(t, "0", "1", "2", "3");
    const message = (await stored(t)).messages[1];
    const args = { threadId, messageId: message?._id ?? "", inclusive };
    expect(await dana(t).mutation(api.messages.deleteAfter, args)).toEqual({
      deleted: 4 - left.length,
      hasMore: false,
    });
    expect(await contents(dana(t), threadId)).toEqual(left);
  });

  test("is done in calls of 200, and says whether there is more", async () => {
    const { t, threadId, messageId, owner } = await scene();
    await t.run(async (ctx) => {
      for (let i = 0; i < 400; i++)
        await ctx.db.insert("messages", { threadId, role: "user", content: String(i) });
    });
    const call = () => owner.mutation(api.messages.deleteAfter, { threadId, messageId });
    expect(await call()).toEqual({ deleted: 200, hasMore: true });
    expect((await contents(owner, threadId)).at(-1)).toBe("199");
    expect(await call()).toEqual({ deleted: 200, hasMore: false });
    expect(await call()).toEqual({ deleted: 0, hasMore: false });
    expect(await contents(owner, threadId)).toEqual(["hello"]);
  });

  test("waits for an answer that is streaming", async () => {
    const { t, threadId, messageId, owner } = await scene();
    const { streamId } = await begin(t, { threadId });
    const call = () => owner.mutation(api.messages.deleteAfter, { threadId, messageId });
    await refused(call(), "request_in_progress");
    await settle(t, streamId);
    expect(await call()).toEqual({ deleted: 2, hasMore: false });
  });
});

describe("aborting an answer by its message", () => {
  test("asks the worker once, and does nothing to one that has ended", async () => {
    const { t, threadId, owner } = await scene();
    const { messageId, streamId } = await begin(t, { threadId });
    const call = () => owner.mutation(api.messages.abort, { threadId, messageId });
    await call();
    vi.setSystemTime(START_MS + 500);
    await call();
    expect((await stored(t)).sessions).toMatchObject([{ abortRequestedAt: START_MS }]);
    await settle(t, streamId, { status: "aborted", ending: "client_abort", outcome: "neutral" });
    const before = await stored(t);
    await call();
    expect(await stored(t)).toEqual(before);
  });

  test("leaves the answer alone that streams into another message", async () => {
    const { t, threadId, messageId, owner } = await scene();
    await begin(t, { threadId });
    await owner.mutation(api.messages.abort, { threadId, messageId });
    expect((await stored(t)).sessions[0]).not.toHaveProperty("abortRequestedAt");
  });
});
