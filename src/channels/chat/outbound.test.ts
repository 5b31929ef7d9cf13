import { type FunctionReference, getFunctionName, makeFunctionReference } from "convex/server";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { internal } from "../../../convex/_generated/api";
import { chatFunctions } from "../../../convex/model/chatFunctions";
import { backend, type Backend, START_MS, useStillClock } from "../../../test/edge/backend";
import { stored } from "../../../test/edge/chat";
import { MINUTE } from "../../core/time";
import type { Outcome } from "../../providers/outcome";
import type { CallPermit, Ctx } from "./functions";
import { gateOf } from "./outbound";

useStillClock();

const PROVIDER = "serper_search";
const FAILED: Outcome = { kind: "failure", code: "upstream_timeout", latencyMs: 5, attempts: 1 };
const DEADLINE = { deadlineAtMs: START_MS + MINUTE };
const CONFLICT = new Error("OptimisticConcurrencyControlFailure");

type Mutation = FunctionReference<"mutation", "internal">;
type Query = FunctionReference<"query", "internal">;
type Args = Record<string, unknown>;

/** An action's context over a backend, and what it handed to the scheduler. */
function context(t: Backend, lose: { settlements: boolean }) {
  const handed: { name: string; args: Args }[] = [];
  const queries: string[] = [];
  const ctx = {
    runQuery: async (query: Query, args: Args): Promise<unknown> => {
      queries.push(getFunctionName(query));
      return await t.query(query, args);
    },
    runMutation: async (mutation: Mutation, args: Args): Promise<unknown> => {
      if (lose.settlements && getFunctionName(mutation) === "outbound:settle") throw CONFLICT;
      return await t.mutation(mutation, args);
    },
    scheduler: {
      runAfter: async (_: number, mutation: Mutation, args: Args): Promise<void> => {
        handed.push({ name: getFunctionName(mutation), args });
      },
    },
  };
  return { gate: gateOf(ctx as unknown as Ctx, chatFunctions), handed, queries };
}

const SETTLE = makeFunctionReference<"mutation", Args, { released: boolean }>("outbound:settle");
const late = (t: Backend, args: Args | undefined) => t.mutation(SETTLE, args ?? {});

async function admitted(gate: ReturnType<typeof gateOf>): Promise<CallPermit> {
  const verdict = await gate.admit(PROVIDER, DEADLINE);
  if (!verdict.ok) throw new Error(JSON.stringify(verdict));
  return verdict.permit as CallPermit;
}

beforeEach(() => {
  vi.stubEnv("BULKHEAD_SERPER_MAX_CONCURRENT", "1");
});
afterEach(() => {
  vi.unstubAllEnvs();
});

test("a settlement lost to contention is the scheduler's, and applied once however often it comes", async () => {
  const t = backend();
  const { gate, handed } = context(t, { settlements: true });
  await gate.settle(await admitted(gate), FAILED);
  expect(handed.map(({ name }) => name)).toEqual(["outbound:settle"]);
  expect(await gate.admit(PROVIDER, DEADLINE)).toMatchObject({ ok: false, code: "overloaded" });
  expect(await late(t, handed[0]?.args)).toEqual({ released: true });
  expect(await late(t, handed[0]?.args)).toEqual({ released: false });
  expect((await stored(t)).slots).toMatchObject([{ t: { c: { c: 1, f: 1 } } }]);
});

test("one that comes after its slot was taken over frees nobody's", async () => {
  const t = backend();
  const { gate, handed } = context(t, { settlements: true });
  await gate.settle(await admitted(gate), FAILED);
  vi.setSystemTime(START_MS + MINUTE);
  const next = await admitted(gate);
  const before = await stored(t);
  expect(await late(t, handed[0]?.args)).toEqual({ released: false });
  expect(await stored(t)).toEqual(before);
  const calm = context(t, { settlements: false });
  await calm.gate.settle(next, FAILED);
  expect(calm.handed).toEqual([]);
});

test("an admission that was lost is counted for its provider", async () => {
  const t = backend();
  const { gate, handed } = context(t, { settlements: false });
  await gate.lost?.(PROVIDER);
  const event = { source: "outbound", bucket: PROVIDER, outcome: "contention_fallback" };
  expect(handed).toEqual([{ name: "rateLimit:recordEvent", args: event }]);
  await t.mutation(internal.rateLimit.recordEvent, event);
  expect((await stored(t)).refusals).toMatchObject([{ ...event, count: 1 }]);
  expect((await stored(t)).breakers).toEqual([]);
});

test("a probe is one request: it has no retry", async () => {
  vi.stubEnv("CIRCUIT_SERPER_THRESHOLD", "1");
  vi.stubEnv("CIRCUIT_SERPER_COOLDOWN_MS", "60000");
  const t = backend();
  const { gate, queries } = context(t, { settlements: false });
  const first = await admitted(gate);
  expect(await gate.mayRetry(first, 1)).toBe(true);
  await gate.settle(first, FAILED);
  vi.setSystemTime(START_MS + MINUTE);
  const probe = await admitted(gate);
  expect(probe.probeId).toBeDefined();
  expect(await gate.mayRetry(probe, 1)).toBe(false);
  expect(queries).toEqual(["outbound:mayRetry"]);
});
