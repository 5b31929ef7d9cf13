import { ConvexHttpClient } from "convex/browser";
import { makeFunctionReference } from "convex/server";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type Backend, startBackend, until } from "./backend";
import { chat, parseFrames, postChat, resume, startOf, terminals, textOf } from "./sse";

interface Message {
  readonly _id: string;
  readonly role: string;
  readonly content: string;
  readonly status: string | null;
  readonly ending: string | null;
  readonly errorCode: string | null;
}

const query = (name: string) => makeFunctionReference<"query">(name);
const mutation = (name: string) => makeFunctionReference<"mutation">(name);
const action = (name: string) => makeFunctionReference<"action">(name);

let backend: Backend;
beforeAll(async () => {
  backend = await startBackend({
    env: {
      RATE_LIMIT_CHAT_STREAM_MAX: "1000",
      // The cases below fail on purpose, one after the other: no breaker may open between them.
      CIRCUIT_OPENROUTER_PRIMARY_THRESHOLD: "100",
      CIRCUIT_OPENROUTER_SECONDARY_THRESHOLD: "100",
    },
  });
});
afterAll(async () => {
  await backend.close();
});
afterEach(async () => {
  await backend.resetFaults();
});

async function client(user = "alice"): Promise<ConvexHttpClient> {
  const convex = new ConvexHttpClient(backend.host.cloudUrl);
  convex.setAuth(await backend.token(user));
  return convex;
}

async function answerOf(threadId: string, messageId: string): Promise<Message | undefined> {
  const convex = await client();
  const messages = (await convex.query(query("messages:list"), { threadId })) as Message[];
  return messages.find(({ _id }) => _id === messageId);
}

const settled = (message: Message | undefined) => message?.status !== "streaming";

describe("a turn with a tool", () => {
  test("streams route, tool events, text, usage and one terminal event; the tables agree", async () => {
    const frames = await chat(backend, "What is new in espresso machines?", { webSearch: true });
    const types = frames.map(({ event }) => event.type);
    expect(types.slice(0, 2)).toEqual(["start", "provider-route"]);
    for (const type of [
      "tool-input-start",
      "tool-input-available",
      "tool-output-partially-available",
      "content",
      "usage",
    ])
      expect(types).toContain(type);
    expect(terminals(frames).map(({ event }) => event.type)).toEqual(["done"]);
    expect(types.at(-1)).toBe("done");
    const { threadId, messageId } = startOf(frames);
    const stored = await answerOf(threadId, messageId);
    expect(stored).toMatchObject({ status: "completed", content: textOf(frames) });
  });

  test("the action runs the same turn", async () => {
    const convex = await client();
    const threadId = (await convex.mutation(mutation("threads:create"), {})) as string;
    await convex.mutation(mutation("messages:send"), { threadId, content: "Hello there" });
    const answer = (await convex.action(action("chat:streamAnswer"), {
      threadId,
      webSearch: true,
    })) as { streamId: string; messageId: string; status: string };
    expect(answer.status).toBe("completed");
    const frames = parseFrames(await (await resume(backend, answer.streamId)).text());
    expect((await answerOf(threadId, answer.messageId))?.content).toBe(textOf(frames));
  });
});

describe("resume", () => {
  test("cut after any frame, what follows the last id completes the stored text", async () => {
    const live = await chat(backend, "[[words:120]] tell me a story");
    const { messageId, streamId, threadId } = startOf(live);
    const stored = (await answerOf(threadId, messageId))?.content;
    const all = parseFrames(await (await resume(backend, streamId)).text());
    expect(all.map(({ event }) => event)).toEqual(live.map(({ event }) => event));
    expect(all.map(({ id }) => id)).toEqual(all.map((_, i) => i + 1));
    for (const { id } of live) {
      if (id === null) continue;
      const response = await resume(backend, streamId, { lastEventId: id });
      const rest = response.status === 204 ? [] : parseFrames(await response.text());
      expect(rest).toEqual(all.slice(id));
      expect(textOf([...all.slice(0, id), ...rest])).toBe(stored);
    }
  });

  test("a client that leaves does not end the turn; another follows it live to its end", async () => {
    await backend.fault("openrouter", { latencyMs: 300 });
    const leave = new AbortController();
    const response = await postChat(
      backend,
      { message: { content: "[[words:200]] [[slow:10]] go on" } },
      { signal: leave.signal },
    );
    const reader = response.body?.getReader();
    const first = await reader?.read();
    leave.abort();
    const { threadId, messageId, streamId } = startOf(
      parseFrames(new TextDecoder().decode(first?.value)),
    );
    const followed = parseFrames(await (await resume(backend, streamId)).text());
    expect(terminals(followed).map(({ event }) => event.type)).toEqual(["done"]);
    const stored = await until(() => answerOf(threadId, messageId), settled);
    expect(stored).toMatchObject({ status: "completed", content: textOf(followed) });
  });

  test("another user's stream, a missing and a malformed one are the same 404", async () => {
    const { streamId } = startOf(await chat(backend, "hello"));
    const codes = await Promise.all(
      [
        resume(backend, streamId, { user: "mallory" }),
        resume(backend, `${streamId.slice(0, -1)}x`),
        resume(backend, "not-an-id"),
      ].map(async (pending) => {
        const response = await pending;
        return [response.status, response.headers.get("x-error-code")];
      }),
    );
    expect(codes).toEqual(Array.from({ length: 3 }, () => [404, "not_found"]));
  });
});

