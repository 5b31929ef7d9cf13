import { type FunctionReference, makeFunctionReference } from "convex/server";
import { describe, expect, test, vi } from "vitest";
import { MINUTE, SECOND } from "../../src/core/time";
import { backend, type Backend, START_MS, useStillClock } from "../../test/edge/backend";
import { begin, settle } from "../../test/edge/chat";
import { internal } from "../_generated/api";
import type { MutationCtx } from "../_generated/server";
import * as Alerts from "./alerts";
import * as Metrics from "./metrics";
import * as Refusals from "./refusals";
import * as CacheCounts from "./toolCacheCounts";

useStillClock();

const SERPER = "serper_search";

const enqueue = (t: Backend, argsJson = "{}") =>
  t.mutation(internal.toolJobs.enqueue, { source: "operator", toolName: "search_web", argsJson });

/** Runs as a mutation of a model does. */
const within = (t: Backend, act: (ctx: MutationCtx) => Promise<unknown>) =>
  t.run(async (ctx) => {
    await act(ctx);
  });

async function openCircuit(t: Backend, provider: string): Promise<void> {
  for (let i = 0; i < 20; i++) {
    const gate = await t.mutation(internal.circuitBreaker.checkGate, { provider });
    if (gate.permit === undefined) return;
    await t.mutation(internal.circuitBreaker.recordFailure, { permit: gate.permit });
  }
  throw new Error("it never opened");
}

async function bury(t: Backend): Promise<void> {
  const enqueued = await enqueue(t);
  if (enqueued.kind !== "run") throw new Error("no slot is free");
  const { jobId, fence } = enqueued.claim;
  const failed = { jobId, fence, errorCode: "upstream_error", retryable: false };
  await t.mutation(internal.toolJobs.fail, failed);
}

const measure = (t: Backend, outcome: "success" | "failure", count: number) =>
  within(t, async (ctx) => {
    const call = { key: `provider:${SERPER}`, outcome, latencyMs: 120, nowMs: START_MS };
    for (let i = 0; i < count; i++) await Metrics.record(ctx, call);
  });

const RUN = "npx convex run";

interface Trouble {
  readonly env?: Readonly<Record<string, string>>;
  readonly make: (t: Backend) => Promise<unknown>;
  readonly verdict: "degraded" | "critical";
  readonly causes: readonly string[];
  readonly command: string;
}

