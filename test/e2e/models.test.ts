// The simulated model speaks as real ones do, and is as strict about what it is sent as the strictest.
import { afterAll, beforeAll, expect, test } from "vitest";
import { CALL_MANNERS } from "../../src/sim/directives";
import { type SentEvent, shownFault } from "../edge/conversation";
import { type Backend, startBackend } from "./backend";
import { chat, type Frame, postChat, startOf, terminals, textOf } from "./sse";

let backend: Backend;
beforeAll(async () => {
  backend = await startBackend({
    env: { RATE_LIMIT_CHAT_STREAM_MAX: "1000", CHAT_TOKENS_PER_DAY: "10000000" },
  });
});
afterAll(async () => {
  await backend.close();
});

const PRODUCTS = (query: string) => `[[tool:search_products ${JSON.stringify({ query })}]]`;
const eventsOf = (frames: readonly Frame[]) =>
  frames.map(({ event }) => event as unknown as SentEvent);
const endOf = (frames: readonly Frame[]) => terminals(frames).map(({ event }) => event.type);

/** Two answers that call tools, in a thread that must still answer after them. */
async function talk(script: string, webSearch = false): Promise<Frame[]> {
  const calls = `${PRODUCTS("grinder")} ${PRODUCTS("scale")} then [[tool:search_global {"query":"kettle"}]]`;
  const first = await chat(backend, `${script} ${calls} what to buy?`, { webSearch });
  const { threadId } = startOf(first);
  const next = await chat(backend, `${script} ${PRODUCTS("cup")} and a cup?`, {
    threadId,
    webSearch,
  });
  const last = await chat(backend, "thank you", { threadId });
  const shown = new Set<string>();
  for (const frames of [first, next, last]) {
    expect(shownFault(eventsOf(frames), shown)).toBeNull();
    expect(terminals(frames)).toHaveLength(1);
  }
  expect(endOf(last)).toEqual(["done"]);
  return first;
}

test.each(Object.keys(CALL_MANNERS).filter((manner) => manner !== "cut"))(
  "calls in the manner %s leave the thread usable",
  async (manner) => {
    const frames = await talk(`[[calls:${manner}]]`);
    expect(endOf(frames)).toEqual(["done"]);
  },
);

test.each([
  "[[calls:same-index,no-ids]]",
  "[[calls:restart-ids,state]] [[say:Let me look.]]",
  "[[calls:pieces,no-index]]",
  "[[calls:objects,same-index,same-id]]",
  "[[parts]] [[say:Let me look.]]",
  "[[pings]] [[unended]]",
  '[[tool:get_current_time {"timeZone":"UT]]',
  "[[tool:no_such_tool {}]] [[calls:unoffered]]",
])("a model that speaks like %s leaves the thread usable", async (script) => {
  expect(endOf(await talk(script))).toEqual(["done"]);
});

test("a call that is cut by the length is ended, and the thread goes on", async () => {
  const frames = await talk("[[calls:cut]]");
  expect(terminals(frames)[0]?.event).toMatchObject({ type: "done", finishReason: "length" });
});

test("a tool that was not offered does not run", async () => {
  const script = '[[calls:unoffered]] [[tool:search_web {"query":"x"}]] what is new?';
  const frames = await chat(backend, script, { webSearch: false });
  const [output] = frames.filter(({ event }) => event.type === "tool-output-partially-available");
  expect(output?.event).toMatchObject({ output: "There is no tool of this name." });
  const { providers } = await backend.control<{
    providers: Record<string, { requests: number }>;
  }>("state");
  expect(providers["serper"]?.requests).toBe(0);
});

test("half an answer with an error as a text is an error", async () => {
  const frames = await chat(backend, "[[error:text]] hello");
  expect(terminals(frames)[0]?.event).toMatchObject({ type: "error", code: "upstream_error" });
});

test("characters at which some clients end a line arrive escaped, and mean the same", async () => {
  const response = await postChat(backend, { message: { content: "[[lines]] hello" } });
  expect(response.headers.get("cache-control")).toBe("no-store, no-transform");
  const body = await response.text();
  expect(body).not.toMatch(/[\u0085\u2028\u2029]/);
  expect(body).toContain("\\u2028");
  const frames = await chat(backend, "[[lines]] hello");
  expect(textOf(frames)).toContain("one\u0085two\u2028three\u2029four");
});
