import {
  addCalls,
  addRefusals,
  type Calls,
  fewestCalls,
  type Refusals,
} from "../../src/core/rollup";
import { DAY, HOUR, MINUTE, SECOND } from "../../src/core/time";
import type { Doc } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import { type Batch, takeBatch } from "./batch";

type Rollup = Doc<"rollups">;
type Span = Rollup["span"];

/** Minutes that are younger are kept as such; older ones are part of their hour. */
export const MINUTES_KEPT_MS = HOUR;
const HOURS_KEPT_MS = 30 * DAY;
/** A transaction may still count in a minute for a while after it has passed. */
const CLOSED_AFTER_MS = 30 * SECOND;

export interface Folded {
  /** Rows that became part of a rollup. */
  readonly folded: number;
  /** Hours that were deleted. */
  readonly expired: number;
}

/**
 * Adds closed minutes to their rollups, old minutes to their hours, and forgets what is older than
 * 30 days, as far as the batch goes. What is added is deleted in the same transaction, so that
 * nothing counts twice or not at all, however often this runs and wherever it stops.
 */
export async function fold(ctx: MutationCtx, batch: Batch, nowMs: number): Promise<Folded> {
  const minutes = await foldMinutes(ctx, batch, nowMs);
  const hours = await foldHours(ctx, batch, nowMs);
  const expired = await takeBatch(spanBefore(ctx, "hour", nowMs - HOURS_KEPT_MS - HOUR), batch);
  for (const { _id } of expired) await ctx.db.delete("rollups", _id);
  return { folded: minutes + hours, expired: expired.length };
}

const spanBefore = (ctx: QueryCtx, span: Span, beforeMs: number) =>
  ctx.db
    .query("rollups")
    .withIndex("by_span_start", (q) => q.eq("span", span).lt("startMs", beforeMs));

async function foldMinutes(ctx: MutationCtx, batch: Batch, nowMs: number): Promise<number> {
  const openFromMs = minuteOf(nowMs - CLOSED_AFTER_MS);
  const calls = await takeBatch(
    ctx.db.query("metrics").withIndex("by_minute_key_shard", (q) => q.lt("minuteMs", openFromMs)),
    batch,
  );
  const refusals = await takeBatch(
    ctx.db.query("rateLimitEvents").withIndex("by_row", (q) => q.lt("minuteMs", openFromMs)),
    batch,
  );
  const minutes = new Set([...calls, ...refusals].map(({ minuteMs }) => minuteMs));
  for (const minuteMs of minutes)
    await addTo(ctx, "minute", minuteMs, {
      calls: calls.filter((row) => row.minuteMs === minuteMs),
      refusals: refusals.filter((row) => row.minuteMs === minuteMs),
    });
  for (const { _id } of calls) await ctx.db.delete("metrics", _id);
  for (const { _id } of refusals) await ctx.db.delete("rateLimitEvents", _id);
  return calls.length + refusals.length;
}

async function foldHours(ctx: MutationCtx, batch: Batch, nowMs: number): Promise<number> {
  const rows = await takeBatch(spanBefore(ctx, "minute", minuteOf(nowMs - MINUTES_KEPT_MS)), batch);
  const hours = new Set(rows.map(({ startMs }) => hourOf(startMs)));
  for (const hourMs of hours) {
    const within = rows.filter(({ startMs }) => hourOf(startMs) === hourMs);
    await addTo(ctx, "hour", hourMs, {
      calls: within.flatMap(({ calls }) => calls),
      refusals: within.flatMap(({ refusals }) => refusals),
    });
  }
  for (const { _id } of rows) await ctx.db.delete("rollups", _id);
  return rows.length;
}

interface Counted {
  readonly calls: readonly Calls[];
  readonly refusals: readonly Refusals[];
}

async function addTo(
  ctx: MutationCtx,
  span: Span,
  startMs: number,
  { calls, refusals }: Counted,
): Promise<void> {
  const row = await ctx.db
    .query("rollups")
    .withIndex("by_span_start", (q) => q.eq("span", span).eq("startMs", startMs))
    .unique();
  const fields = {
    span,
    startMs,
    calls: fewestCalls(addCalls([...(row?.calls ?? []), ...calls.map(callsOf)])),
    refusals: addRefusals([...(row?.refusals ?? []), ...refusals.map(refusalsOf)]),
  };
  if (row === null) await ctx.db.insert("rollups", fields);
  else await ctx.db.replace("rollups", row._id, fields);
}

const callsOf = ({ counts, key, latency }: Calls): Calls => ({ key, counts, latency });

const refusalsOf = ({ bucket, count, outcome, reason, source }: Refusals): Refusals => ({
  bucket,
  outcome,
  ...(reason === undefined ? {} : { reason }),
  ...(source === undefined ? {} : { source }),
  count,
});

const minuteOf = (ms: number): number => Math.floor(ms / MINUTE) * MINUTE;
const hourOf = (ms: number): number => Math.floor(ms / HOUR) * HOUR;

export interface Window {
  readonly nowMs: number;
  readonly minutes: number;
}

interface Read {
  /** Where the counts begin, in epoch milliseconds: at the window's start or, whole hours, before. */
  readonly fromMs: number;
  /** True where not everything was read; of each kind the newest was. */
  readonly truncated: boolean;
}

