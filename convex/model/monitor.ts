/** What is looked at every few minutes, so that an alert is raised and, above all, cleared. */
import { MINUTE } from "../../src/core/time";
import { PROVIDER_IDS } from "../../src/providers/table";
import { internal } from "../_generated/api";
import type { MutationCtx } from "../_generated/server";
import * as Alerts from "./alerts";
import * as Breakers from "./breakers";
import * as Conditions from "./conditions";

export interface Found {
  readonly createdAlerts: number;
  readonly recoveredAlerts: number;
  /** Notices that a delivery which died left unsent. */
  readonly overdue: number;
}

/** Refusals of the window; `truncated` where they are lower bounds. */
export interface Seen {
  readonly byBucketOutcome: Readonly<Record<string, number>>;
  readonly truncated: boolean;
}

/** Raises and clears what follows from the refusals of the window, and from circuits and pools. */
export async function look(ctx: MutationCtx, seen: Seen, nowMs: number): Promise<Found> {
  const changes = [
    ...(await lookAtLimits(ctx, seen, nowMs)),
    ...(await lookAtCircuits(ctx, nowMs)),
    ...(await lookAtPools(ctx, seen, nowMs)),
  ];
  const count = (change: Alerts.Change): number => changes.filter((one) => one === change).length;
  return {
    createdAlerts: count("created"),
    recoveredAlerts: count("recovered"),
    overdue: await sendOverdue(ctx, nowMs),
  };
}

async function lookAtLimits(
  ctx: MutationCtx,
  { byBucketOutcome, truncated }: Seen,
  nowMs: number,
): Promise<Alerts.Change[]> {
  const changes: Alerts.Change[] = [];
  for (const rule of Conditions.LIMITER_RULES) {
    const observed = byBucketOutcome[`${rule.bucket}:${rule.outcome}`] ?? 0;
    // What was not read may be what is looked for: it can raise, and says nothing of an end.
    if (truncated && observed < rule.threshold) continue;
    changes.push(await Alerts.observe(ctx, Conditions.limiter(rule, observed), nowMs));
  }
  return changes;
}

async function lookAtCircuits(ctx: MutationCtx, nowMs: number): Promise<Alerts.Change[]> {
  const changes: Alerts.Change[] = [];
  for (const provider of PROVIDER_IDS) changes.push(await lookAtCircuit(ctx, provider, nowMs));
  return changes;
}

/**
 * Raises or clears by the state itself: reports of transitions come one by one and may be late. A
 * circuit that was set by hand is no alert.
 */
export async function lookAtCircuit(
  ctx: MutationCtx,
  provider: string,
  nowMs: number,
): Promise<Alerts.Change> {
  const { state } = await Breakers.load(ctx, provider);
  return state.kind === "open"
    ? (await Alerts.applyRaise(ctx, Conditions.circuitOpen(provider, state), nowMs)).change
    : await Alerts.applyClear(ctx, Conditions.circuitKey(provider), nowMs);
}

async function lookAtPools(
  ctx: MutationCtx,
  { byBucketOutcome, truncated }: Seen,
  nowMs: number,
): Promise<Alerts.Change[]> {
  const changes: Alerts.Change[] = [];
  if (truncated) return changes;
  for (const provider of PROVIDER_IDS)
    if ((byBucketOutcome[`${provider}:bulkhead_saturated`] ?? 0) === 0)
      changes.push(await Alerts.applyClear(ctx, Conditions.saturationKey(provider), nowMs));
  return changes;
}

/** How long after its time a notice counts as left behind. */
const OVERDUE_MS = MINUTE;
const OVERDUE_MAX = 10;

async function sendOverdue(ctx: MutationCtx, nowMs: number): Promise<number> {
  const overdue = (await Alerts.due(ctx, nowMs - OVERDUE_MS, OVERDUE_MAX)).length;
  if (overdue > 0) await ctx.scheduler.runAfter(0, internal.sentry.deliver, {});
  return overdue;
}
