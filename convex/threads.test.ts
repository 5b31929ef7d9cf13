import { describe, expect, test } from "vitest";
import {
  advance,
  backend,
  type Caller,
  pending,
  refused,
  rowCounts,
  settleAll,
  START_MS,
  useStillClock,
} from "../test/edge/backend";
import { session, settle } from "../test/edge/chat";
import { api } from "./_generated/api";
import type { Id } from "./_generated/dataModel";

useStillClock();

const users = () => {
  const t = backend();
  return { t, dana: t.withIdentity({ subject: "dana" }), eli: t.withIdentity({ subject: "eli" }) };
};

const say = (caller: Caller, threadId: string, ...contents: string[]) =>
  contents.reduce<Promise<unknown>>(
    (sent, content) => sent.then(() => caller.mutation(api.messages.send, { threadId, content })),
    Promise.resolve(),
  );

describe("every public function of threads", () => {
  const calls: [string, (caller: Caller, threadId: string) => Promise<unknown>][] = [
    ["get", (caller, threadId) => caller.query(api.threads.get, { threadId })],
    ["rename", (caller, threadId) => caller.mutation(api.threads.rename, { threadId, title: "x" })],
    ["togglePinned", (caller, threadId) => caller.mutation(api.threads.togglePinned, { threadId })],
    ["remove", (caller, threadId) => caller.mutation(api.threads.remove, { threadId })],
    [
      "createShareToken",
      (caller, threadId) => caller.mutation(api.threads.createShareToken, { threadId }),
    ],
  ];

  test.each(calls)("%s: a foreign, missing or malformed id is not found", async (_, call) => {
    const { t, dana, eli } = users();
    const foreign = await dana.mutation(api.threads.create, {});
    const missing = await eli.mutation(api.threads.create, {});
    await t.run((ctx) => ctx.db.delete("threads", missing));
    const otherTable = await t.run((ctx) => ctx.db.insert("limits", { k: "x", t: 1 }));
    for (const id of [foreign, missing, otherTable, "", "nonsense", "🚀", "x".repeat(5_000)])
      await refused(call(eli, id), "not_found");
    await expect(call(dana, foreign)).resolves.toBeDefined();
  });

  test.each([
    ...calls,
    ["create", (caller: Caller) => caller.mutation(api.threads.create, {})],
    ["list", (caller: Caller) => caller.query(api.threads.list, {})],
    [
      "createShareFork",
      (caller: Caller) => caller.mutation(api.threads.createShareFork, { shareToken: "x" }),
    ],
  ] as typeof calls)("%s: no identity is unauthorized", async (_, call) => {
    const { t, dana } = users();
    await refused(call(t, await dana.mutation(api.threads.create, {})), "unauthorized");
  });
});

describe("a thread", () => {
  test("shows its owner what is there, and no more", async () => {
    const { dana } = users();
    const threadId = await dana.mutation(api.threads.create, {
      title: "  Shoes ",
      modelId: "fast",
    });
    expect(await dana.query(api.threads.get, { threadId })).toEqual({
      _id: threadId,
      _creationTime: START_MS,
      title: "Shoes",
      modelId: "fast",
      lastMessageAt: START_MS,
      isPinned: false,
      isStreaming: false,
      sharedFromThreadId: null,
    });
    await dana.mutation(api.threads.rename, { threadId, title: " Boots " });
    expect(await dana.mutation(api.threads.togglePinned, { threadId })).toEqual({ isPinned: true });
    expect(await dana.query(api.threads.get, { threadId })).toMatchObject({
      title: "Boots",
      isPinned: true,
    });
    expect(await dana.mutation(api.threads.togglePinned, { threadId })).toEqual({
      isPinned: false,
    });
  });

  test.each([
    ["title", { title: "   " }],
    ["title", { title: "x".repeat(201) }],
    ["modelId", { modelId: "" }],
    ["modelId", { modelId: "x".repeat(201) }],
  ])("is not made with a bad %s", async (path, args) => {
    const { t, dana } = users();
    const data = await refused(dana.mutation(api.threads.create, args), "invalid_request");
    expect(data).toMatchObject({ issues: [{ path }] });
    expect(await rowCounts(t)).toEqual({});
  });

  test("is listed to its owner alone, pinned first, then the one spoken in last", async () => {
    const { t, dana, eli } = users();
    const ids: Id<"threads">[] = [];
    for (let i = 0; i < 4; i++) {
      ids.push(await dana.mutation(api.threads.create, { title: `t${i}` }));
      await advance(t, 1_000);
    }
    await eli.mutation(api.threads.create, { title: "other" });
    await say(dana, ids[0] ?? "", "again");
    await dana.mutation(api.threads.togglePinned, { threadId: ids[1] ?? "" });
    const titles = async (limit?: number) =>
      (await dana.query(api.threads.list, limit === undefined ? {} : { limit })).map(
        ({ title }) => title,
      );
    expect(await titles()).toEqual(["t1", "t0", "t3", "t2"]);
    expect(await titles(2)).toEqual(["t1", "t0"]);
    expect(await titles(1)).toEqual(["t1"]);
    for (const odd of [0, -5, NaN]) expect(await titles(odd)).toEqual(["t1"]);
    expect(await titles(1e9)).toHaveLength(4);
  });
});

