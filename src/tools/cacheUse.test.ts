import * as fc from "fast-check";
import { expect, test } from "vitest";
import { type CacheUse, type CacheUseKind, oneUse, sumUse } from "./cacheUse";

const KINDS: readonly CacheUseKind[] = ["hits", "misses", "stale", "degraded", "negative"];
const call = fc.tuple(fc.constantFrom("a_v1", "b_v1", "c_v2"), fc.constantFrom(...KINDS));

test("sums name each namespace once and lose no call, whatever the order", () => {
  fc.assert(
    fc.property(fc.array(call), fc.array(call), fc.integer({ min: 1, max: 8 }), (one, more, by) => {
      const listed = (calls: readonly (readonly [string, CacheUseKind])[]) =>
        calls.reduce<CacheUse[]>((sum, [name, kind]) => sumUse(sum, [oneUse(name, kind)]), []);
      const sum = sumUse(listed(one), listed(more), by);
      expect(new Set(sum.map(({ namespace }) => namespace)).size).toBe(sum.length);
      for (const use of sum)
        for (const kind of KINDS) {
          const count = (calls: readonly (readonly [string, CacheUseKind])[]) =>
            calls.filter(([name, of]) => name === use.namespace && of === kind).length;
          expect(use[kind]).toBe(count(one) + by * count(more));
        }
    }),
  );
});