test("abort ends a running answer as aborted, in the stream and in the tables", async () => {
  const response = await postChat(backend, {
    message: { content: "[[words:2000]] [[slow:10]] never stop" },
  });
  const reader = response.body?.getReader();
  const decoder = new TextDecoder();
  let text = decoder.decode((await reader?.read())?.value, { stream: true });
  const { threadId, messageId } = startOf(parseFrames(text));
  const aborted = await fetch(`${backend.siteUrl}/api/chat/abort`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      authorization: `Bearer ${await backend.token("alice")}`,
    },
    body: JSON.stringify({ threadId, messageId }),
  });
  expect(aborted.status).toBe(204);
  for (;;) {
    const part = await reader?.read();
    if (part === undefined || part.done) break;
    text += decoder.decode(part.value, { stream: true });
  }
  const frames = parseFrames(text);
  expect(terminals(frames).map(({ event }) => event.type)).toEqual(["aborted"]);
  expect(await answerOf(threadId, messageId)).toMatchObject({
    status: "aborted",
    content: textOf(frames),
  });
});

describe("endings of the provider's stream", () => {
  test.each([
    ["[[words:5]]", "done", "completed", "completed"],
    ["[[finish:length]]", "done", "completed", "length"],
    ["[[finish:content_filter]]", "done", "completed", "content_filter"],
    ["[[error:inband]]", "error", "error", "error_in_band"],
    ["[[eof]]", "error", "error", "eof_without_finish_reason"],
    ["[[empty]]", "error", "error", "empty_success"],
    ["[[badjson]]", "error", "error", "invalid_json_chunk"],
  ])("%s ends with %s", async (prompt, event, status, ending) => {
    const frames = await chat(backend, `${prompt} please`);
    expect(terminals(frames).map((frame) => frame.event.type)).toEqual([event]);
    const { threadId, messageId } = startOf(frames);
    expect(await answerOf(threadId, messageId)).toMatchObject({
      status,
      ending,
      content: textOf(frames),
    });
  });

  test.each([
    [400, "upstream_bad_request"],
    [401, "upstream_auth"],
    [402, "upstream_quota_exceeded"],
    [403, "upstream_auth"],
    [408, "upstream_timeout"],
    [429, "upstream_rate_limited"],
    [502, "upstream_unavailable"],
    [503, "upstream_unavailable"],
  ])("status %d before the first byte ends the turn as %s", async (status, code) => {
    await backend.fault("openrouter", { status });
    const frames = await chat(backend, "hello");
    expect(terminals(frames).map(({ event }) => event)).toMatchObject([{ type: "error", code }]);
    const { threadId, messageId } = startOf(frames);
    expect(await answerOf(threadId, messageId)).toMatchObject({ status: "error", errorCode: code });
  });
});

describe("refusals", () => {
  test("a second turn in a streaming thread is 409", async () => {
    await backend.fault("openrouter", { latencyMs: 500 });
    const first = await postChat(backend, { message: { content: "[[words:20]] slow" } });
    const reader = first.body?.getReader();
    const { threadId } = startOf(
      parseFrames(new TextDecoder().decode((await reader?.read())?.value)),
    );
    const second = await postChat(backend, { threadId, message: { content: "me too" } });
    expect([second.status, second.headers.get("x-error-code")]).toEqual([
      409,
      "request_in_progress",
    ]);
    await reader?.cancel();
  });

  test("the same Idempotency-Key replays the same stream; another body is 422", async () => {
    const headers = { "idempotency-key": '"key-1"' };
    const body = { message: { content: "only once" } };
    const first = await postChat(backend, body, { headers });
    const frames = parseFrames(await first.text());
    const again = await postChat(backend, body, { headers });
    expect(again.headers.get("x-idempotent-replay")).toBe("1");
    expect(parseFrames(await again.text()).map(({ event }) => event)).toEqual(
      frames.map(({ event }) => event),
    );
    const other = await postChat(backend, { message: { content: "twice" } }, { headers });
    expect([other.status, other.headers.get("x-error-code")]).toEqual([
      422,
      "idempotency_conflict",
    ]);
  });
});
