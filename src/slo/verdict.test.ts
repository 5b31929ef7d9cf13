import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { MINUTE, SECOND } from "../core/time";
import { NOTHING_WRONG, type VerdictInput } from "./reading";
import { decideVerdict, type Verdict } from "./verdict";

const verdictOf = (change: Partial<VerdictInput>) => decideVerdict({ ...NOTHING_WRONG, ...change });
const breaker = (provider: string, state: VerdictInput["breakers"][number]["state"]) => ({
  provider,
  state,
  essentialTo: provider.startsWith("openrouter") ? "chat" : null,
});
const queue = (change: Partial<VerdictInput["queues"][number]>) => ({
  tool: "search_web",
  queued: 0,
  queuedMax: 80,
  running: 1,
  oldestQueuedAgeMs: null,
  oldestRunningAgeMs: null,
  ...change,
});
const breach = (promise: "availability" | "latency" | "degraded", burnRate: number) => ({
  key: "route:chatPost",
  name: "/api/chat",
  promise,
  actual: promise === "latency" ? 13_000 : 0.06,
  limit: promise === "latency" ? 12_000 : 0.05,
  burnRate,
});

test("nothing wrong is ok, with nothing to do", () => {
  expect(decideVerdict(NOTHING_WRONG)).toEqual({
    verdict: "ok",
    reasons: [],
    causes: [],
    nextAction: { what: "Nothing to do.", command: null, playbook: null },
  });
});

