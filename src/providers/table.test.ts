import { expect, test } from "vitest";
import { readKnob } from "../config/read";
import { readSetting } from "./settings";
import { PROVIDER_IDS, providerRow } from "./table";

test("the ids are contracts", () => {
  expect(PROVIDER_IDS).toEqual([
    "openrouter_chat_primary",
    "openrouter_chat_secondary",
    "serper_search",
    "ebay_search",
    "global_search",
    "google_certs",
    "gmail_oauth",
    "whatsapp_graph",
    "sentry_ingest",
    "tool_job_worker",
  ]);
});

test.each(PROVIDER_IDS)("%s is consistent with no configuration", (id) => {
  const row = providerRow(id);
  const deadlineMs = readSetting({}, row.deadlineMs);
  // A call must end before the lease of its slot does, or the slot has two holders.
  expect(deadlineMs).toBeLessThan(readSetting({}, row.bulkhead.leaseMs));
  if (row.stream !== undefined)
    expect(readSetting({}, row.stream.totalMs)).toBeLessThan(readSetting({}, row.bulkhead.leaseMs));
  expect(readSetting({}, row.breaker.threshold)).toBeGreaterThan(0);
  expect(readSetting({}, row.bulkhead.maxConcurrent)).toBeGreaterThan(0);
  expect(row.retry.baseMs).toBe(250);
  expect(row.retry.capMs).toBe(2_000);
  for (const knob of row.baseUrlKnobs) expect(readKnob({}, knob)).toMatch(/^https:\/\//);
});

test("the bulkhead and breaker knobs are those of the inventory", () => {
  const shown = (id: (typeof PROVIDER_IDS)[number]) => {
    const { breaker, bulkhead } = providerRow(id);
    return [breaker.threshold, breaker.cooldownMs, bulkhead.maxConcurrent, bulkhead.leaseMs].map(
      (setting) => readSetting({}, setting),
    );
  };
  expect(shown("openrouter_chat_primary")).toEqual([5, 60_000, 24, 600_000]);
  expect(shown("openrouter_chat_secondary")).toEqual([4, 45_000, 16, 600_000]);
  expect(shown("serper_search")).toEqual([4, 120_000, 12, 60_000]);
  expect(shown("ebay_search")).toEqual([4, 120_000, 8, 60_000]);
  expect(shown("global_search")).toEqual([4, 120_000, 10, 60_000]);
  expect(shown("gmail_oauth")).toEqual([4, 120_000, 8, 60_000]);
});

test("a knob of the seed's one route holds for each route that has none of its own set", () => {
  const thresholds = (env: Record<string, string>) =>
    (["openrouter_chat_primary", "openrouter_chat_secondary"] as const).map((id) =>
      readSetting(env, providerRow(id).breaker.threshold),
    );
  const common = { CIRCUIT_OPENROUTER_THRESHOLD: "9" };
  expect(thresholds({})).toEqual([5, 4]);
  expect(thresholds(common)).toEqual([9, 9]);
  expect(thresholds({ ...common, CIRCUIT_OPENROUTER_PRIMARY_THRESHOLD: "3" })).toEqual([3, 9]);
  expect(thresholds({ ...common, CIRCUIT_OPENROUTER_PRIMARY_THRESHOLD: " " })).toEqual([9, 9]);
});
