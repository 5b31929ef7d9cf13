import { describe, expect, test } from "vitest";
import { type Stage, STEPS } from "./steps";
import { type ChatEvent, NotSeen } from "./world";

/** What is wrong with a world that does nearly everything as told. */
type Lie =
  | "answer in one piece"
  | "circuit never opens"
  | "duplicate has an effect"
  | "first delivery refused"
  | "nothing is stored"
  | "no next action"
  | "old answer not marked"
  | "one is lost"
  | "one is there twice"
  | "open circuit lets through"
  | "server survives"
  | "tool not asked"
  | "turn breaks off"
  | "verdict of something else"
  | "verdict ok";

/** A world of the demo without a server. Its provider fails from the first fault on. */
function worldWith(lie: Lie | null): Stage {
  let isFailing = false;
  let isKilled = false;
  let asked = 0;
  const stored: string[] = [];
  const circuit = () => (lie !== "circuit never opens" && asked >= 3 ? "open" : "closed");
  const turn = (): readonly ChatEvent[] => {
    const lets = circuit() === "closed" || lie === "open circuit lets through";
    if (isFailing && lets) asked += 1;
    const degraded = isFailing && lie !== "old answer not marked";
    return [
      ...(lie === "tool not asked" ? [] : [{ type: "tool-output-partially-available", degraded }]),
      { type: "content", content: "an " },
      ...(lie === "answer in one piece" ? [] : [{ type: "content", content: "answer" }]),
      { type: lie === "turn breaks off" ? "error" : "done" },
    ];
  };
  const open = { provider: "serper_search", state: "open" };
  const snapshot = {
    verdict: lie === "verdict ok" ? "ok" : "degraded",
    reasons: [
      `${lie === "verdict of something else" ? "ebay" : open.provider}: its circuit is open`,
    ],
    nextAction: { what: lie === "no next action" ? "" : "Look at it.", command: null },
  };
  return {
    asked: async () => asked,
    chat: async (_, seen) => {
      const events = turn();
      for (const event of events) seen(event);
      return [...events];
    },
    deliver: async (id) => {
      if (isKilled) throw new Error("no server");
      const isNew = !stored.includes(id);
      if (lie !== "nothing is stored" && isNew) stored.push(id);
      const isReplay = !isNew && lie !== "duplicate has an effect";
      const headers = isReplay ? { "x-idempotent-replay": "1" } : undefined;
      const status = lie === "first delivery refused" && isNew ? 403 : 200;
      return new Response(null, { status, ...(headers === undefined ? {} : { headers }) });
    },
    fault: async () => {
      isFailing = true;
    },
    kill: async () => {
      if (lie === "server survives") throw new Error("it lives");
      isKilled = true;
      if (lie === "one is lost") stored.pop();
      if (lie === "one is there twice") stored.push(...stored.slice(-1));
    },
    query: async (name) =>
      name === "circuitBreaker:listStatuses" ? [{ ...open, state: circuit() }] : snapshot,
    start: async () => {
      isKilled = false;
    },
    storedMessages: async () => [...stored],
    wait: async () => undefined,
  };
}

/** Index of the first step that does not happen, and what it says. */
async function brokenAt(lie: Lie | null): Promise<readonly [number, string] | null> {
  const world = worldWith(lie);
  for (const [i, step] of STEPS.entries()) {
    const why = await step
      .run(world, () => undefined)
      .then(
        () => null,
        (error: unknown) => (error as Error).message,
      );
    if (why !== null) return [i + 1, why];
  }
  return null;
}

test("a world that does as told is told of to the end", async () => {
  expect(await brokenAt(null)).toBeNull();
});

describe("a step that does not happen is found, by the step that tells of it", () => {
  test.each<readonly [Lie, number, string]>([
    ["answer in one piece", 1, "the answer did not stream"],
    ["tool not asked", 1, "no result of the tool was seen"],
    ["turn breaks off", 1, "the turn ended as error"],
    ["duplicate has an effect", 2, "the second delivery was not told apart"],
    ["first delivery refused", 2, "the first delivery answered 403"],
    ["circuit never opens", 3, "the circuit did not open"],
    ["open circuit lets through", 3, "an open circuit let a request through"],
    ["old answer not marked", 4, "the old result was not served as degraded"],
    ["verdict ok", 5, "the open circuit was not seen"],
    ["verdict of something else", 5, "the open circuit was not seen"],
    ["no next action", 5, "no next action was named"],
    ["server survives", 6, "it lives"],
    ["one is lost", 6, "1 are lost or there twice, such as wamid.demo.load."],
    ["one is there twice", 6, "1 are lost or there twice, such as wamid.demo.load."],
  ])("%s", async (lie, step, why) => {
    expect(await brokenAt(lie)).toEqual([step, expect.stringContaining(why)]);
  });

  test("nothing is stored of what was acknowledged", async () => {
    // Each delivery is new to such a world, so the second of the step already is not told apart.
    expect(await brokenAt("nothing is stored")).toEqual([2, expect.any(String)]);
    const [, , , , , last] = STEPS;
    await expect(last?.run(worldWith("nothing is stored"), () => undefined)).rejects.toThrow(
      NotSeen,
    );
  });
});
