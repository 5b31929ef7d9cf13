import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { MINUTE } from "../../src/core/time";
import { type Backend, startBackend } from "./backend";
import { type Frame, parseFrames, postChat, terminals } from "./sse";

const COOLDOWN_MS = 5 * MINUTE;

/** How far the host's clock is ahead. */
let aheadMs = 0;
let backend: Backend;
beforeAll(async () => {
  backend = await startBackend({
    env: {
      RATE_LIMIT_CHAT_STREAM_MAX: "1000",
      BULKHEAD_OR_PRI_MAX_CONCURRENT: "100",
      TOOL_CACHE_REVALIDATE_MS: "0",
      TOOL_CACHE_NEGATIVE_MS: "0",
      TOOL_JOB_MAX_ATTEMPTS: "1",
      CIRCUIT_SERPER_THRESHOLD: "1",
      CIRCUIT_SERPER_COOLDOWN_MS: String(COOLDOWN_MS),
    },
    injection: { nowMs: () => Date.now() + aheadMs },
  });
});
afterAll(async () => {
  await backend.close();
});
afterEach(async () => {
  await backend.resetFaults();
});

async function search(query: string, user = "alice"): Promise<Frame[]> {
  const content = `[[tool:search_web ${JSON.stringify({ query })}]] look`;
  const response = await postChat(backend, { message: { content }, webSearch: true }, { user });
  return parseFrames(await response.text());
}

const asked = async (): Promise<number | undefined> => {
  const { providers } = await backend.control<{
    providers: Record<string, { requests: number }>;
  }>("state");
  return providers["serper"]?.requests;
};

/** What the stream said of the tool's result. */
const output = (frames: readonly Frame[]) => {
  const event = frames.find((frame) => frame.event.type === "tool-output-partially-available");
  const { note = null, results } = (event?.event["output"] ?? {}) as {
    note?: string | null;
    results?: unknown[];
  };
  return { degraded: event?.event["degraded"], found: results?.length, note };
};
const ends = (frames: readonly Frame[]) => terminals(frames).map(({ event }) => event.type);

interface Snapshot {
  readonly toolCache: {
    readonly use: readonly { readonly namespace: string; readonly degraded: number }[];
  };
}

const FOUND = { degraded: false, found: 10, note: null };

test("turns that search for the same at once ask the provider once", async () => {
  const turns = await Promise.all(
    Array.from({ length: 10 }, (_, i) => search("tides", `user-${i}`)),
  );
  expect(turns.map(ends)).toEqual(turns.map(() => ["done"]));
  expect(turns.map(output)).toEqual(turns.map(() => FOUND));
  expect(await asked()).toBe(1);
});

test("while the provider is down an older answer stands in, and says so", async () => {
  expect(output(await search("grinders"))).toEqual(FOUND);
  aheadMs += 10 * MINUTE;
  await backend.fault("serper", { status: 503 });
  const standIn = {
    degraded: true,
    found: 10,
    note: "The search could not be repeated just now. These results are from 10 minutes ago; say so.",
  };
  const first = await search("grinders");
  expect([output(first), ends(first)]).toEqual([standIn, ["done"]]);
  const before = await asked();
  expect(before).toBeGreaterThan(0);
  // The breaker is open now: nobody is asked.
  expect(output(await search("grinders"))).toEqual(standIn);
  expect(await asked()).toBe(before);
  const { toolCache } = await backend.operator<Snapshot>("ops:getReliabilitySnapshot");
  expect(toolCache.use).toMatchObject([{ namespace: "search_web_v1", degraded: 2 }]);

  await backend.resetFaults();
  aheadMs += 2 * COOLDOWN_MS;
  expect(output(await search("grinders"))).toEqual(FOUND);
});
