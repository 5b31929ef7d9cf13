import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  afterAttempt,
  anyStripe,
  attemptsMaxOf,
  drawClass,
  lineOf,
  type PerQos,
  PLACE,
  placeInLine,
  QOS_CODES,
  type QosCode,
  queueFindings,
  standingOf,
  statusOf,
  STRIPES,
  stripeMax,
  waitingRoom,
} from "./queue";

describe("a place", () => {
  test("in line is read as it was written, and is queued", () => {
    for (const qos of QOS_CODES)
      for (let stripe = 0; stripe < STRIPES; stripe++) {
        const standing = { tool: "search_web", qos, stripe };
        const place = placeInLine(standing);
        expect([standingOf(place), statusOf(place)]).toEqual([standing, "queued"]);
      }
  });

  test("that is not in line stands nowhere in it", () => {
    for (const place of Object.values(PLACE)) expect(standingOf(place)).toBeNull();
  });

  test.each([
    ["search_web", "search_web", true],
    ["search_web", "search_web2", false],
    ["search_web", "search_we", false],
    ["search", "search_web", false],
  ])("of the line of %s is that of %s: %s", (line, tool, isOfIt) => {
    const { from, to } = lineOf(line);
    const places = QOS_CODES.map((qos) => placeInLine({ tool, qos, stripe: 15 }));
    expect(places.every((place) => place >= from && place < to)).toBe(isOfIt);
  });
});

describe("the room for waiting jobs", () => {
  test("is as large as configured, however it is divided", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 500 }), fc.nat(10_000), (size, queueMax) => {
        const { inLine, nexts } = waitingRoom({ size, queueMax });
        const stripes = Array.from({ length: STRIPES }, (_, stripe) => stripeMax(stripe, inLine));
        const total = stripes.reduce((sum, most) => sum + most, 0) + (nexts ? size : 0);
        expect(total).toBe(queueMax);
        expect(Math.max(...stripes) - Math.min(...stripes)).toBeLessThanOrEqual(1);
        expect(nexts).toBe(size >= 32 && queueMax >= 2 * size);
      }),
    );
  });

  test("is looked for on stripes that have any", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 10_000 }),
        fc.double({ min: 0, max: 1 }),
        (inLine, at) => {
          const random = Math.min(at || 0, 1 - Number.EPSILON);
          const stripe = anyStripe(inLine, () => random);
          expect(stripeMax(stripe, inLine)).toBeGreaterThan(0);
        },
      ),
    );
  });
});

describe("the draw between classes", () => {
  const WEIGHTS: PerQos = { r: 2, i: 2, b: 1 };

  test.each([
    [{ r: 0, i: 0, b: 0 }, null],
    [{ r: 0, i: 0, b: 3 }, "b"],
    [{ r: 1, i: 0, b: 0 }, "r"],
  ])("among %o is %s", (waiting, expected) => {
    expect(drawClass(waiting, WEIGHTS, Math.random)).toBe(expected);
  });

  test("gives each that waits its share of the weights that wait", () => {
    const draws = 60_000;
    const drawn = { r: 0, i: 0, b: 0, none: 0 };
    for (let i = 0; i < draws; i++)
      drawn[drawClass({ r: 9, i: 0, b: 1 }, WEIGHTS, () => (i + 0.5) / draws) ?? "none"] += 1;
    expect(drawn).toEqual({ r: 40_000, i: 0, b: 20_000, none: 0 });
  });

  // The public original: the lowest class could wait for ever.
  test("starves nobody, whoever comes and goes in between", () => {
    const seeds = fc.integer({ min: 1, max: 2 ** 31 - 1 });
    const weights = fc.record({
      r: fc.integer({ min: 1, max: 100 }),
      i: fc.integer({ min: 1, max: 100 }),
      b: fc.integer({ min: 1, max: 100 }),
    });
    fc.assert(
      fc.property(seeds, weights, (seed, weight) => {
        const random = uniform(seed);
        const waiting: Record<QosCode, number> = { r: 5, i: 5, b: 5 };
        const longest: Record<QosCode, number> = { r: 0, i: 0, b: 0 };
        const dwell: Record<QosCode, number> = { r: 0, i: 0, b: 0 };
        for (let step = 0; step < 1_000; step++) {
          // The favoured classes are always refilled, the others come and go.
          const drawn = drawClass(waiting, weight, random);
          if (drawn === null) throw new Error("somebody waits");
          waiting[drawn] -= 1;
          for (const qos of QOS_CODES) {
            dwell[qos] = qos === drawn ? 0 : dwell[qos] + 1;
            longest[qos] = Math.max(longest[qos], dwell[qos]);
            if (waiting[qos] === 0 || random() < 0.3) waiting[qos] += 1;
          }
        }
        const total = weight.r + weight.i + weight.b;
        // Missing n draws in a row with a share of p happens once in (1 - p)^-n.
        for (const qos of QOS_CODES)
          expect(longest[qos]).toBeLessThan(30 * (total / weight[qos]) + 30);
      }),
      { numRuns: 100 },
    );
  });
});