describe("removing a thread", () => {
  test("takes everything that belonged to it along, in batches, and nothing else", async () => {
    const { t, dana } = users();
    const threadId = await dana.mutation(api.threads.create, {});
    const kept = await dana.mutation(api.threads.create, {});
    await say(dana, kept, "kept");
    await dana.mutation(api.threads.createShareToken, { threadId: kept });
    await dana.mutation(api.threads.createShareToken, { threadId });
    await t.run(async (ctx) => {
      const messageId = await ctx.db.insert("messages", { threadId, role: "user", content: "0" });
      for (let i = 1; i < 450; i++)
        await ctx.db.insert("messages", { threadId, role: "user", content: String(i) });
      for (let i = 0; i < 3; i++) {
        const streamId = await ctx.db.insert("streamSessions", {
          userId: "dana",
          threadId,
          messageId,
          status: "completed",
          startedAt: START_MS,
          endedAt: START_MS,
          lastHeartbeatAt: START_MS,
          nextFrameId: 101,
          storedBytes: 0,
          reservedTokens: 0,
          budgetDay: "2026-09-21",
        });
        for (let first = 1; first <= 100; first++)
          await ctx.db.insert("streamChunks", { streamId, firstFrameId: first, frames: ["{}"] });
      }
    });
    await dana.mutation(api.threads.remove, { threadId });
    await refused(dana.query(api.threads.get, { threadId }), "not_found");
    expect((await rowCounts(t)).messages).toBe(451);
    await settleAll(t);
    expect(await rowCounts(t)).toEqual({ threads: 1, messages: 1, sharedThreads: 1 });
  });

  test("stays within a transaction when its messages are as large as they get", async () => {
    const { t, dana } = users();
    const threadId = await dana.mutation(api.threads.create, {});
    const content = "x".repeat(700 * 1024);
    for (let i = 0; i < 30; i++)
      await t.run((ctx) => ctx.db.insert("messages", { threadId, role: "assistant", content }));
    expect(await dana.query(api.messages.list, { threadId })).toHaveLength(3);
    await dana.mutation(api.threads.remove, { threadId });
    await settleAll(t);
    expect(await rowCounts(t)).toEqual({});
  });

  test("ends the answer that streams into it, and waits for that before it takes the rest", async () => {
    const { t, dana } = users();
    const threadId = await dana.mutation(api.threads.create, {});
    await say(dana, threadId, "hello");
    const { streamId } = await dana.mutation(api.streamSessions.start, { threadId });
    await dana.mutation(api.threads.remove, { threadId });
    await advance(t, 0);
    expect(await session(t)).toMatchObject({ status: "streaming", abortRequestedAt: START_MS });
    // Its worker ends it into a thread that is gone.
    await settle(t, streamId, {
      status: "aborted",
      content: "late",
      toolResults: [{ toolCallId: "c", name: "search_web", content: "{}" }],
      ending: "client_abort",
      outcome: "neutral",
    });
    await settleAll(t);
    const left = await rowCounts(t);
    expect(left).not.toHaveProperty("messages");
    expect(left).not.toHaveProperty("streamSessions");
    expect(left).not.toHaveProperty("streamChunks");
    expect(await pending(t)).toEqual([]);
  });
});

