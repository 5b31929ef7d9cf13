import type { WithoutSystemFields } from "convex/server";
import { type Infer, v } from "convex/values";
import * as Alerting from "../../src/core/alerting";
import { internal } from "../_generated/api";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { alertFields, type alertKind } from "./telemetryTables";

type Row = Doc<"alerts">;
export type AlertKind = Infer<typeof alertKind>;

/** A condition that holds, and how often somebody is told of it. */
export const conditionFields = v.object({
  ...alertFields,
  /** Shortest time between two tellings, in milliseconds, counted from the last one. */
  cooldownMs: v.number(),
});
export type Condition = Infer<typeof conditionFields>;

/**
 * Tells operators that a condition holds. What raised it neither waits for this nor fails with it:
 * the alert is written by a transaction of its own, which the caller's commit starts.
 */
export async function raise(ctx: MutationCtx, condition: Condition, nowMs: number): Promise<void> {
  await ctx.scheduler.runAfter(0, internal.alerts.raise, { condition, atMs: nowMs });
}

/** Tells operators that a condition no longer holds, where they were told that it did. */
export async function clear(ctx: MutationCtx, alertKey: string, nowMs: number): Promise<void> {
  await ctx.scheduler.runAfter(0, internal.alerts.clear, { alertKey, atMs: nowMs });
}

export type Change = "created" | "reminded" | "recovered" | "unchanged";

/**
 * What a monitor found, in its own transaction: raises where `observed` reached the threshold and
 * clears where it did not. Writes nothing while nothing changes.
 */
export async function observe(
  ctx: MutationCtx,
  condition: Condition,
  nowMs: number,
): Promise<Change> {
  return condition.observed >= condition.threshold
    ? (await applyRaise(ctx, condition, nowMs)).change
    : await applyClear(ctx, condition.alertKey, nowMs);
}

/** Raises at once: for a transaction in which nobody waits. */
export async function applyRaise(
  ctx: MutationCtx,
  { cooldownMs, ...fields }: Condition,
  atMs: number,
): Promise<{ readonly change: Change; readonly alertId: Id<"alerts"> | null }> {
  const last = await latest(ctx, fields.alertKey);
  // Reports of transitions may overtake each other: an older one says nothing about now.
  if (last?.resolvedAt !== undefined && last.resolvedAt > atMs)
    return { change: "unchanged", alertId: last._id };
  const next = Alerting.raised(last === null ? null : alertOf(last), { nowMs: atMs, cooldownMs });
  if (next.kind === "unchanged") return { change: "unchanged", alertId: last?._id ?? null };
  const stored = { ...fields, ...storedAlert(next.alert), updatedAt: atMs };
  await deliverAt(ctx, next.alert);
  if (next.kind === "created" || last === null) {
    const alertId = await ctx.db.insert("alerts", { ...stored, createdAt: atMs });
    return { change: "created", alertId };
  }
  await ctx.db.patch("alerts", last._id, stored);
  return { change: "reminded", alertId: last._id };
}

/** Clears at once: for a transaction in which nobody waits. */
export async function applyClear(
  ctx: MutationCtx,
  alertKey: string,
  atMs: number,
): Promise<Change> {
  const last = await latest(ctx, alertKey);
  if (last?.status !== "active" || last.createdAt > atMs) return "unchanged";
  const next = Alerting.resolved(alertOf(last), atMs);
  await ctx.db.patch("alerts", last._id, {
    ...storedAlert(next),
    resolvedAt: atMs,
    updatedAt: atMs,
  });
  await deliverAt(ctx, next);
  return "recovered";
}

async function latest(ctx: QueryCtx, alertKey: string): Promise<Row | null> {
  return await ctx.db
    .query("alerts")
    .withIndex("by_alert_key", (q) => q.eq("alertKey", alertKey))
    .order("desc")
    .first();
}

