import { type Breaker, CLOSED } from "../../src/core/breaker";
import type { Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";

export interface Loaded extends Breaker {
  /** Null until the provider first fails: a healthy breaker costs no row. */
  readonly id: Id<"circuitBreakers"> | null;
  readonly provider: string;
}

/** Loads a provider's breaker. A provider that never failed is closed. */
export async function load(ctx: QueryCtx, provider: string): Promise<Loaded> {
  const row = await ctx.db
    .query("circuitBreakers")
    .withIndex("by_provider", (q) => q.eq("provider", provider))
    .unique();
  if (row === null) return { ...CLOSED, id: null, provider };
  return { id: row._id, provider, state: row.state, generation: row.generation };
}

/** Stores what a policy decided, where it decided anything. */
export async function save(
  ctx: MutationCtx,
  loaded: Loaded,
  next: Breaker,
  nowMs: number,
): Promise<void> {
  if (next.state === loaded.state && next.generation === loaded.generation) return;
  const { provider, id } = loaded;
  const { state, generation } = next;
  const fields = {
    provider,
    state:
      state.kind === "half_open" ? { ...state, probeLeasesMs: [...state.probeLeasesMs] } : state,
    generation,
    updatedAt: nowMs,
  };
  if (id === null) await ctx.db.insert("circuitBreakers", fields);
  else await ctx.db.replace("circuitBreakers", id, fields);
}
