import {
  type Breaker,
  type BreakerPolicy,
  CLOSED,
  closed,
  opened,
  type OpenReason,
  type Probe,
} from "../../src/core/breaker";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import * as Alerts from "./alerts";
import * as Conditions from "./conditions";

export interface Loaded extends Breaker {
  /** Null until the provider's circuit first opens: a healthy breaker costs no row. */
  readonly id: Id<"circuitBreakers"> | null;
  readonly provider: string;
}

/** Loads a provider's breaker. One whose circuit never opened is closed. */
export async function load(ctx: QueryCtx, provider: string): Promise<Loaded> {
  const row = await ctx.db
    .query("circuitBreakers")
    .withIndex("by_provider", (q) => q.eq("provider", provider))
    .unique();
  if (row === null) return { ...CLOSED, id: null, provider };
  return { id: row._id, provider, state: row.state, generation: row.generation };
}

/** Stores a transition, tells operators of it, and forgets the probes of the generation it ends. */
export async function save(
  ctx: MutationCtx,
  loaded: Loaded,
  { state, generation }: Breaker,
  nowMs: number,
): Promise<void> {
  const { provider, id } = loaded;
  const fields = { provider, state, generation, updatedAt: nowMs };
  if (id === null) await ctx.db.insert("circuitBreakers", fields);
  else await ctx.db.replace("circuitBreakers", id, fields);
  for (const { _id } of await probeRows(ctx, loaded)) await ctx.db.delete("breakerProbes", _id);
  if (state.kind === "open")
    await Alerts.raise(ctx, Conditions.circuitOpen(provider, state), nowMs);
  else await Alerts.clear(ctx, Conditions.circuitKey(provider), nowMs);
}

/** Places of probes read at most. */
export const PROBES_MAX = 20;

type ProbeRow = Doc<"breakerProbes">;

async function probeRows(
  ctx: QueryCtx,
  { provider, generation }: Pick<Loaded, "provider" | "generation">,
): Promise<ProbeRow[]> {
  return await ctx.db
    .query("breakerProbes")
    .withIndex("by_provider_generation", (q) =>
      q.eq("provider", provider).eq("generation", generation),
    )
    .take(PROBES_MAX);
}

/** The probes of a half-open circuit. Whoever admits one depends on all of them. */
export async function probes(ctx: QueryCtx, loaded: Loaded): Promise<Probe[]> {
  return (await probeRows(ctx, loaded)).map(({ expiresAt, place, succeeded }) => ({
    place,
    succeeded,
    expiresAtMs: expiresAt,
  }));
}

/** Takes a place that `admitProbe` granted in this transaction. */
export async function takeProbe(
  ctx: MutationCtx,
  loaded: Loaded,
  { place, expiresAtMs }: { readonly place: number; readonly expiresAtMs: number },
): Promise<Id<"breakerProbes">> {
  const { provider, generation } = loaded;
  // A probe that was lost leaves its row behind: the next one in its place replaces it, so that
  // the lost one's late report finds nothing.
  const lost = (await probeRows(ctx, loaded)).find((row) => row.place === place);
  if (lost !== undefined) await ctx.db.delete("breakerProbes", lost._id);
  const fields = { provider, generation, place, expiresAt: expiresAtMs, succeeded: false };
  return await ctx.db.insert("breakerProbes", fields);
}

/**
 * Ends a probe: one failure opens the circuit again, the last success of all of them closes it, and
 * a neutral one gives its place up. Returns the breaker's next state where that changed.
 */
export async function settleProbe(
  ctx: MutationCtx,
  loaded: Loaded,
  { probeId, outcome }: { readonly probeId: string; readonly outcome: ProbeOutcome },
  { nowMs, policy }: { readonly nowMs: number; readonly policy: BreakerPolicy },
): Promise<Breaker | null> {
  const rows = await probeRows(ctx, loaded);
  const probe = rows.find((row) => row._id === probeId);
  if (probe === undefined) return null;
  switch (outcome) {
    case "neutral":
      await ctx.db.delete("breakerProbes", probe._id);
      return null;
    case "failure":
      return opened(loaded, "failed_probe" satisfies OpenReason, nowMs);
    case "success": {
      const succeeded = rows.filter((row) => row.succeeded).length + 1;
      if (succeeded >= policy.probesMax) return closed(loaded);
      await ctx.db.patch("breakerProbes", probe._id, { succeeded: true });
      return null;
    }
  }
}

export type ProbeOutcome = "success" | "failure" | "neutral";