async function deliverAt(ctx: MutationCtx, { delivery }: Alerting.Alert): Promise<void> {
  if (delivery.kind === "pending")
    await ctx.scheduler.runAt(delivery.dueAtMs, internal.sentry.deliver, {});
}

/** What is to be told, and the proof that it is still this attempt's to tell. */
export const noticeFields = v.object({
  alertId: v.id("alerts"),
  attempt: v.number(),
  notice: v.union(v.literal("raised"), v.literal("recovered")),
  ...alertFields,
  raisedAtMs: v.number(),
  resolvedAtMs: v.union(v.number(), v.null()),
  /** Differs between tellings and not between attempts of one. */
  telling: v.string(),
});
export type Notice = Infer<typeof noticeFields>;

/** Notices that one delivery takes. */
const NOTICES_MAX = 10;

/** Takes what is due, for one attempt each. */
export async function claimDue(
  ctx: MutationCtx,
  nowMs: number,
): Promise<{ readonly notices: Notice[]; readonly more: boolean }> {
  const rows = await due(ctx, nowMs, NOTICES_MAX);
  const notices: Notice[] = [];
  for (const row of rows) {
    const next = Alerting.begun(alertOf(row), nowMs);
    if (next === null) continue;
    const stored = storedAlert(next);
    await ctx.db.patch("alerts", row._id, stored);
    notices.push({
      alertId: row._id,
      attempt: stored.attempts,
      notice: row.notice,
      alertKey: row.alertKey,
      kind: row.kind,
      severity: row.severity,
      summary: row.summary,
      observed: row.observed,
      threshold: row.threshold,
      windowMinutes: row.windowMinutes,
      raisedAtMs: row.createdAt,
      resolvedAtMs: row.resolvedAt ?? null,
      telling: `${row._id}:${row.notice}:${row.raisedSentAt ?? 0}`,
    });
  }
  return { notices, more: rows.length === NOTICES_MAX };
}

/** Pending notices whose time has come. */
export async function due(ctx: QueryCtx, nowMs: number, count: number): Promise<Row[]> {
  return await ctx.db
    .query("alerts")
    .withIndex("by_delivery_due", (q) => q.eq("delivery", "pending").lte("dueAt", nowMs))
    .take(count);
}

export const attemptFields = v.union(
  v.object({ kind: v.literal("sent") }),
  v.object({ kind: v.literal("failed"), failure: v.string(), retryAfterMs: v.number() }),
  v.object({ kind: v.literal("not_configured") }),
);

/** Notes how an attempt ended. One that was overtaken by another changes nothing. */
export async function settleAttempt(
  ctx: MutationCtx,
  { alertId, attempt, ended }: SettledAttempt,
  nowMs: number,
): Promise<void> {
  const row = await ctx.db.get("alerts", alertId);
  if (row?.delivery !== "pending" || row.attempts !== attempt) return;
  const next = Alerting.attempted(alertOf(row), ended, { nowMs, random: Math.random });
  await ctx.db.patch("alerts", alertId, {
    ...storedAlert(next),
    lastFailure: ended.kind === "failed" ? ended.failure : undefined,
    updatedAt: nowMs,
  });
  await deliverAt(ctx, next);
}

export interface SettledAttempt {
  readonly alertId: Id<"alerts">;
  readonly attempt: number;
  readonly ended: Infer<typeof attemptFields>;
}

/** Alerts of these kinds, the newest first. */
export async function recent(
  ctx: QueryCtx,
  { kinds, limit }: { readonly kinds: readonly AlertKind[]; readonly limit: number },
): Promise<Row[]> {
  const rows: Row[] = [];
  for (const kind of kinds)
    rows.push(
      ...(await ctx.db
        .query("alerts")
        .withIndex("by_kind_created", (q) => q.eq("kind", kind))
        .order("desc")
        .take(limit)),
    );
  return rows.sort((a, b) => b.createdAt - a.createdAt).slice(0, limit);
}