/** A generator of its own, so that the test says the same on every run. */
function uniform(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

describe("an attempt without a result", () => {
  const ATTEMPT = {
    ending: "failed",
    attempt: 1,
    attemptsMax: 2,
    cancelled: false,
    delayMs: 500,
    nowMs: 1_000,
    deadlineAtMs: null,
  } as const;

  test.each([
    ["is followed by another", {}, { kind: "retry", delayMs: 500 }],
    ["is the last", { attempt: 2 }, { kind: "bury", reason: "attempts_exhausted" }],
    ["was hopeless", { ending: "failed_for_good" }, { kind: "bury", reason: "not_retryable" }],
    ["lost its worker", { ending: "lease_expired" }, { kind: "retry", delayMs: 500 }],
    [
      "lost its worker for the last time",
      { ending: "lease_expired", attempt: 2 },
      { kind: "bury", reason: "lease_expired" },
    ],
    ["lost its tool", { ending: "unknown_tool" }, { kind: "bury", reason: "unknown_tool" }],
    ["was cancelled", { cancelled: true, attempt: 2 }, { kind: "cancel" }],
    ["could be repeated only too late", { deadlineAtMs: 1_500 }, { kind: "miss_deadline" }],
    ["can be repeated in time", { deadlineAtMs: 1_501 }, { kind: "retry", delayMs: 500 }],
  ] as const)("that %s", (_, what, verdict) => {
    expect(afterAttempt({ ...ATTEMPT, ...what })).toEqual(verdict);
  });

  test("is repeated less often than the maximum, whatever else is true", () => {
    const any = fc.record({
      ending: fc.constantFrom("failed", "failed_for_good", "lease_expired", "unknown_tool"),
      attempt: fc.integer({ min: 1, max: 20 }),
      attemptsMax: fc.integer({ min: 1, max: 10 }),
      cancelled: fc.boolean(),
      delayMs: fc.nat(60_000),
      nowMs: fc.nat(1_000_000),
      deadlineAtMs: fc.option(fc.nat(1_100_000)),
    });
    fc.assert(
      fc.property(any, (attempt) => {
        const verdict = afterAttempt(attempt);
        if (verdict.kind !== "retry") return;
        expect(attempt.attempt).toBeLessThan(attempt.attemptsMax);
        expect(attempt.nowMs + verdict.delayMs).toBeLessThan(attempt.deadlineAtMs ?? Infinity);
        expect(attempt.cancelled).toBe(false);
      }),
      { numRuns: 1_000 },
    );
  });
});

test.each([
  [null, 2, 2],
  [1, 2, 1],
  [9, 2, 6],
  [9, 8, 8],
  [0, 2, 1],
  [Number.NaN, 2, 1],
])("of %s attempts asked for and %i configured there are %i", (asked, configured, expected) => {
  expect(attemptsMaxOf(asked, configured, 6)).toBe(expected);
});

describe("findings about a queue", () => {
  const ALLOWED = {
    queued_depth: 10,
    oldest_queued_age: 100,
    oldest_running_age: 200,
    dead_letter_depth: 0,
  };
  const CALM = { queued: 10, deadLetters: 0, oldestQueuedAgeMs: 100, oldestRunningAgeMs: null };

  test("are none where all is within what is allowed", () => {
    expect(queueFindings(CALM, ALLOWED)).toEqual([]);
  });

  test("name each that is above, and by how much", () => {
    const state = { queued: 11, deadLetters: 3, oldestQueuedAgeMs: 101, oldestRunningAgeMs: 999 };
    expect(queueFindings(state, ALLOWED)).toEqual([
      { kind: "queued_depth", observed: 11, threshold: 10 },
      { kind: "oldest_queued_age", observed: 101, threshold: 100 },
      { kind: "oldest_running_age", observed: 999, threshold: 200 },
      { kind: "dead_letter_depth", observed: 3, threshold: 0 },
    ]);
  });
});
