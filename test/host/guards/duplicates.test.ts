import { afterAll, beforeAll, expect, test } from "vitest";
import { type Guarded, lostAtMost, startGuarded, together } from "./guarded";

let app: Guarded;
beforeAll(async () => {
  app = await startGuarded({ latencyMs: 8, staleLag: 3 });
});
afterAll(() => app.close());

interface Snapshot {
  readonly verdict: string;
  readonly truncated: readonly string[];
  readonly replayProtection: {
    readonly keysInWindow: number;
    readonly duplicateHitsInWindow: number;
  };
}

const push = (historyId = "7") =>
  app.run<{ readonly kind: string }>("integrations/gmail:accept", {
    notification: { emailAddress: "dana@example.com", historyId },
  });

test("a hundred duplicates at once are all told so, and counted, and none waits for another", async () => {
  expect(await push()).toMatchObject({ kind: "accepted" });
  // One that gave up would throw: the platform tries a mutation again a few times only.
  const answers = await together(100, () => push());
  expect(answers.map(({ kind }) => kind)).toEqual(answers.map(() => "duplicate"));
  const { replayProtection, ...said } = await app.run<Snapshot>("ops:getReliabilitySnapshot");
  expect(said).toMatchObject({ verdict: "ok", truncated: [] });
  expect(replayProtection.keysInWindow).toBe(1);
  // Who comes together with others sees none of them, and counts for itself.
  expect(replayProtection.duplicateHitsInWindow).toBeGreaterThanOrEqual(50);
  expect(replayProtection.duplicateHitsInWindow).toBeLessThanOrEqual(200);
});

test("a hundred at once of what nobody has seen before have one effect", async () => {
  // Tried again as the route does: who lost to the one that was first finds what it stored.
  const answers = await together(100, () => lostAtMost(2, () => push("8")));
  const kinds = answers.map(({ kind }) => kind);
  expect(kinds.filter((kind) => kind === "accepted")).toHaveLength(1);
  expect(kinds.filter((kind) => kind === "duplicate")).toHaveLength(99);
});