/** An alert as operators see it. */
export const shownFields = v.object({
  ...alertFields,
  alertId: v.id("alerts"),
  status: v.union(v.literal("active"), v.literal("resolved")),
  notice: v.union(v.literal("raised"), v.literal("recovered")),
  delivery: v.union(
    v.literal("pending"),
    v.literal("sent"),
    v.literal("suppressed"),
    v.literal("dead"),
    v.literal("not_configured"),
  ),
  attempts: v.number(),
  lastFailure: v.union(v.string(), v.null()),
  createdAt: v.number(),
  raisedSentAt: v.union(v.number(), v.null()),
  resolvedAt: v.union(v.number(), v.null()),
});

export const shown = (row: Row): Infer<typeof shownFields> => ({
  alertId: row._id,
  alertKey: row.alertKey,
  kind: row.kind,
  severity: row.severity,
  summary: row.summary,
  observed: row.observed,
  threshold: row.threshold,
  windowMinutes: row.windowMinutes,
  status: row.status,
  notice: row.notice,
  delivery: row.delivery,
  attempts: row.attempts,
  lastFailure: row.lastFailure ?? null,
  createdAt: row.createdAt,
  raisedSentAt: row.raisedSentAt ?? null,
  resolvedAt: row.resolvedAt ?? null,
});

/** Notices of each state that the outbox is counted up to. */
const OUTBOX_MAX = 20;

/** What waits to be told and what was given up on, counted up to 20 each. */
export async function outbox(
  ctx: QueryCtx,
  nowMs: number,
): Promise<{
  readonly waiting: number;
  readonly undelivered: number;
  readonly notConfigured: number;
  readonly oldestWaitingAgeMs: number | null;
}> {
  const inState = async (delivery: Row["delivery"]): Promise<Row[]> =>
    await ctx.db
      .query("alerts")
      .withIndex("by_delivery_due", (q) => q.eq("delivery", delivery))
      .order("desc")
      .take(OUTBOX_MAX);
  const waiting = await inState("pending");
  const since = waiting.map(({ createdAt, resolvedAt, notice }) =>
    notice === "recovered" ? (resolvedAt ?? createdAt) : createdAt,
  );
  return {
    waiting: waiting.length,
    undelivered: (await inState("dead")).length,
    notConfigured: (await inState("not_configured")).length,
    oldestWaitingAgeMs: waiting.length === 0 ? null : nowMs - Math.min(...since),
  };
}

function alertOf(row: Row): Alerting.Alert {
  return {
    active: row.status === "active",
    delivery: deliveryOf(row),
    raisedSentAtMs: row.raisedSentAt ?? null,
  };
}

function deliveryOf({ attempts, delivery, dueAt, notice }: Row): Alerting.Delivery {
  switch (delivery) {
    case "pending":
      return { kind: "pending", notice, attempts, dueAtMs: dueAt };
    case "sent":
      return { kind: "sent", notice };
    case "suppressed":
      return { kind: "suppressed" };
    case "dead":
      return { kind: "dead", notice, atMs: dueAt };
    case "not_configured":
      return { kind: "not_configured", atMs: dueAt };
  }
}

type StoredAlert = Pick<
  WithoutSystemFields<Row>,
  "status" | "notice" | "delivery" | "attempts" | "dueAt" | "raisedSentAt"
>;

function storedAlert({ active: isActive, delivery, raisedSentAtMs }: Alerting.Alert): StoredAlert {
  return {
    status: isActive ? "active" : "resolved",
    delivery: delivery.kind,
    notice: "notice" in delivery ? delivery.notice : "raised",
    attempts: delivery.kind === "pending" ? delivery.attempts : 0,
    dueAt: "dueAtMs" in delivery ? delivery.dueAtMs : "atMs" in delivery ? delivery.atMs : 0,
    ...(raisedSentAtMs === null ? {} : { raisedSentAt: raisedSentAtMs }),
  };
}