describe("sharing a thread", () => {
  test("lets whoever has the token copy what was said, and nothing more", async () => {
    const { t, dana, eli } = users();
    const threadId = await dana.mutation(api.threads.create, { title: "Shoes", modelId: "fast" });
    await t.run(async (ctx) => {
      const usage = {
        promptTokens: 1,
        completionTokens: 1,
        totalTokens: 2,
        cachedTokens: 0,
        reasoningTokens: 0,
        cost: 1,
        estimated: false,
      };
      const user = { threadId, role: "user" as const };
      const assistant = { threadId, role: "assistant" as const, usage };
      const streamOf = async (status: "completed" | "error" | "streaming") => {
        const messageId = await ctx.db.insert("messages", { ...assistant, content: "", status });
        const streamId = await ctx.db.insert("streamSessions", {
          userId: "dana",
          threadId,
          messageId,
          status,
          startedAt: 0,
          lastHeartbeatAt: 0,
          nextFrameId: 1,
          storedBytes: 0,
          reservedTokens: 0,
          budgetDay: "x",
        });
        return { messageId, streamId };
      };
      await ctx.db.insert("messages", { ...user, content: "q1", clientMessageId: "c1" });
      const good = await streamOf("completed");
      const call = { id: "call", name: "search_web", arguments: "{}" };
      const tool = { threadId, role: "tool" as const, name: "search_web", toolCallId: "call" };
      await ctx.db.patch("messages", good.messageId, {
        content: "a1",
        streamId: good.streamId,
        toolCalls: [call],
      });
      await ctx.db.insert("messages", { ...tool, content: "r1", streamId: good.streamId });
      await ctx.db.insert("messages", { ...user, content: "q2" });
      const bad = await streamOf("error");
      await ctx.db.patch("messages", bad.messageId, { content: "half", streamId: bad.streamId });
      await ctx.db.insert("messages", { ...tool, content: "r2", streamId: bad.streamId });
      const running = await streamOf("streaming");
      await ctx.db.patch("messages", running.messageId, { streamId: running.streamId });
    });
    const { shareToken } = await dana.mutation(api.threads.createShareToken, { threadId });
    expect(shareToken).toMatch(/^[0-9a-f]{64}$/);
    const copyId = await eli.mutation(api.threads.createShareFork, { shareToken });
    expect(await eli.query(api.threads.get, { threadId: copyId })).toMatchObject({
      title: "Shoes",
      modelId: "fast",
      sharedFromThreadId: threadId,
    });
    const copied = await eli.query(api.messages.list, { threadId: copyId });
    expect(copied.map(({ role, content }) => [role, content])).toEqual([
      ["user", "q1"],
      ["assistant", "a1"],
      ["tool", "r1"],
      ["user", "q2"],
    ]);
    for (const message of copied)
      expect(message).toMatchObject({ usage: null, streamId: null, clientMessageId: null });
    await refused(eli.query(api.threads.get, { threadId }), "not_found");
    await refused(dana.query(api.threads.get, { threadId: copyId }), "not_found");
  });

  test("keeps the token hashed, and it dies with the thread", async () => {
    const { t, dana, eli } = users();
    const threadId = await dana.mutation(api.threads.create, {});
    const { shareToken } = await dana.mutation(api.threads.createShareToken, { threadId });
    const row = await t.run((ctx) => ctx.db.query("sharedThreads").first());
    expect(JSON.stringify(row)).not.toContain(shareToken);
    for (const wrong of ["", `${shareToken}0`, shareToken.toUpperCase(), row?.tokenHash ?? "x"])
      await refused(eli.mutation(api.threads.createShareFork, { shareToken: wrong }), "not_found");
    await dana.mutation(api.threads.remove, { threadId });
    await refused(eli.mutation(api.threads.createShareFork, { shareToken }), "not_found");
  });

  test("copies the newest 200 of a long thread", async () => {
    const { t, dana, eli } = users();
    const threadId = await dana.mutation(api.threads.create, {});
    await t.run(async (ctx) => {
      for (let i = 0; i < 250; i++)
        await ctx.db.insert("messages", { threadId, role: "user", content: String(i) });
    });
    const { shareToken } = await dana.mutation(api.threads.createShareToken, { threadId });
    const copyId = await eli.mutation(api.threads.createShareFork, { shareToken });
    const copied = await eli.query(api.messages.list, { threadId: copyId });
    expect([copied.length, copied[0]?.content, copied.at(-1)?.content]).toEqual([200, "50", "249"]);
  });
});
