import { describe, expect, test } from "vitest";
import {
  backend,
  pending,
  refused,
  rowCounts,
  START_MS,
  useStillClock,
} from "../test/edge/backend";
import { begin, dana, newThread, session, settle, stored } from "../test/edge/chat";
import { api } from "./_generated/api";

useStillClock();

describe("starting an answer", () => {
  test("admits it as the route would, and hands it to a background action", async () => {
    const t = backend();
    const threadId = await newThread(t, "first", "second");
    const started = await dana(t).mutation(api.streamSessions.start, { threadId, webSearch: true });
    const { threads, messages, chunks, slots } = await stored(t);
    expect(threads).toMatchObject([{ activeStreamId: started.streamId }]);
    expect(messages.at(-1)).toMatchObject({ _id: started.messageId, role: "assistant" });
    expect(slots).toMatchObject([{ p: "openrouter_chat_primary", h: "dana" }]);
    const [run] = (await pending(t)).filter(({ name }) => name === "chat:run");
    expect(run?.args).toMatchObject({
      turn: {
        userId: "dana",
        streamId: started.streamId,
        route: { routeId: "primary" },
        fallback: { routeId: "secondary" },
        history: [
          { role: "user", content: "first" },
          { role: "user", content: "second" },
        ],
        frames: chunks[0]?.frames,
        webSearch: true,
      },
    });
  });

  test("is refused with the codes of the route, and then writes nothing", async () => {
    const t = backend();
    const threadId = await newThread(t, "hello");
    const before = await rowCounts(t);
    const start = (args: { modelId?: string; messageId?: string; threadId?: string }) =>
      dana(t).mutation(api.streamSessions.start, { threadId, ...args });
    await refused(start({ modelId: "not/offered" }), "invalid_request");
    await refused(start({ messageId: "nonsense" }), "invalid_request");
    await refused(start({ threadId: "nonsense" }), "not_found");
    expect(await rowCounts(t)).toEqual(before);
    await start({});
    await refused(start({}), "request_in_progress");
  });

  test("needs an identity, and a thread of one's own with a message to answer", async () => {
    const t = backend();
    const threadId = await newThread(t, "hello");
    await refused(t.mutation(api.streamSessions.start, { threadId }), "unauthorized");
    const eli = t.withIdentity({ subject: "eli" });
    await refused(eli.mutation(api.streamSessions.start, { threadId }), "not_found");
    const empty = await newThread(t);
    await refused(
      dana(t).mutation(api.streamSessions.start, { threadId: empty }),
      "invalid_request",
    );
  });
});

describe("aborting a stream", () => {
  test("asks its worker to end", async () => {
    const t = backend();
    const { streamId } = await begin(t);
    await dana(t).mutation(api.streamSessions.abort, { streamId });
    expect(await session(t)).toMatchObject({ status: "streaming", abortRequestedAt: START_MS });
  });

  test("does nothing to one that has ended", async () => {
    const t = backend();
    const { streamId } = await begin(t);
    await settle(t, streamId);
    const before = await stored(t);
    await dana(t).mutation(api.streamSessions.abort, { streamId });
    expect(await stored(t)).toEqual(before);
  });

  test("is for its owner alone: anyone else's, missing or malformed is not found", async () => {
    const t = backend();
    const { streamId, threadId } = await begin(t);
    const abort = (caller: ReturnType<typeof dana>, id: string) =>
      caller.mutation(api.streamSessions.abort, { streamId: id });
    await refused(abort(t, streamId), "unauthorized");
    for (const id of [streamId, threadId, "", "nonsense"])
      await refused(abort(t.withIdentity({ subject: "eli" }), id), "not_found");
    expect(await session(t)).not.toHaveProperty("abortRequestedAt");
  });
});
