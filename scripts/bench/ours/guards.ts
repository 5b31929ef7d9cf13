import type { Value } from "convex/values";
import { MINUTE } from "../../../src/core/time";
import { type Admission, admit } from "../../../src/providers/call";
import type { ProviderId } from "../../../src/providers/table";
import { ContentionError, type Backend } from "../engine/backend";

export const ADMIT = "outbound:admit";
const PROVIDER: ProviderId = "serper_search";
const MANY = 1_000_000;

/** The pool's size, and a lease no simulated call outlives. */
export function guardVariables(slots: number): Record<string, string> {
  return {
    BULKHEAD_SERPER_MAX_CONCURRENT: String(slots),
    BULKHEAD_SERPER_LEASE_TTL_MS: "60000",
  };
}

/** A limit that never refuses. */
export const allowing = (key: string) => ({ key, max: MANY, windowMs: MINUTE });

/** A limit that is used up after one request. */
export const refusing = (key: string) => ({ key, max: 1, windowMs: MINUTE });

/**
 * One provider call: admitted, its work a pause, settled. False where it was refused. Admission is
 * the call path's own: where the platform gives it up it is asked for once more, and throws what
 * the platform threw when that is given up as well.
 */
export async function protectedCall(
  backend: Backend,
  options: {
    readonly holdMs: number;
    readonly provider?: ProviderId;
    readonly outcome?: "success" | "failure";
    /** A limit that the call is held to as well, in the transaction of its other guards. */
    readonly limit?: { readonly name: string; readonly key: string };
  },
  watch: { admitted(): void; settled(): void } = {
    admitted: () => undefined,
    settled: () => undefined,
  },
): Promise<boolean> {
  const { holdMs, limit, outcome = "success", provider = PROVIDER } = options;
  const gate = {
    admit: async () =>
      (await backend.mutation(ADMIT, {
        provider,
        // As the gate asks: with the moment it began to, so that lost races end in a refusal.
        askedAtMs: backend.clock.nowMs,
        ...(limit === undefined ? {} : { limits: [{ ...limit, max: MANY, windowMs: MINUTE }] }),
      })) as Admission,
  };
  const { clock, random } = backend;
  const io = { sleep: (delayMs: number) => clock.sleep(delayMs), random };
  const admission = await admit(gate, provider, { deadlineAtMs: Infinity, io });
  if (!admission.ok) return false;
  const permit = admission.permit as Value;
  watch.admitted();
  if (holdMs > 0) await backend.clock.sleep(holdMs);
  const settlement = { permit, outcome, attempts: 1, latencyMs: holdMs };
  try {
    await backend.mutation("outbound:settle", settlement);
  } catch (error) {
    if (!(error instanceof ContentionError)) throw error;
    await backend.scheduled("outbound:settle", settlement);
  }
  watch.settled();
  return true;
}