export interface Totals extends Counted, Read {}

/**
 * Everything that was counted in a window, from rollups and open minutes, as far as the batch goes.
 * Open minutes of a busy deployment are many rows: they leave some of the batch to what was folded,
 * and calls leave some of it to refusals.
 */
export async function totals(ctx: QueryCtx, window: Window, batch: Batch): Promise<Totals> {
  const { fromMs } = spansOf(window);
  const whole: Batch = { ...batch, full: false };
  const openRefusals = await within(whole, 1 / 2, (part) => openRefusalsFrom(ctx, fromMs, part));
  const openCalls = await within(whole, 3 / 4, (part) => openCallsFrom(ctx, fromMs, part));
  const rolled = await rollupsOf(ctx, window, whole);
  batch.rowsLeft = whole.rowsLeft;
  batch.bytesLeft = whole.bytesLeft;
  return {
    fromMs,
    calls: addCalls([...openCalls, ...rolled.flatMap(({ calls }) => calls)]),
    refusals: addRefusals([
      ...openRefusals.map(refusalsOf),
      ...rolled.flatMap(({ refusals }) => refusals),
    ]),
    truncated: whole.full,
  };
}

/** The refusals of a window alone: however many calls there were, none stands in their way. */
export async function refusalTotals(
  ctx: QueryCtx,
  window: Window,
  batch: Batch,
): Promise<Omit<Totals, "calls">> {
  const { fromMs } = spansOf(window);
  const rolled = await rollupsOf(ctx, window, batch);
  const open = await openRefusalsFrom(ctx, fromMs, batch);
  return {
    fromMs,
    refusals: addRefusals([...open.map(refusalsOf), ...rolled.flatMap(({ refusals }) => refusals)]),
    truncated: batch.full,
  };
}

function spansOf({ minutes, nowMs }: Window): { fromMs: number; needsHours: boolean } {
  const fromMs = minuteOf(nowMs - minutes * MINUTE);
  const needsHours = fromMs < minuteOf(nowMs - MINUTES_KEPT_MS);
  return { fromMs: needsHours ? hourOf(fromMs) : fromMs, needsHours };
}

/** Reads by a part of a batch, and takes what was read off the whole. */
async function within<Row>(
  whole: Batch,
  share: number,
  read: (part: Batch) => Promise<Row[]>,
): Promise<Row[]> {
  const part: Batch = {
    rowsLeft: Math.ceil(whole.rowsLeft * share),
    bytesLeft: whole.bytesLeft * share,
    full: false,
  };
  const given = { ...part };
  const rows = await read(part);
  whole.rowsLeft -= given.rowsLeft - part.rowsLeft;
  whole.bytesLeft -= given.bytesLeft - part.bytesLeft;
  whole.full ||= part.full;
  return rows;
}

async function rollupsOf(ctx: QueryCtx, window: Window, batch: Batch): Promise<Rollup[]> {
  const { fromMs, needsHours } = spansOf(window);
  return [
    // Of the hour that a long window begins with, some minutes may not be part of it yet.
    ...(await takeBatch(spanFrom(ctx, "minute", fromMs), batch)),
    ...(needsHours ? await takeBatch(spanFrom(ctx, "hour", fromMs), batch) : []),
  ];
}

const spanFrom = (ctx: QueryCtx, span: Span, fromMs: number) =>
  ctx.db
    .query("rollups")
    .withIndex("by_span_start", (q) => q.eq("span", span).gte("startMs", fromMs))
    .order("desc");

const openCallsFrom = async (ctx: QueryCtx, fromMs: number, batch: Batch) =>
  await takeBatch(
    ctx.db
      .query("metrics")
      .withIndex("by_minute_key_shard", (q) => q.gte("minuteMs", fromMs))
      .order("desc"),
    batch,
  );

const openRefusalsFrom = async (ctx: QueryCtx, fromMs: number, batch: Batch) =>
  await takeBatch(
    ctx.db
      .query("rateLimitEvents")
      .withIndex("by_row", (q) => q.gte("minuteMs", fromMs))
      .order("desc"),
    batch,
  );

/** Refusals by minute, the newest minute first; of the hours before, by hour. */
export async function refusalsByTime(
  ctx: QueryCtx,
  nowMs: number,
  batch: Batch,
): Promise<(Refusals & { readonly fromMs: number })[]> {
  const open = await openRefusalsFrom(ctx, 0, batch);
  const rolled = [
    ...(await takeBatch(spanFrom(ctx, "minute", 0), batch)),
    ...(await takeBatch(spanFrom(ctx, "hour", nowMs - DAY), batch)),
  ];
  const times = new Map<number, Refusals[]>();
  for (const row of open) times.set(row.minuteMs, [...(times.get(row.minuteMs) ?? []), row]);
  for (const row of rolled)
    times.set(row.startMs, [...(times.get(row.startMs) ?? []), ...row.refusals]);
  return [...times]
    .sort(([a], [b]) => b - a)
    .flatMap(([fromMs, rows]) =>
      addRefusals(rows.map(refusalsOf)).map((refusal) => ({ fromMs, ...refusal })),
    );
}
