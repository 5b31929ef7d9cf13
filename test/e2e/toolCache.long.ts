import { type FunctionReference, getFunctionName } from "convex/server";
import { expect, test } from "vitest";
import { chatFunctions } from "../../convex/model/chatFunctions";
import type { Ctx } from "../../src/channels/chat/functions";
import { runToolCall } from "../../src/channels/chat/toolRunner";
import { sumUse } from "../../src/tools/cacheUse";
import { MINUTE } from "../../src/core/time";
import { startSimulators } from "../../src/sim/index";
import { startBackend } from "./backend";

const CALLS = 1_000;
/** Transactions overlap, as they do in production. */
const pause = () => new Promise<void>((resolve) => setTimeout(resolve, 3));
const QUERY = { query: "a thousand at once" };

test("a thousand concurrent identical tool calls make one upstream call", async () => {
  const backend = await startBackend({ injection: { databaseLatency: pause } });
  const simulators = await startSimulators();
  const env = simulators.env;
  let asked = 0;
  const run = (async (reference: FunctionReference<"query" | "mutation">, args: object) =>
    await backend.operator(getFunctionName(reference).replace("model/", ""), {
      ...args,
    })) as unknown as Ctx["runQuery"];
  try {
    const ctx: Ctx = {
      runQuery: run,
      runMutation: run as unknown as Ctx["runMutation"],
      scheduler: {
        runAfter: () => Promise.reject(new Error("nothing may be left to the scheduler")),
        runAt: () => Promise.reject(new Error("nothing may be left to the scheduler")),
        cancel: () => Promise.resolve(),
      },
    };
    const deferred: Promise<unknown>[] = [];
    const outcomes = await Promise.all(
      Array.from({ length: CALLS }, async (_, i) =>
        runToolCall(
          { index: 0, id: `c${i}`, name: "search_web", argumentsText: "", arguments: QUERY },
          {
            ctx,
            env: { ...env, TOOL_JOB_WAIT_MS: "60000" },
            functions: chatFunctions,
            source: "chat_http",
            signal: new AbortController().signal,
            deadlineAtMs: Date.now() + 5 * MINUTE,
            defer: (work) => deferred.push(work),
          },
        ),
      ),
    );
    await Promise.all(deferred);
    const { providers } = (await (await fetch(`${simulators.url}/control/state`)).json()) as {
      providers: Record<string, { requests: number }>;
    };
    asked = providers["serper"]?.requests ?? 0;
    expect(new Set(outcomes.map(({ kind }) => kind))).toEqual(new Set(["result"]));
    expect(new Set(outcomes.map(({ text }) => text)).size).toBe(1);
    expect(asked).toBe(1);
    const [use, ...others] = outcomes.reduce(
      (sum, { cacheUse }) => sumUse(sum, cacheUse === undefined ? [] : [cacheUse]),
      sumUse([], []),
    );
    expect(others).toEqual([]);
    expect((use?.hits ?? 0) + (use?.misses ?? 0)).toBe(CALLS);
  } finally {
    await backend.close();
    await simulators.close();
  }
});
