/** Circuit breakers and bulkheads as a snapshot shows them: both live on the same slots. */
import { getDocumentSize, type Infer } from "convex/values";
import { env } from "../../src/config/env";
import { KIB } from "../../src/core/bytes";
import * as BreakerPolicy from "../../src/core/breaker";
import * as Tallies from "../../src/core/tally";
import { PROVIDER_IDS, type ProviderId, providerRow } from "../../src/providers/table";
import type { BreakerReading, VerdictInput } from "../../src/slo/reading";
import { queuePolicy } from "../../src/tools/policy";
import { TOOL_IDS, type ToolId } from "../../src/tools/table";
import type { Doc } from "../_generated/dataModel";
import type { QueryCtx } from "../_generated/server";
import { providerPolicy } from "./providerPolicy";
import * as Slots from "./slots";
import { type Reading, reserve, shownName, takeRows } from "./snapshotReading";
import type { breakerRow, breakerSection, bulkheadSection } from "./snapshotShape";

type Slot = Doc<"slots">;

/** Every slot that was ever used, by pool. */
export type Pools = ReadonlyMap<string, readonly Slot[]>;

const SLOT_ROWS_MAX = 120;
/** The same where little is left; and what the sections after this one need. */
const SLOT_ROWS_MIN = 40;
const LATER_ROWS = 130;
const SLOT_BYTES_MAX = 48 * KIB;
/** Pools looked for. There are about fifteen; others were named by callers of acquireSlot. */
const POOLS_MAX = 24;

/** Reads the slots. Small pools first: what they leave is shared by the large ones. */
export async function readPools(ctx: QueryCtx, reading: Reading): Promise<Pools> {
  const sizes = poolSizes();
  // Those with a size are looked for by name: what others are called cannot hide them.
  const names = new Set([...sizes.keys(), ...(await poolNames(ctx, reading))]);
  const sizeOf = (pool: string) => sizes.get(pool) ?? Slots.POOL_SLOTS_MAX + 1;
  const bySize = [...names].sort((a, b) => sizeOf(a) - sizeOf(b));
  const pools = new Map<string, readonly Slot[]>();
  let rowsLeft = Math.min(
    SLOT_ROWS_MAX,
    Math.max(SLOT_ROWS_MIN, reading.left.rowsLeft - LATER_ROWS),
  );
  let bytesLeft = SLOT_BYTES_MAX;
  for (const [i, pool] of bySize.entries()) {
    // What has no size has what the others leave.
    const poolsLeft = (i < sizes.size ? sizes.size : bySize.length) - i;
    const rows = await takeRows(
      reading,
      ctx.db.query("slots").withIndex("by_pool_index", (q) => q.eq("p", pool)),
      {
        section: "bulkheads",
        rowsMax: Math.floor(rowsLeft / poolsLeft),
        bytesMax: bytesLeft / poolsLeft,
      },
    );
    rowsLeft -= rows.length;
    bytesLeft -= rows.reduce((bytes, row) => bytes + getDocumentSize(row), 0);
    pools.set(pool, rows);
  }
  return pools;
}

/** Names of pools that have slots, found by jumping from one to the next. */
async function poolNames(ctx: QueryCtx, reading: Reading): Promise<string[]> {
  const names: string[] = [];
  while (names.length < POOLS_MAX && reserve(reading, 1) === 1) {
    const last = names.at(-1) ?? "";
    const next = await ctx.db
      .query("slots")
      .withIndex("by_pool_index", (q) => q.gt("p", last))
      .first();
    if (next === null) return names;
    names.push(next.p);
  }
  reading.truncated.add("bulkheads");
  return names;
}

/** Pool of a tool's running jobs. */
const toolPool = (tool: ToolId): string => `tool:${tool}`;

/** A pool as it is shown, whatever a caller of acquireSlot named it. */
const shownPool = (pool: string): string => (poolSizes().has(pool) ? pool : shownName(pool));

/** Sizes in force of the pools that have one: of providers, and of tools whose jobs queue. */
function poolSizes(): ReadonlyMap<string, number> {
  return new Map([
    ...PROVIDER_IDS.map((id) => [id, providerPolicy(env, id).bulkhead.size] as const),
    ...TOOL_IDS.flatMap((tool) => {
      const policy = queuePolicy(env, tool);
      return policy === null ? [] : [[toolPool(tool), policy.runMax] as const];
    }),
  ]);
}

