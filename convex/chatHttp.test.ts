import { afterEach, beforeEach, expect, test, vi } from "vitest";
import {
  type FunctionReference,
  type FunctionType,
  type FunctionVisibility,
  getFunctionName,
} from "convex/server";
import { type Backend, backend } from "../test/edge/backend";
import { postChat } from "../test/edge/chatRoute";
import type { ActionCtx } from "./_generated/server";

beforeEach(() => {
  vi.stubEnv("OPENROUTER_API_KEY", "key");
  vi.stubEnv("OPENROUTER_BASE_URL", "http://provider.test");
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  vi.unstubAllGlobals();
});

type Run = (
  reference: FunctionReference<FunctionType, FunctionVisibility>,
  args: unknown,
) => Promise<unknown>;

/**
 * The context of an action, and the functions that were run through it: each of them is billed.
 * `lost` says which calls the platform gives up on.
 */
function counting(t: Backend, lost: (call: string, nth: number) => boolean) {
  const calls: string[] = [];
  const counted = (run: unknown): Run => {
    const real = run as Run;
    return async (reference, args) => {
      const name = getFunctionName(reference);
      calls.push(name);
      if (lost(name, calls.filter((call) => call === name).length))
        throw new Error("OptimisticConcurrencyControlFailure");
      return await real(reference, args);
    };
  };
  const scheduler = {
    runAfter: async (_: number, reference: FunctionReference<FunctionType, FunctionVisibility>) =>
      calls.push(`later ${getFunctionName(reference)}`),
  };
  const ctx = { runMutation: counted(t.mutation), runQuery: counted(t.query), scheduler };
  return { ctx: ctx as unknown as ActionCtx, calls };
}

const answer = (...texts: string[]): Response =>
  new Response(
    [
      ...texts.map((content) => ({ choices: [{ delta: { content } }] })),
      { choices: [{ delta: {}, finish_reason: "stop" }] },
      { choices: [], usage: { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 } },
    ]
      .map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`)
      .join("") + "data: [DONE]\n\n",
    { headers: { "content-type": "text/event-stream" } },
  );

/** A turn through the handler of its route: what it said, and what it ran to say it. */
async function turn(
  t: Backend,
  lost: (call: string, nth: number) => boolean = () => false,
): Promise<{ text: string; calls: string[] }> {
  const { calls, ctx } = counting(t, lost);
  return { text: await (await postChat(ctx)).text(), calls };
}

test("a turn without tools is its HTTP action, one admission and one settlement", async () => {
  vi.stubGlobal("fetch", async () => answer("Hello", " there"));
  const t = backend();
  const { calls, text } = await turn(t);
  expect(text).toContain('"type":"done"');
  expect(calls).toEqual(["chatTurns:admit", "chatTurns:settle"]);
  const messages = await t.run((ctx) => ctx.db.query("messages").take(10));
  expect(messages).toMatchObject([
    { role: "user", content: "hi" },
    { role: "assistant", content: "Hello there", status: "completed" },
  ]);
});

test("what a route is asked again is counted as a retry, and costs a look at its budget", async () => {
  vi.stubEnv("CHAT_PROVIDER_PRIMARY_RETRIES", "1");
  let asked = 0;
  vi.stubGlobal("fetch", async () =>
    ++asked === 1 ? new Response(null, { status: 503 }) : answer("Hello"),
  );
  const t = backend();
  const { calls, text } = await turn(t);
  expect(text).toContain('"type":"done"');
  expect(calls).toEqual(["chatTurns:admit", "outbound:mayRetry", "chatTurns:settle"]);
  const slots = await t.run((ctx) => ctx.db.query("slots").take(10));
  expect(slots).toMatchObject([{ p: "openrouter_chat_primary", t: { c: { c: 1, r: 1 } } }]);
});

test("a fallback costs one call, and holds one slot at a time", async () => {
  let asked = 0;
  vi.stubGlobal("fetch", async () =>
    ++asked === 1 ? new Response(null, { status: 503 }) : answer("Hello"),
  );
  const t = backend();
  const { calls, text } = await turn(t);
  expect(text).toContain('"routeId":"secondary"');
  expect(calls).toEqual(["chatTurns:admit", "chatTurns:switchRoute", "chatTurns:settle"]);
  const slots = await t.run((ctx) => ctx.db.query("slots").take(10));
  expect(slots.filter(({ e }) => e > Date.now())).toEqual([]);
  expect(slots).toMatchObject([
    { p: "openrouter_chat_primary", t: { c: { c: 1, f: 1 } } },
    { p: "openrouter_chat_secondary", t: { c: { c: 1 } } },
  ]);
});

test.each([
  ["twice is tried again, and told when it is stored", 2, [], /id: \d+\ndata: \{"type":"done"/],
  ["for good is left to the scheduler", 9, ["later chatTurns:settle"], /\n\ndata: \{"type":"done"/],
])("a settlement lost to contention %s", async (_, times, later, end) => {
  vi.spyOn(Math, "random").mockReturnValue(0);
  vi.stubGlobal("fetch", async () => answer("Hello"));
  const { calls, text } = await turn(
    backend(),
    (call, nth) => call === "chatTurns:settle" && nth <= times,
  );
  const settlements = ["chatTurns:settle", "chatTurns:settle", "chatTurns:settle"];
  expect(calls).toEqual(["chatTurns:admit", ...settlements, ...later]);
  expect(text).toMatch(end);
});

test("a change of routes lost to contention is tried again", async () => {
  vi.spyOn(Math, "random").mockReturnValue(0);
  let asked = 0;
  vi.stubGlobal("fetch", async () =>
    ++asked === 1 ? new Response(null, { status: 503 }) : answer("Hello"),
  );
  const { text } = await turn(
    backend(),
    (call, nth) => call === "chatTurns:switchRoute" && nth === 1,
  );
  expect(text).toContain('"type":"done"');
});