const TROUBLES: Readonly<Record<string, Trouble>> = {
  "a circuit that opened": {
    make: (t) => openCircuit(t, SERPER),
    verdict: "degraded",
    causes: [`circuit_open:${SERPER}`],
    command: `${RUN} circuitBreaker:listStatuses`,
  },
  "no route of chat left": {
    make: async (t) => {
      await openCircuit(t, "openrouter_chat_secondary");
      await t.mutation(internal.circuitBreaker.setState, {
        provider: "openrouter_chat_primary",
        state: "forced_open",
      });
    },
    verdict: "critical",
    causes: [
      "circuit_forced_open:openrouter_chat_primary",
      "circuit_open:openrouter_chat_secondary",
    ],
    command: `${RUN} circuitBreaker:listStatuses`,
  },
  "a bulkhead without a free slot": {
    env: { BULKHEAD_SERPER_MAX_CONCURRENT: "1" },
    make: (t) => t.mutation(internal.circuitBreaker.checkGate, { provider: SERPER }),
    verdict: "degraded",
    causes: [`bulkhead_saturated:${SERPER}`],
    command: `${RUN} bulkhead:listInFlightByProvider '{"provider":"${SERPER}"}'`,
  },
  "a bulkhead that turned many away and has room again": {
    make: (t) =>
      within(t, async (ctx) => {
        const refusal = { bucket: SERPER, outcome: "bulkhead_saturated" };
        for (let i = 0; i < 25; i++) await Refusals.count(ctx, refusal, START_MS);
      }),
    verdict: "degraded",
    causes: [`bulkhead_saturated:${SERPER}`],
    command: `${RUN} bulkhead:listInFlightByProvider '{"provider":"${SERPER}"}'`,
  },
  "as many dead letters as somebody is told of": {
    env: { TOOL_QUEUE_ALERT_MAX_DLQ: "2" },
    make: async (t) => {
      await bury(t);
      await bury(t);
    },
    verdict: "degraded",
    causes: ["dead_letters:tool_jobs"],
    command: `${RUN} toolJobs:listDeadLetters`,
  },
  "a job that waits for too long": {
    env: {
      TOOL_JOB_RUNMAX_WEB: "1",
      TOOL_JOB_LEASE_MS: "600000",
      BULKHEAD_TOOL_JOB_LEASE_MS: "600000",
    },
    make: async (t) => {
      for (const query of ["a", "b"]) await enqueue(t, JSON.stringify({ query }));
      vi.setSystemTime(START_MS + MINUTE + 1);
    },
    verdict: "degraded",
    causes: ["queue_slow:search_web"],
    command: `${RUN} toolJobs:getQueueStats`,
  },
  "a job whose retry never came": {
    make: async (t) => {
      const enqueued = await enqueue(t);
      if (enqueued.kind !== "run") throw new Error("no slot is free");
      const { jobId, fence } = enqueued.claim;
      const failed = { jobId, fence, errorCode: "upstream_error", retryable: true };
      await t.mutation(internal.toolJobs.fail, failed);
      vi.clearAllTimers();
      vi.setSystemTime(START_MS + 2 * MINUTE);
    },
    verdict: "critical",
    causes: ["queue_stalled:search_web"],
    command: `${RUN} toolJobs:getQueueStats`,
  },
  "a limit under pressure": {
    env: { RATE_LIMIT_CHAT_STREAM_MAX: "1" },
    make: async (t) => {
      await settle(t, (await begin(t)).streamId);
      const request = { userId: "dana", content: "again" };
      for (let i = 0; i < 25; i++) await t.mutation(internal.chatTurns.admit, { request });
    },
    verdict: "degraded",
    causes: ["rate_limited:chat_stream"],
    command: `${RUN} rateLimit:getEventSummary '{"minutes":15}'`,
  },
  "an alert that nobody was told of": {
    make: async (t) => {
      const condition = {
        alertKey: `circuit:${SERPER}`,
        kind: "circuit_open",
        severity: "critical",
        summary: "It was open.",
        observed: 1,
        threshold: 1,
        windowMinutes: 0,
        cooldownMs: MINUTE,
      } as const;
      await within(t, (ctx) => Alerts.applyRaise(ctx, condition, START_MS));
      vi.setSystemTime(START_MS + 15 * MINUTE + 1);
    },
    verdict: "degraded",
    causes: ["alerts_undelivered"],
    command: `${RUN} alerts:listRecent`,
  },
  "a secret that is none": {
    env: { ENCRYPTION_KEY: "not 64 digits" },
    make: async () => null,
    verdict: "critical",
    causes: ["config:ENCRYPTION_KEY"],
    command: `${RUN} ops:getReliabilitySnapshot`,
  },
  "a capacity that is none": {
    env: { RATE_LIMIT_GLOBAL_MAX: "many" },
    make: async () => null,
    verdict: "degraded",
    causes: ["config:RATE_LIMIT_GLOBAL_MAX"],
    command: `${RUN} ops:getReliabilitySnapshot`,
  },
  "a stream whose worker is dead": {
    make: async (t) => {
      await begin(t);
      vi.setSystemTime(START_MS + 30 * SECOND + 1);
    },
    verdict: "degraded",
    causes: ["orphan_streams"],
    command: `${RUN} ops:getReliabilitySnapshot`,
  },
  "a webhook that was given up on": {
    make: (t) =>
      t.run((ctx) =>
        ctx.db.insert("webhookInbox", {
          state: "dead_letter",
          event: { type: "gmail_history", emailAddress: "dana@example.com", historyId: "1" },
          attempts: 5,
          dueAtMs: START_MS,
          lastErrorCode: "internal_error",
          receivedAtMs: START_MS,
        }),
      ),
    verdict: "degraded",
    causes: ["dead_letters:webhooks"],
    command: `${RUN} integrations/inbox:listDeadLetters`,
  },
  "many old answers instead of new ones": {
    make: (t) =>
      within(t, (ctx) => {
        const use = { namespace: "search_web_v1", hits: 10, misses: 7, stale: 0 };
        return CacheCounts.recordUse(ctx, [{ ...use, degraded: 3, negative: 0 }], START_MS);
      }),
    verdict: "degraded",
    causes: ["degraded_serve:cache:search_web_v1"],
    command: `${RUN} toolCache:listNamespaceStats`,
  },
  "an objective that is missed": {
    make: async (t) => {
      await measure(t, "success", 28);
      await measure(t, "failure", 2);
    },
    verdict: "degraded",
    causes: [`slo_availability:provider:${SERPER}`],
    command: `${RUN} ops:getReliabilitySnapshot`,
  },
  "an error budget that is gone in two days": {
    make: async (t) => {
      await measure(t, "success", 10);
      await measure(t, "failure", 40);
    },
    verdict: "critical",
    causes: [`slo_availability:provider:${SERPER}`],
    command: `${RUN} ops:getReliabilitySnapshot`,
  },
};

