import { expect, test, vi } from "vitest";
import { internal } from "../../convex/_generated/api";
import { MINUTE } from "../../src/core/time";
import { backend, type Backend, START_MS, useStillClock } from "../edge/backend";
import { fail, run } from "../edge/jobs";

useStillClock();

const AT = { namespace: "search_web_v1", key: "q=boats" };
const set = (t: Backend, value: string) =>
  t.mutation(internal.toolCache.set, { ...AT, value, ttlMs: MINUTE });
const lookup = (t: Backend) => t.query(internal.toolCache.lookup, AT);
const after = (ms: number): void => void vi.setSystemTime(START_MS + ms);

// Source: W2-54
test("the original knew no stale answer: an outage was a miss for everybody", async () => {
  const t = backend();
  await set(t, "[1]");
  after(2 * MINUTE);
  expect(await lookup(t)).toMatchObject({ freshness: "stale", value: "[1]" });
  after(60 * MINUTE);
  expect(await lookup(t)).toMatchObject({ freshness: "error_only", value: "[1]" });
});

// Source: W2-54
test("the original asked again for each caller while a provider was down", async () => {
  const t = backend();
  const claim = await run(t, { maxAttempts: 1, cache: AT });
  await fail(t, claim, { cache: AT });
  expect(await lookup(t)).toMatchObject({ freshness: "negative", code: "upstream_timeout" });
});