/** Slots held now by pool, against their sizes. */
export function bulkheads(pools: Pools, nowMs: number): Infer<typeof bulkheadSection> {
  const inFlightByProvider: Record<string, number> = {};
  for (const [pool, rows] of pools) {
    const held = rows.filter(({ e }) => e > nowMs).length;
    const name = shownPool(pool);
    if (held > 0) inFlightByProvider[name] = (inFlightByProvider[name] ?? 0) + held;
  }
  const readings = poolReadings(pools, nowMs);
  const used = readings.filter(({ inFlight }) => inFlight > 0);
  return {
    activeLeaseCount: Object.values(inFlightByProvider).reduce((sum, n) => sum + n, 0),
    inFlightByProvider,
    sizes: Object.fromEntries(readings.map(({ limit, pool }) => [pool, limit])),
    saturation: Object.fromEntries(
      used.map(({ inFlight, limit, pool }) => [pool, inFlight / limit]),
    ),
    saturated: used.filter(({ inFlight, limit }) => inFlight >= limit).map(({ pool }) => pool),
  };
}

/** A pool as it is now: a slot beyond a size that was lowered is none of its places. */
export const poolReadings = (
  pools: Pools,
  nowMs: number,
): Pick<VerdictInput["bulkheads"][number], "pool" | "inFlight" | "limit">[] =>
  [...poolSizes()].map(([pool, limit]) => ({
    pool,
    inFlight: (pools.get(pool) ?? []).filter(({ e, i }) => e > nowMs && i < limit).length,
    limit,
  }));

/** Circuits of providers that were ever called, the ones that are not closed first. */
export async function circuits(
  ctx: QueryCtx,
  reading: Reading,
  pools: Pools,
): Promise<BreakerRow[]> {
  const rows: Doc<"circuitBreakers">[] = [];
  for (const provider of PROVIDER_IDS) {
    if (reserve(reading, 1) === 0) {
      reading.truncated.add("circuitBreakers");
      break;
    }
    const row = await ctx.db
      .query("circuitBreakers")
      .withIndex("by_provider", (q) => q.eq("provider", provider))
      .first();
    if (row !== null) rows.push(row);
  }
  return PROVIDER_IDS.flatMap((provider) => {
    const row = rows.find((stored) => stored.provider === provider) ?? null;
    const tallies = (pools.get(provider) ?? []).map(Slots.tallyOf).filter((t) => t !== null);
    return row === null && tallies.length === 0
      ? []
      : [statusOf(provider, row, tallies, reading.nowMs)];
  }).sort((a, b) => RANK[a.state] - RANK[b.state]);
}

/** The section, of which `recent` is cut to as many rows as a list may show. */
export function circuitBreakers(
  all: readonly BreakerRow[],
  { limit }: Reading,
): Infer<typeof breakerSection> {
  const count = (...states: readonly BreakerRow["state"][]) =>
    all.filter(({ state }) => states.includes(state)).length;
  return {
    recent: all.slice(0, limit),
    openCount: count("open", "forced_open"),
    halfOpenCount: count("half_open"),
    forcedCount: count("forced_open", "metrics_only"),
  };
}

type BreakerRow = Infer<typeof breakerRow>;

const RANK: Readonly<Record<BreakerRow["state"], number>> = {
  forced_open: 0,
  open: 1,
  half_open: 2,
  metrics_only: 3,
  closed: 4,
};

function statusOf(
  provider: ProviderId,
  row: Doc<"circuitBreakers"> | null,
  tallies: readonly Tallies.Tally[],
  nowMs: number,
): BreakerRow {
  const breaker: BreakerPolicy.Breaker = row ?? BreakerPolicy.CLOSED;
  const { generation, state } = breaker;
  const policy = providerPolicy(env, provider).breaker;
  const { windowMs } = policy;
  const { calls, failures, retries, run, slow } = Tallies.sum(tallies, {
    generation,
    nowMs,
    windowMs,
  });
  const forced = state.kind === "forced_open" || state.kind === "metrics_only";
  return {
    provider,
    state: forced ? state.kind : BreakerPolicy.phaseAt(breaker, nowMs, policy).kind,
    reason: state.kind === "open" ? state.reason : null,
    failureCount: run,
    callCount: calls,
    failedCount: failures,
    slowCount: slow,
    retryCount: retries,
    cooldownUntil: BreakerPolicy.probesFromMs(state, policy),
    generation,
    updatedAt: row?.updatedAt ?? null,
  };
}

/** Breakers as a verdict looks at them. A stream's providers are what chat cannot do without. */
export const breakerReadings = (all: readonly BreakerRow[]): BreakerReading[] =>
  PROVIDER_IDS.map((provider) => ({
    provider,
    state: all.find((row) => row.provider === provider)?.state ?? "closed",
    essentialTo: providerRow(provider).stream === undefined ? null : "chat",
  }));