/** The function that a command line names, with its arguments. */
function parseCommand(command: string) {
  const [, name = "", args] = /^npx convex run (\S+)(?: '(.*)')?$/.exec(command) ?? [];
  return {
    reference: makeFunctionReference<"query">(name) as unknown as FunctionReference<
      "query",
      "internal"
    >,
    args: JSON.parse(args ?? "{}") as Record<string, unknown>,
  };
}

describe("the verdict", () => {
  test("of a deployment that works is ok, without a cause", async () => {
    const t = backend();
    await settle(t, (await begin(t)).streamId);
    const gate = await t.mutation(internal.circuitBreaker.checkGate, { provider: SERPER });
    if (gate.permit === undefined) throw new Error("a free provider lets calls through");
    await t.mutation(internal.circuitBreaker.recordSuccess, { permit: gate.permit });
    await measure(t, "success", 30);
    const said = await t.query(internal.ops.getReliabilitySnapshot, {});
    expect([said.verdict, said.reasons, said.causes]).toEqual(["ok", [], []]);
    expect(said.slo).toContainEqual(
      expect.objectContaining({ key: `provider:${SERPER}`, state: "met" }),
    );
  });

  test("of several troubles names all of them, the worst first", async () => {
    vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "1");
    vi.stubEnv("TOOL_JOB_QMAX_WEB", "1");
    vi.stubEnv("TOOL_JOB_LEASE_MS", "600000");
    vi.stubEnv("BULKHEAD_TOOL_JOB_LEASE_MS", "600000");
    const t = backend();
    for (const query of ["a", "b"]) await enqueue(t, JSON.stringify({ query }));
    for (const provider of ["openrouter_chat_primary", "openrouter_chat_secondary", SERPER])
      await openCircuit(t, provider);
    await t.run(async (ctx) => {
      for (const row of await ctx.db.query("alerts").take(10))
        await ctx.db.delete("alerts", row._id);
    });
    const condition = {
      alertKey: `circuit:${SERPER}`,
      kind: "circuit_open",
      severity: "critical",
      summary: "It is open.",
      observed: 1,
      threshold: 1,
      windowMinutes: 0,
      cooldownMs: MINUTE,
    } as const;
    await within(t, (ctx) => Alerts.applyRaise(ctx, condition, START_MS));
    await t.run(async (ctx) => {
      for (const row of await ctx.db.query("alerts").take(10))
        await ctx.db.patch("alerts", row._id, { delivery: "dead", dueAt: START_MS });
    });
    const said = await t.query(internal.ops.getReliabilitySnapshot, {});
    expect([said.verdict, said.causes.map(({ id }) => id)]).toEqual([
      "critical",
      [
        "circuit_open:openrouter_chat_primary",
        "circuit_open:openrouter_chat_secondary",
        `circuit_open:${SERPER}`,
        "queue_full:search_web",
        "alerts_undelivered",
      ],
    ]);
    expect(await t.query(internal.ops.getReliabilitySnapshot, {})).toEqual(said);
  });

  test("of a pool that was made smaller is about the slots that are left of it", async () => {
    vi.stubEnv("BULKHEAD_SERPER_MAX_CONCURRENT", "2");
    const t = backend();
    for (let i = 0; i < 2; i++)
      await t.mutation(internal.circuitBreaker.checkGate, { provider: SERPER });
    await t.run(async (ctx) => {
      for (const { _id, i } of await ctx.db.query("slots").take(2))
        if (i === 0) await ctx.db.patch("slots", _id, { e: START_MS });
    });
    vi.stubEnv("BULKHEAD_SERPER_MAX_CONCURRENT", "1");
    const { bulkheads, verdict } = await t.query(internal.ops.getReliabilitySnapshot, {});
    // The slot that drains is in flight, and takes nobody's place.
    expect(bulkheads).toMatchObject({ inFlightByProvider: { [SERPER]: 1 }, saturated: [] });
    expect(verdict).toBe("ok");
  });

  test.each(Object.entries(TROUBLES))("of %s says so, and what to do", async (_, trouble) => {
    for (const [name, value] of Object.entries(trouble.env ?? {})) vi.stubEnv(name, value);
    const t = backend();
    await trouble.make(t);
    const said = await t.query(internal.ops.getReliabilitySnapshot, {});
    expect([said.verdict, said.causes.map(({ id }) => id)]).toEqual([
      trouble.verdict,
      trouble.causes,
    ]);
    expect(said.reasons).toEqual(said.causes.map(({ detail }) => detail));
    const [worst] = said.causes;
    expect(said.nextAction).toMatchObject({ command: trouble.command, playbook: worst?.runbook });
    // What it tells to run is a function that takes these arguments, and changes nothing.
    const { args, reference } = parseCommand(trouble.command);
    await expect(t.query(reference, args)).resolves.toBeDefined();
  });
});
