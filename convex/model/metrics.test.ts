import { expect, test } from "vitest";
import { backend, START_MS, useStillClock } from "../../test/edge/backend";
import * as Histograms from "../../src/core/histogram";
import * as Metrics from "./metrics";

useStillClock();

const CALL = { key: "provider:serper_search", latencyMs: 120, nowMs: START_MS } as const;

test("calls of a minute share one document while they are few", async () => {
  const t = backend();
  await t.run(async (ctx) => {
    await Metrics.record(ctx, { ...CALL, outcome: "success" });
    await Metrics.record(ctx, { ...CALL, outcome: "failure", latencyMs: 5_000 });
    await Metrics.record(ctx, { ...CALL, outcome: "success", degraded: true });
    await Metrics.record(ctx, { ...CALL, outcome: "neutral", latencyMs: 1 });
    await Metrics.record(ctx, { ...CALL, outcome: "infrastructure", latencyMs: 1 });
  });
  const rows = await t.run((ctx) => ctx.db.query("metrics").take(10));
  expect(rows).toMatchObject([
    {
      key: CALL.key,
      minuteMs: START_MS - (START_MS % 60_000),
      shard: 0,
      counts: { success: 2, failure: 1, neutral: 1, infrastructure: 1, degraded: 1 },
    },
  ]);
  const latency = Histograms.decode(rows[0]?.latency ?? new ArrayBuffer(0));
  expect(Histograms.total(latency)).toBe(3);
  expect(Histograms.quantileMs(latency, 0)).toBeCloseTo(120, -1);
});
