/** Calls to providers as the museum's tests make them: admitted, and settled one way or another. */
import { internal } from "../../convex/_generated/api";
import type { Permit } from "../../convex/model/permit";
import type { Backend } from "../edge/backend";

export type Outcome = "success" | "failure" | "neutral" | "infrastructure";

export const PROVIDER = "serper_search";

export const admit = (t: Backend) => t.mutation(internal.outbound.admit, { provider: PROVIDER });

export async function permit(t: Backend): Promise<Permit> {
  const verdict = await admit(t);
  if (!verdict.ok) throw new Error(`refused: ${verdict.code}`);
  return verdict.permit;
}

export const settle = (t: Backend, held: Permit, outcome: Outcome, latencyMs = 100) =>
  t.mutation(internal.outbound.settle, { permit: held, outcome, attempts: 1, latencyMs });

/** Calls one after the other; `F` fails and `S` succeeds. Those refused are left out. */
export async function calls(t: Backend, pattern: string): Promise<void> {
  for (const letter of pattern) {
    const verdict = await admit(t);
    if (verdict.ok) await settle(t, verdict.permit, letter === "F" ? "failure" : "success");
  }
}

export async function status(t: Backend) {
  const all = await t.query(internal.circuitBreaker.listStatuses, {});
  const found = all.find(({ provider }) => provider === PROVIDER);
  if (found === undefined) throw new Error("every provider has a status");
  return found;
}

export const phase = async (t: Backend): Promise<string> => (await status(t)).state;
