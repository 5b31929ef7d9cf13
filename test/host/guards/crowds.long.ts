import { afterAll, beforeAll, expect, test } from "vitest";
import { crowd } from "./crowd";
import { type Guarded, startGuarded } from "./guarded";

let app: Guarded;
beforeAll(async () => {
  app = await startGuarded({
    latencyMs: 5,
    staleLag: 3,
    knobs: {
      BULKHEAD_SERPER_MAX_CONCURRENT: "20",
      BULKHEAD_EBAY_MAX_CONCURRENT: "100",
      BULKHEAD_GLOBAL_SEARCH_MAX_CONCURRENT: "64",
    },
  });
});
afterAll(() => app.close());

test("two hundred at once get twenty slots, each one holder at a time", async () => {
  const provider = "serper_search";
  const seen = await crowd(app, { provider, callers: 200, until: { asks: 200 }, holdMs: 60 });
  expect(seen.most).toBeLessThanOrEqual(20);
  expect(seen.calls).toBeGreaterThanOrEqual(20);
  expect(await app.inFlight(provider)).toBe(0);
});

test("sixty that come again and again lose no admission where there is room", async () => {
  const provider = "ebay_search";
  const seen = await crowd(app, { provider, callers: 60, until: { asks: 2_000 }, holdMs: 40 });
  expect(seen.calls).toBeGreaterThanOrEqual(2_000);
  expect(seen).toMatchObject({ saturated: 0, lost: 0 });
  expect(await app.inFlight(provider)).toBe(0);
});

test("a pool that is resized all the time never gives a slot to two", async () => {
  const provider = "global_search";
  const over = { yet: false };
  const resizing = (async () => {
    for (let i = 0; !over.yet; i++) {
      const size = [64, 7, 33, 16][i % 4] ?? 64;
      await app.setKnobs({ BULKHEAD_GLOBAL_SEARCH_MAX_CONCURRENT: String(size) });
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  })();
  const crowded = crowd(app, { provider, callers: 80, until: { calls: 500 }, holdMs: 120 });
  const seen = await crowded.finally(() => {
    over.yet = true;
  });
  await resizing;
  expect(seen.most).toBeLessThanOrEqual(64);
  // The smaller sizes were in force, too.
  expect(seen.saturated).toBeGreaterThan(0);
  expect(await app.inFlight(provider)).toBe(0);
});
