import path from "node:path";
import { beforeAll, expect, test } from "vitest";
import type { Definition } from "./engine/app";
import { ContentionError } from "./engine/backend";
import { arrive, simulated } from "./loads";
import { loadOurs } from "./ours";
import { ADMIT, guardVariables, protectedCall } from "./ours/guards";

let ours: Definition;
beforeAll(async () => {
  ours = await loadOurs(path.resolve(import.meta.dirname, "../.."));
});

test("a call whose admission the platform gave up asks once more, as the call path does", async () => {
  // No caller of so small a pool is refused for having lost races.
  const slots = 30;
  const calls = 10 * slots;
  const backend = simulated(ours, 1, guardVariables(slots));
  let [answered, lost] = [0, 0];
  await backend.within(async () => {
    await arrive(backend, { burst: calls }, async () => {
      try {
        await protectedCall(backend, { holdMs: 0 });
        answered += 1;
      } catch (error) {
        if (!(error instanceof ContentionError)) throw error;
        lost += 1;
      }
    });
  });
  const { operations, terminal } = backend.statsOf(ADMIT);
  expect(answered + lost).toBe(calls);
  expect(terminal).toBeGreaterThan(0);
  // Each that was given up asked again, and only those that lost twice are lost.
  expect(operations - calls + lost).toBe(terminal);
  expect(lost).toBeLessThan(terminal);
});
