/** The functions of `convex/` over an in-memory database, as their tests use them. */
import { convexTest } from "convex-test";
import { afterEach, beforeEach, expect, vi } from "vitest";
import { internalAction } from "../../convex/_generated/server";
import schema from "../../convex/schema";

const modules = import.meta.glob(["/convex/**/*.{ts,js}", "!/convex/**/*.test.ts"]);

export const START_MS = 1_790_000_000_000;

export type Backend = ReturnType<typeof backend>;
/** A caller with an identity. */
export type Caller = ReturnType<Backend["withIdentity"]>;
export type Tables = keyof (typeof schema)["tables"];

/** A worker that does nothing: what it would run is looked at in the tables. */
const idle = internalAction({ handler: async () => null });

/** Lower limits of a transaction than the platform's. */
interface Limits {
  readonly documentsRead?: number;
  readonly bytesRead?: number;
}

/**
 * A fresh backend that enforces the platform's limits on a transaction, or lower ones. Actions that would call
 * providers do nothing; what the workers of tool jobs do instead may be given.
 */
export function backend(transactionLimits: Limits | true = true, worker = idle) {
  return convexTest({
    schema,
    modules: {
      ...modules,
      "/convex/toolRuns.ts": async () => ({ run: worker }),
      "/convex/chat.ts": async () => ({ run: idle }),
      "/convex/sentry.ts": async () => ({ deliver: idle }),
    },
    transactionLimits,
  });
}

/** Stands the clock still at `START_MS`, and undoes what a test sets in the environment. */
export function useStillClock(): void {
  beforeEach(() => {
    vi.useFakeTimers();
    vi.setSystemTime(START_MS);
  });
  afterEach(() => {
    vi.useRealTimers();
    vi.unstubAllEnvs();
    vi.restoreAllMocks();
  });
}

/** Runs what is due within `ms`, and what that schedules in turn. */
export async function advance(t: Backend, ms: number): Promise<void> {
  vi.advanceTimersByTime(ms);
  await t.finishInProgressScheduledFunctions();
  vi.advanceTimersByTime(0);
  await t.finishInProgressScheduledFunctions();
}

/** Runs everything that is scheduled, however late, until nothing is left. */
export const settleAll = (t: Backend): Promise<void> =>
  t.finishAllScheduledFunctions(() => vi.runAllTimers());

/** Scheduled functions that wait: `file:export`, when, and with what. */
export async function pending(
  t: Backend,
): Promise<{ name: string; afterMs: number; args: unknown }[]> {
  const rows = await t.run((ctx) => ctx.db.system.query("_scheduled_functions").collect());
  return rows
    .filter(({ state }) => state.kind === "pending")
    .map(({ name, scheduledTime, args }) => ({
      name: name.replace(/\.[jt]s:/, ":"),
      afterMs: scheduledTime - Date.now(),
      args: args[0] as unknown,
    }));
}

/** Number of rows of each table that has any. */
export async function rowCounts(t: Backend): Promise<Partial<Record<Tables, number>>> {
  const counts: Partial<Record<Tables, number>> = {};
  for (const name of Object.keys(schema.tables) as Tables[]) {
    const rows = await t.run((ctx) => ctx.db.query(name).collect());
    if (rows.length > 0) counts[name] = rows.length;
  }
  return counts;
}

/** Expects a call to be refused with a code; returns the error's data. */
export async function refused(call: Promise<unknown>, code: string): Promise<unknown> {
  const error: unknown = await call.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  expect(error).toMatchObject({ data: { code } });
  return (error as { data: unknown }).data;
}
