import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { MINUTE, SECOND } from "../../../src/core/time";
import { type Guarded, lostAtMost, startGuarded, together } from "./guarded";

let app: Guarded;
beforeAll(async () => {
  app = await startGuarded({ latencyMs: 2, staleLag: 2 });
});
afterAll(() => app.close());

interface Limit {
  readonly key: string;
  readonly max: number;
  readonly windowMs: number;
  readonly shared?: boolean;
  readonly weight?: number;
}

/** A request that passed at a moment between these two. */
interface Passed {
  readonly fromMs: number;
  readonly toMs: number;
  readonly weight: number;
}

const ask = async (limit: Limit): Promise<Passed | null> => {
  const fromMs = Date.now();
  const { allowed } = await lostAtMost(Infinity, () =>
    app.run<{ allowed: boolean }>("rateLimit:checkAndIncrement", { ...limit }),
  );
  return allowed ? { fromMs, toMs: Date.now(), weight: limit.weight ?? 1 } : null;
};

/** Asks of callers that overlap, each a few times; what passed. */
async function crowd(callers: number, times: number, limitOf: (i: number) => Limit) {
  const passed: Passed[] = [];
  await together(callers, async (i) => {
    for (let n = 0; n < times; n++) {
      const one = await ask(limitOf(i + n));
      if (one !== null) passed.push(one);
    }
  });
  return passed;
}

/** Weight beyond burst and rate in the fullest interval, of what lies in it for certain. */
function excess(passed: readonly Passed[], { max, windowMs }: Limit): number {
  let most = -Infinity;
  for (const { fromMs } of passed) {
    const later = passed.filter((one) => one.fromMs >= fromMs).sort((a, b) => a.toMs - b.toMs);
    let taken = 0;
    for (const { toMs, weight } of later) {
      taken += weight;
      most = Math.max(most, taken - max - (max * (toMs - fromMs)) / windowMs);
    }
  }
  return most;
}

const sum = (passed: readonly Passed[]) => passed.reduce((total, { weight }) => total + weight, 0);

describe("callers whose transactions conflict", () => {
  test("get exactly the burst of a limit, and not one more", async () => {
    const limit = { key: "host:burst", max: 25, windowMs: 100_000 * MINUTE };
    expect(await crowd(40, 2, () => limit)).toHaveLength(25);
  });

  test("get exactly the burst of a shared limit, its shards together, and not one more", async () => {
    const limit = { key: "host:shared", max: 128, windowMs: 100_000 * MINUTE, shared: true };
    const passed = await crowd(48, 3, () => limit);
    expect(passed.length).toBeLessThanOrEqual(128);
    // Shards are looked for at random: the last few may be missed, by chance and for a moment.
    while (passed.length < 128) {
      const one = await ask(limit);
      if (one !== null) passed.push(one);
    }
    expect(await crowd(20, 1, () => limit)).toEqual([]);
  });

  test.each([
    { key: "host:rate", max: 10, windowMs: SECOND / 2 },
    { key: "host:shared rate", max: 64, windowMs: SECOND, shared: true },
  ])(
    "in any interval pass $key at most by its burst and rate, whatever they weigh",
    async (limit) => {
      const weights = [1, 3, 1, 2, 9];
      const passed = await crowd(12, 8, (i) => ({ ...limit, weight: weights[i % 5] ?? 1 }));
      expect(sum(passed)).toBeGreaterThanOrEqual(limit.max);
      expect(excess(passed, limit)).toBeLessThanOrEqual(0);
    },
  );
});