const CASES: readonly (readonly [string, Partial<VerdictInput>, Verdict, readonly string[]])[] = [
  ["all breakers closed", { breakers: [breaker("serper_search", "closed")] }, "ok", []],
  [
    "a search provider is out",
    { breakers: [breaker("serper_search", "open")] },
    "degraded",
    ["circuit_open:serper_search"],
  ],
  [
    "one route of chat is out",
    {
      breakers: [
        breaker("openrouter_chat_primary", "open"),
        breaker("openrouter_chat_secondary", "closed"),
      ],
    },
    "degraded",
    ["circuit_open:openrouter_chat_primary"],
  ],
  [
    "no route of chat is left",
    {
      breakers: [
        breaker("openrouter_chat_primary", "half_open"),
        breaker("openrouter_chat_secondary", "forced_open"),
      ],
    },
    "critical",
    ["circuit_forced_open:openrouter_chat_secondary", "circuit_half_open:openrouter_chat_primary"],
  ],
  [
    "a breaker that only counts still lets calls through",
    {
      breakers: [
        breaker("openrouter_chat_primary", "open"),
        breaker("openrouter_chat_secondary", "metrics_only"),
      ],
    },
    "degraded",
    ["circuit_metrics_only:openrouter_chat_secondary", "circuit_open:openrouter_chat_primary"],
  ],
  [
    "a pool with one slot left",
    { bulkheads: [{ pool: "p", inFlight: 7, limit: 8, refused: 24, refusedMax: 24 }] },
    "ok",
    [],
  ],
  [
    "a pool that turned many away and has room now",
    { bulkheads: [{ pool: "p", inFlight: 0, limit: 8, refused: 25, refusedMax: 24 }] },
    "degraded",
    ["bulkhead_saturated:p"],
  ],
  [
    "a full pool",
    { bulkheads: [{ pool: "p", inFlight: 8, limit: 8, refused: 0, refusedMax: 24 }] },
    "degraded",
    ["bulkhead_saturated:p"],
  ],
  [
    "jobs that wait a moment",
    { queues: [queue({ queued: 63, oldestQueuedAgeMs: MINUTE })] },
    "ok",
    [],
  ],
  [
    "jobs that wait too long",
    { queues: [queue({ queued: 1, oldestQueuedAgeMs: MINUTE + 1 })] },
    "degraded",
    ["queue_slow:search_web"],
  ],
  [
    "a queue that nobody works on",
    { queues: [queue({ queued: 1, running: 0, oldestQueuedAgeMs: MINUTE + 1 })] },
    "critical",
    ["queue_stalled:search_web"],
  ],
  [
    "a queue near its cap",
    { queues: [queue({ queued: 64 })] },
    "degraded",
    ["queue_full:search_web"],
  ],
  [
    "a job that hangs",
    { queues: [queue({ oldestRunningAgeMs: 5 * MINUTE + 1 })] },
    "degraded",
    ["job_hangs:search_web"],
  ],
  ["twenty dead letters", { deadLetters: 20 }, "ok", []],
  ["twenty-one dead letters", { deadLetters: 21 }, "degraded", ["dead_letters:tool_jobs"]],
  [
    "one lost webhook",
    { webhooks: { queued: 0, deadLetters: 1, oldestQueuedAgeMs: null } },
    "degraded",
    ["dead_letters:webhooks"],
  ],
  [
    "webhooks that wait",
    { webhooks: { queued: 2, deadLetters: 0, oldestQueuedAgeMs: 2 * MINUTE } },
    "degraded",
    ["webhooks_late"],
  ],
  [
    "refusals as usual",
    {
      limiters: [{ bucket: "b", blocked: 40, blockedMax: 40, contended: 5, contendedMax: 5 }],
    },
    "ok",
    [],
  ],
  [
    "a limit under pressure",
    {
      limiters: [{ bucket: "b", blocked: 41, blockedMax: 40, contended: 6, contendedMax: 5 }],
    },
    "degraded",
    ["limiter_contended:b", "rate_limited:b"],
  ],
  [
    "alerts on their way",
    { alerts: { waiting: 5, undelivered: 0, notConfigured: 0, oldestWaitingAgeMs: 15 * MINUTE } },
    "ok",
    [],
  ],
  [
    "alerts that do not arrive",
    {
      alerts: { waiting: 5, undelivered: 0, notConfigured: 0, oldestWaitingAgeMs: 15 * MINUTE + 1 },
    },
    "degraded",
    ["alerts_undelivered"],
  ],
  [
    "an alert that was given up on",
    { alerts: { waiting: 0, undelivered: 1, notConfigured: 0, oldestWaitingAgeMs: null } },
    "degraded",
    ["alerts_undelivered"],
  ],
  [
    "alerts with nobody to tell",
    { alerts: { waiting: 0, undelivered: 0, notConfigured: 2, oldestWaitingAgeMs: null } },
    "ok",
    ["alerts_not_configured"],
  ],
  [
    "a bad capacity knob",
    { config: [{ name: "K", problem: "is not a number", used: "3", security: false }] },
    "degraded",
    ["config:K"],
  ],
  [
    "a bad security knob",
    { config: [{ name: "K", problem: "is not a list", used: "nothing", security: true }] },
    "critical",
    ["config:K"],
  ],
  ["an orphan", { orphanStreams: 1 }, "degraded", ["orphan_streams"]],
  ["few answers, all stale", { served: [{ key: "k", served: 19, degraded: 19 }] }, "ok", []],
  [
    "many stale answers",
    { served: [{ key: "k", served: 20, degraded: 3 }] },
    "degraded",
    ["degraded_serve:k"],
  ],
  [
    "a slow burn",
    { sloBreaches: [breach("availability", 14.3), breach("latency", 99)] },
    "degraded",
    ["slo_availability:route:chatPost", "slo_latency:route:chatPost"],
  ],
  [
    "a fast burn",
    { sloBreaches: [breach("availability", 14.4)] },
    "critical",
    ["slo_availability:route:chatPost"],
  ],
  ["a count that was cut short", { truncated: ["toolCache"] }, "ok", ["truncated:toolCache"]],
];

describe("a verdict", () => {
  test.each(CASES)("%s", (_, change, verdict, causes) => {
    const result = verdictOf(change);
    expect([result.verdict, result.causes.map(({ id }) => id)]).toEqual([verdict, causes]);
    expect(result.reasons).toEqual(result.causes.map(({ detail }) => detail));
  });

  test("says in words and figures what is wrong and what to do", () => {
    const result = verdictOf({
      breakers: [breaker("serper_search", "open")],
      queues: [queue({ queued: 3, running: 0, oldestQueuedAgeMs: 150 * SECOND })],
      sloBreaches: [breach("availability", 1.2), breach("latency", 1.2)],
    });
    expect(result.reasons).toEqual([
      "search_web: the oldest job waits 3 min and nothing runs.",
      "serper_search: its circuit is open and every call is refused.",
      "/api/chat: failed requests are 6 %, at most 5 % is promised (budget burns at 1.2x).",
      "/api/chat: the 95th percentile is 13 s, at most 12 s is promised.",
    ]);
    expect(result.nextAction).toEqual({
      what: "See what search_web waits for: workers that are busy, or a provider that fails.",
      command: "npx convex run toolJobs:getQueueStats",
      playbook: "scripts/reliability/RUNBOOK.md#playbook-f-the-tool-queue-backs-up",
    });
  });
});

