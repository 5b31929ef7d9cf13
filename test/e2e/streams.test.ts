import { createServer } from "node:net";
import type { FunctionReturnType } from "convex/server";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { api } from "../../convex/_generated/api";
import { HOUR, SECOND } from "../../src/core/time";
import { type Backend, clientOf, startBackend, until } from "./backend";
import {
  chat,
  type Frame,
  parseFrames,
  postChat,
  Reader,
  resume,
  startOf,
  terminals,
  textOf,
} from "./sse";

type Message = FunctionReturnType<typeof api.messages.list>[number];

const PRIMARY = "anthropic/claude-sonnet-4";
const SECONDARY = "openai/gpt-4.1";

let backend: Backend;
/** How far the deployment's clock is ahead. */
let aheadMs = 0;
beforeAll(async () => {
  backend = await startBackend({
    injection: { nowMs: () => Date.now() + aheadMs },
    env: {
      RATE_LIMIT_CHAT_STREAM_MAX: "1000",
      RATE_LIMIT_ADDRESS_MAX: "100000",
      BULKHEAD_OR_PRI_MAX_CONCURRENT: "200",
      BULKHEAD_OR_SEC_MAX_CONCURRENT: "200",
      // The cases below fail on purpose: no breaker may open between them.
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

async function messageOf(
  frames: readonly Frame[],
  user = "alice",
): Promise<Message & { readonly role: "assistant" }> {
  const { threadId, messageId } = startOf(frames);
  const client = await clientOf(backend, user);
  const stored = await until(
    async () =>
      (await client.query(api.messages.list, { threadId })).find(({ _id }) => _id === messageId),
    (message) => message?.status !== "streaming",
  );
  if (stored?.role !== "assistant") throw new Error("the answer is an assistant's");
  return { ...stored, role: "assistant" };
}

const begun = (frames: readonly Frame[]): boolean => frames.length > 0;
const speaks = (frames: readonly Frame[]): boolean => textOf(frames) !== "";

async function ask(content: string, user = "alice"): Promise<Reader> {
  return new Reader(await postChat(backend, { message: { content } }, { user }));
}

async function abort(ids: { threadId: string; messageId: string }, user = "alice") {
  return await fetch(`${backend.siteUrl}/api/chat/abort`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      authorization: `Bearer ${await backend.token(user)}`,
    },
    body: JSON.stringify(ids),
  });
}

const types = (frames: readonly Frame[]): string[] => frames.map(({ event }) => event.type);

describe("a client that is cut off", () => {
  /** What a client has after a cut and a resume: all up to the last id, then what follows it. */
  const lastIdOf = (seen: readonly Frame[]): number =>
    Math.max(0, ...seen.map(({ id }) => id ?? 0));

  test("at any byte has, after it resumed, the stored text and the same frames", async () => {
    const live = await ask("[[words:300]] [[slow:10]] [[reason]] a long story");
    const bytes = Buffer.from((await live.end(), live.text));
    const stored = await messageOf(live.frames);
    const all = parseFrames(await (await resume(backend, startOf(live.frames).streamId)).text());
    expect(all.map(({ id }) => id)).toEqual(all.map((_, i) => i + 1));
    expect(all.map(({ event }) => event)).toEqual(live.frames.map(({ event }) => event));
    expect(textOf(all)).toBe(stored.content);
    // Frames that carried an id carried this one.
    for (const [i, { id }] of live.frames.entries()) if (id !== null) expect(id).toBe(i + 1);
    const rest = new Map<number, Frame[]>();
    // Every byte around the ends of frames, and every so many between them.
    const ends = [...live.text.matchAll(/\n\n/g)].map(({ index }) =>
      Buffer.byteLength(live.text.slice(0, index)),
    );
    const cuts = [
      ...ends.filter((_, i) => i % 5 === 0).flatMap((end) => [end, end + 1, end + 2, end + 3]),
      ...Array.from({ length: 150 }, (_, i) => Math.floor((i * bytes.length) / 150)),
    ];
    for (const cut of cuts) {
      const seen = parseFrames(bytes.subarray(0, cut).toString());
      const lastId = lastIdOf(seen);
      if (!rest.has(lastId)) {
        const response = await resume(backend, startOf(all).streamId, { lastEventId: lastId });
        rest.set(lastId, response.status === 204 ? [] : parseFrames(await response.text()));
      }
      const later = rest.get(lastId) ?? [];
      expect(later).toEqual(all.slice(lastId));
      expect(textOf([...seen.slice(0, lastId), ...later])).toBe(stored.content);
    }
    // The answer was long enough for ids in the middle.
    expect(rest.size).toBeGreaterThan(4);
  });

  test("again and again while the answer streams misses nothing and sees nothing twice", async () => {
    await Promise.all(
      Array.from({ length: 6 }, async (_, i) => {
        const user = `cut${i}`;
        const first = await ask("[[words:240]] [[slow:15]] go on", user);
        const { streamId } = startOf(await first.until(begun));
        for (let reads = 0; reads < 5 * i; reads++) await first.more();
        await first.leave();
        let kept = first.frames.slice(0, lastIdOf(first.frames));
        for (let round = 0; terminals(kept).length === 0; round++) {
          const lastEventId = kept.length;
          const response = await resume(backend, streamId, { lastEventId, user });
          if (response.status === 204) break;
          const reader = new Reader(response);
          // Cut after a few reads, then a few more each time.
          for (let reads = 0; reads <= round; reads++) if (!(await reader.more())) break;
          await reader.leave();
          expect(reader.frames.map(({ id }) => id)).toEqual(
            reader.frames.map((__, k) => lastEventId + k + 1),
          );
          kept = [...kept, ...reader.frames];
        }
        const stored = await messageOf(kept, user);
        expect(textOf(kept)).toBe(stored.content);
        expect(types(terminals(kept))).toEqual(["done"]);
        expect(stored.status).toBe("completed");
      }),
    );
  });

  test("may name the last id in the query, in no other form, and none beyond the end", async () => {
    const frames = await chat(backend, "[[words:5]] short");
    const { streamId } = startOf(frames);
    const url = `${backend.siteUrl}/api/chat/stream?streamId=${streamId}`;
    const headers = { authorization: `Bearer ${await backend.token("alice")}` };
    const after = async (query: string, lastEventId?: string) =>
      await fetch(`${url}${query}`, {
        headers: {
          ...headers,
          ...(lastEventId === undefined ? {} : { "last-event-id": lastEventId }),
        },
      });
    const byQuery = parseFrames(await (await after("&lastEventId=2")).text());
    expect(byQuery[0]?.id).toBe(3);
    expect((await after("", String(frames.length))).status).toBe(204);
    for (const beyond of [frames.length + 1, 999_999_999]) {
      const answer = await after("", String(beyond));
      expect(answer.status).toBe(400);
      expect(await answer.json()).toMatchObject({
        code: "invalid_request",
        issues: [{ path: "Last-Event-ID" }],
      });
      expect((await after(`&lastEventId=${beyond}`)).status).toBe(400);
    }
    for (const wrong of ["-1", "1.5", "x", "1e3", "0x1", "99999999999"])
      expect([wrong, (await after("", wrong)).status]).toEqual([wrong, 400]);
    expect((await after("&lastEventId=1&lastEventId=2")).status).toBe(400);
    expect((await after("&other=1")).status).toBe(400);
  });

  test("names no id that a stream has yet to give, while it runs", async () => {
    const live = await ask("[[words:40]] [[slow:50]] a story that goes on");
    const { streamId } = startOf(await live.until(begun));
    const early = await resume(backend, streamId, { lastEventId: 100_000 });
    expect(early.status).toBe(400);
    expect(await early.json()).toMatchObject({
      code: "invalid_request",
      issues: [{ path: "Last-Event-ID" }],
    });
    // The newest one that was seen is followed to the end.
    const seen = lastIdOf(live.frames);
    const follower = parseFrames(
      await (await resume(backend, streamId, { lastEventId: seen })).text(),
    );
    await live.end();
    expect(follower[0]?.id).toBe(seen + 1);
    expect(types(terminals(follower))).toEqual(["done"]);
  });

  test("an hour after the end finds nothing any more", async () => {
    const frames = await chat(backend, "[[words:5]] forget me");
    const { streamId } = startOf(frames);
    aheadMs += HOUR - 10 * SECOND;
    expect((await resume(backend, streamId)).status).toBe(200);
    aheadMs += 11 * SECOND;
    expect((await resume(backend, streamId)).status).toBe(404);
    // What was said stays.
    expect((await messageOf(frames)).content).toBe(textOf(frames));
  });
});

describe("an abort", () => {
  const expectAborted = async (reader: Reader): Promise<void> => {
    const frames = await reader.end();
    expect(types(terminals(frames))).toEqual(["aborted"]);
    expect(frames.at(-1)?.event.type).toBe("aborted");
    expect(await messageOf(frames)).toMatchObject({
      status: "aborted",
      ending: "client_abort",
      content: textOf(frames),
    });
  };

  test("ends the answer whatever it waits for, and the thread takes the next", async () => {
    await backend.fault("ebay", { hang: true });
    const moments: readonly (readonly [string, (frames: readonly Frame[]) => boolean])[] = [
      ["[[words:5000]] [[slow:20]] text flows", speaks],
      ["[[wait:60000]] the provider has said nothing", begun],
      ["[[words:9]] [[hang]] the provider hangs", speaks],
      [
        '[[tool:search_products {"query":"abort me"}]] a tool runs',
        (frames) => types(frames).includes("tool-input-available"),
      ],
    ];
    await Promise.all(
      moments.map(async ([prompt, when]) => {
        const reader = await ask(prompt);
        const { threadId, messageId } = startOf(await reader.until(when));
        expect((await abort({ threadId, messageId })).status).toBe(204);
        await expectAborted(reader);
        const body = { threadId, message: { content: "[[words:2]] again" } };
        const next = await postChat(backend, body);
        expect(types(terminals(parseFrames(await next.text())))).toEqual(["done"]);
      }),
    );
  });

  test("by function works as well: of the message and of the stream", async () => {
    const client = await clientOf(backend, "alice");
    const readers = [
      await ask("[[words:5000]] [[slow:20]] one"),
      await ask("[[words:5000]] [[slow:20]] two"),
    ];
    const [one, two] = await Promise.all(
      readers.map(async (reader) => startOf(await reader.until(speaks))),
    );
    if (one === undefined || two === undefined) throw new Error("two answers began");
    const { threadId, messageId } = one;
    await client.mutation(api.messages.abort, { threadId, messageId });
    await client.mutation(api.streamSessions.abort, { streamId: two.streamId });
    await Promise.all(readers.map(expectAborted));
  });

  test("of what has ended, is another's or is not there changes nothing", async () => {
    const frames = await chat(backend, "[[words:3]] done");
    const { threadId, messageId, streamId } = startOf(frames);
    const other = startOf(await chat(backend, "[[words:3]] another thread"));
    const code = async (pending: Promise<Response>) => {
      const response = await pending;
      return [response.status, response.headers.get("x-error-code")];
    };
    expect(await code(abort({ threadId, messageId }))).toEqual([204, null]);
    expect(await code(abort({ threadId, messageId }, "mallory"))).toEqual([404, "not_found"]);
    expect(await code(abort({ threadId: "x", messageId }))).toEqual([404, "not_found"]);
    for (const wrong of ["x", other.messageId, streamId])
      expect(await code(abort({ threadId, messageId: wrong }))).toEqual([400, "invalid_request"]);
    expect((await messageOf(frames)).status).toBe("completed");
  });
});

describe("a provider that fails", () => {
  const errors = (frames: readonly Frame[]) => terminals(frames).map(({ event }) => event.code);
  const routes = (frames: readonly Frame[]) =>
    frames
      .filter(({ event }) => event.type === "provider-route")
      .map(({ event }) => event["routeId"]);

  test("on the first route before a token is replaced by the second", async () => {
    const only = "[[only:claude]] [[words:12]]";
    const prompts = ["[[error:503]]", "[[error:429]]", "[[error:402]]", "[[error:400]]"];
    await Promise.all(
      [...prompts, "[[empty]]"].map(async (how) => {
        const frames = await chat(backend, `${how} ${only}`);
        expect([how, routes(frames), types(terminals(frames))]).toEqual([
          how,
          ["primary", "secondary"],
          ["done"],
        ]);
        const stored = await messageOf(frames);
        expect(stored).toMatchObject({
          status: "completed",
          content: textOf(frames),
          modelId: SECONDARY,
        });
      }),
    );
  });

  test.each(["[[cut]]", "[[eof]]", "[[badjson]]", "[[error:inband]]", "[[error:bare]]"])(
    "after a token with %s ends the turn: nobody continues another's sentence",
    async (how) => {
      const frames = await chat(backend, `${how} [[only:claude]] [[words:12]]`);
      expect(routes(frames)).toEqual(["primary"]);
      expect(types(terminals(frames))).toEqual(["error"]);
      const stored = await messageOf(frames);
      expect(stored).toMatchObject({ status: "error", content: textOf(frames), modelId: PRIMARY });
      expect(stored.content).not.toBe("");
      // The error is told once, in the stream and in the table alike.
      expect(stored.errorCode).toBe(errors(frames)[0]);
    },
  );

  test("by refusing the connection is unavailable", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address() as { port: number };
    await new Promise((resolve) => server.close(resolve));
    await backend.setEnv({ OPENROUTER_BASE_URL: `http://127.0.0.1:${port}/api/v1` });
    try {
      const frames = await chat(backend, "anybody there?");
      expect(routes(frames)).toEqual(["primary", "secondary"]);
      expect(errors(frames)).toEqual(["upstream_unavailable"]);
    } finally {
      await backend.setEnv({ OPENROUTER_BASE_URL: null });
    }
  });

  test.each([
    [{ disconnect: true }, "upstream_unavailable"],
    [{ status: 500 }, "upstream_unavailable"],
    [{ status: 418 }, null],
    [{ status: 200, body: "not a stream" }, null],
    [{ status: 200, body: { error: { code: 502, message: "x" } } }, null],
    [{ status: 302 }, null],
    [{ cutAfterBytes: 0 }, null],
    [{ cutAfterBytes: 3 }, null],
  ])("with %j ends the turn as an upstream failure", async (fault, code) => {
    await backend.fault("openrouter", fault);
    const frames = await chat(backend, "[[words:3]] hello");
    expect(types(terminals(frames))).toEqual(["error"]);
    const [told] = errors(frames);
    if (code === null) expect(told).toMatch(/^upstream_/);
    else expect(told).toBe(code);
    expect(await messageOf(frames)).toMatchObject({ status: "error", errorCode: told });
  });
});

test("frames split at every byte are the same text", async () => {
  const prompt = "[[words:24]] café 東京 🚢";
  const [split, torn] = await Promise.all([
    chat(backend, `[[split:1]] ${prompt}`),
    chat(backend, `[[split:7]] [[reason]] ${prompt}`),
  ]);
  expect(types(torn)).toContain("reasoning");
  for (const frames of [split, torn]) {
    expect(types(terminals(frames))).toEqual(["done"]);
    expect(textOf(frames).split(" ")).toHaveLength(24);
    expect(JSON.stringify(frames)).not.toContain("\ufffd");
    expect((await messageOf(frames)).content).toBe(textOf(frames));
  }
});

test("silence is filled with comments, which no parser shows", async () => {
  const reader = await ask("[[words:3]] [[wait:3000]] thinking");
  await reader.until(begun);
  aheadMs += 15 * SECOND;
  const frames = await reader.end();
  expect(reader.text).toContain(": keep-alive\n");
  expect(types(terminals(frames))).toEqual(["done"]);
});

test("twenty users at once each get their own answer, and nothing is left held", async () => {
  const users = Array.from({ length: 20 }, (_, i) => `user${i}`);
  const turns = await Promise.all(
    users.map(async (user, i) => {
      const response = await postChat(
        backend,
        { message: { content: `say number${i}x`, clientMessageId: `c${i}` } },
        { user },
      );
      expect(response.status).toBe(200);
      return parseFrames(await response.text());
    }),
  );
  for (const [i, frames] of turns.entries()) {
    expect(types(terminals(frames))).toEqual(["done"]);
    const numbers = textOf(frames).match(/number\d+x/g) ?? [];
    expect(new Set(numbers)).toEqual(new Set([`number${i}x`]));
    const stored = await messageOf(frames, users[i]);
    expect(stored.content).toBe(textOf(frames));
  }
  const { bulkheads } = await backend.operator<{
    bulkheads: { inFlightByProvider: Record<string, number> };
  }>("ops:getReliabilitySnapshot");
  expect(Object.keys(bulkheads.inFlightByProvider).filter((id) => id.includes("chat"))).toEqual([]);
});

test("what a turn used is told, as the provider counted it or as an estimate", async () => {
  const usageOf = (frames: readonly Frame[]) =>
    frames.find(({ event }) => event.type === "usage")?.event;
  const counted = await chat(backend, "[[words:30]] count");
  const guessed = await chat(backend, "[[words:30]] [[eof]]");
  expect(usageOf(counted)).toMatchObject({ estimated: false });
  expect(usageOf(guessed)).toMatchObject({ estimated: true });
  for (const frames of [counted, guessed]) {
    const { usage } = await messageOf(frames);
    const told = usageOf(frames)?.["usage"] as { total_tokens: number };
    expect(usage?.totalTokens).toBe(told.total_tokens);
    expect(told.total_tokens).toBeGreaterThan(0);
    expect(types(frames).slice(-2)).toEqual(["usage", types(frames).at(-1)]);
  }
});