/** Each makes a reading worse in one way. */
const troubles: fc.Arbitrary<(input: VerdictInput) => VerdictInput> = fc.oneof(
  ...CASES.map(([, change]) =>
    fc.constant((input: VerdictInput): VerdictInput => ({
      ...input,
      queues: [...input.queues, ...(change.queues ?? [])],
      bulkheads: [...input.bulkheads, ...(change.bulkheads ?? [])],
      limiters: [...input.limiters, ...(change.limiters ?? [])],
      config: [...input.config, ...(change.config ?? [])],
      served: [...input.served, ...(change.served ?? [])],
      sloBreaches: [...input.sloBreaches, ...(change.sloBreaches ?? [])],
      truncated: [...input.truncated, ...(change.truncated ?? [])],
      deadLetters: input.deadLetters + (change.deadLetters ?? 0),
      orphanStreams: input.orphanStreams + (change.orphanStreams ?? 0),
      alerts: worse(input.alerts, change.alerts),
      webhooks: worse(input.webhooks, change.webhooks),
    })),
  ),
  // Of a fixed set of breakers one more leaves the closed state.
  fc
    .record({
      at: fc.integer({ min: 0, max: 2 }),
      state: fc.constantFrom("open", "half_open", "forced_open", "metrics_only"),
    })
    .map(({ at, state }) => (input: VerdictInput): VerdictInput => ({
      ...input,
      breakers: input.breakers.map((row, i) =>
        i === at && row.state === "closed" ? { ...row, state } : row,
      ),
    })),
);

type Backlog = Readonly<Record<string, number | null>>;
function worse<T extends Backlog>(now: T, change: Backlog | undefined): T {
  const entries = Object.entries(now).map(([name, value]) => {
    const more = change?.[name] ?? null;
    if (more === null) return [name, value];
    return [name, name.endsWith("Ms") ? Math.max(value ?? 0, more) : (value ?? 0) + more];
  });
  return Object.fromEntries(entries) as T;
}

const SYSTEM: VerdictInput = {
  ...NOTHING_WRONG,
  breakers: [
    breaker("openrouter_chat_primary", "closed"),
    breaker("openrouter_chat_secondary", "closed"),
    breaker("serper_search", "closed"),
  ],
};
const RANK = { ok: 0, degraded: 1, critical: 2 };

describe("over any history of troubles", () => {
  test("one more never makes the verdict better, and no cause is lost", () => {
    fc.assert(
      fc.property(fc.array(troubles, { size: "max", maxLength: 30 }), (steps) => {
        let input = SYSTEM;
        let before = decideVerdict(input);
        for (const step of steps) {
          input = step(input);
          const after = decideVerdict(input);
          expect(RANK[after.verdict]).toBeGreaterThanOrEqual(RANK[before.verdict]);
          expect(after.causes.length).toBeGreaterThanOrEqual(before.causes.length);
          before = after;
        }
      }),
      { numRuns: 300 },
    );
  });

  test("the order in which they are listed changes nothing", () => {
    fc.assert(
      fc.property(fc.array(troubles, { size: "max", maxLength: 20 }), (steps) => {
        const input = steps.reduce((reading, step) => step(reading), SYSTEM);
        const turned: VerdictInput = {
          ...input,
          breakers: input.breakers.toReversed(),
          bulkheads: input.bulkheads.toReversed(),
          queues: input.queues.toReversed(),
          limiters: input.limiters.toReversed(),
          config: input.config.toReversed(),
          served: input.served.toReversed(),
          sloBreaches: input.sloBreaches.toReversed(),
          truncated: input.truncated.toReversed(),
        };
        expect(decideVerdict(turned)).toEqual(decideVerdict(input));
      }),
      { numRuns: 300 },
    );
  });

  test("every cause has a sentence, a section and a place in the runbook; every verdict a next action", () => {
    fc.assert(
      fc.property(fc.array(troubles, { size: "max", maxLength: 20 }), (steps) => {
        const { verdict, causes, nextAction } = decideVerdict(
          steps.reduce((reading, step) => step(reading), SYSTEM),
        );
        for (const cause of causes) {
          expect(cause.detail).toMatch(/^\S.*\.$/);
          expect(cause.section).not.toBe("");
          expect(cause.runbook).toMatch(/^scripts\/reliability\/RUNBOOK\.md#[a-z-]+$/);
        }
        if (causes.length > 0) expect(nextAction.command).toMatch(/^npx convex run \S+/);
        if (verdict !== "ok") expect(nextAction.playbook).toBe(causes[0]?.runbook);
      }),
      { numRuns: 200 },
    );
  });
});
