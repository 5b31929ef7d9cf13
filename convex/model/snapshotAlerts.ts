/** Alerts and their outbox as a snapshot shows them: names and figures, no sentences. */
import type { Infer } from "convex/values";
import { DAY, MINUTE } from "../../src/core/time";
import type { VerdictInput } from "../../src/slo/reading";
import type { Doc } from "../_generated/dataModel";
import type { QueryCtx } from "../_generated/server";
import { type Reading, shownKey, shownName, takeNewest, takeRows } from "./snapshotReading";
import type { alertRow, alertSection } from "./snapshotShape";
import { alertKind } from "./telemetryTables";

type Row = Doc<"alerts">;
type Kind = Row["kind"];

/** Of each kind: one that turns to and fro hides none of the others. */
const RECENT_ROWS_MAX = 8;
const LIMITER_ROWS_MAX = 16;
const ACTIVE_ROWS_MAX = 16;
const WAITING_ROWS_MAX = 8;
const DEAD_ROWS_MAX = 4;
const UNTOLD_ROWS_MAX = 8;
/** How long an alert that nobody was told of is held against the deployment. */
const DEAD_SHOWN_MS = DAY;

const KINDS: readonly Kind[] = alertKind.members.map(({ value }) => value);
const LIMITER_KINDS: readonly Kind[] = ["limiter"];
const QUEUE_KINDS: readonly Kind[] = [
  "queued_depth",
  "oldest_queued_age",
  "oldest_running_age",
  "dead_letter_depth",
];

export interface Alerts {
  readonly ofLimits: Infer<typeof alertSection>;
  readonly ofQueues: Infer<typeof alertSection>;
  readonly all: Infer<typeof alertSection>;
  /** Alerts whose condition holds. */
  readonly active: number;
  readonly outbox: VerdictInput["alerts"];
}

/** The newest alerts, by what they are about, and what of them has not reached anybody. */
export async function alerts(ctx: QueryCtx, reading: Reading): Promise<Alerts> {
  const recent: Row[] = [];
  for (const kind of KINDS) recent.push(...(await newestOf(ctx, reading, kind)));
  const active = await takeRows(
    reading,
    ctx.db.query("alerts").withIndex("by_status_created", (q) => q.eq("status", "active")),
    { section: "alerts", rowsMax: ACTIVE_ROWS_MAX },
  );
  return {
    ofLimits: sectionOf(recent, reading, LIMITER_KINDS),
    ofQueues: sectionOf(recent, reading, QUEUE_KINDS),
    all: sectionOf(recent, reading),
    active: active.length,
    outbox: await outbox(ctx, reading),
  };
}

/** Sections that alerts of a kind are counted in. */
const sectionsOf = (kind: Kind): readonly string[] => [
  "alerts",
  ...(LIMITER_KINDS.includes(kind) ? ["rateLimitPressure"] : []),
  ...(QUEUE_KINDS.includes(kind) ? ["toolQueueAlerts"] : []),
];

/** The newest alerts of a kind; where that is not all of the window, its counts are lower bounds. */
async function newestOf(ctx: QueryCtx, reading: Reading, kind: Kind): Promise<Row[]> {
  const rowsMax = kind === "limiter" ? LIMITER_ROWS_MAX : RECENT_ROWS_MAX;
  const rows = await takeNewest(
    reading,
    ctx.db
      .query("alerts")
      .withIndex("by_kind_created", (q) => q.eq("kind", kind))
      .order("desc"),
    { section: "alerts", rowsMax },
  );
  const last = rows.at(rowsMax - 1);
  if (last !== undefined && last.createdAt >= windowFromMs(reading))
    for (const section of sectionsOf(kind)) reading.truncated.add(section);
  return rows;
}

const windowFromMs = ({ minutes, nowMs }: Reading): number => nowMs - minutes * MINUTE;

function sectionOf(
  rows: readonly Row[],
  reading: Reading,
  kinds?: readonly Kind[],
): Infer<typeof alertSection> {
  const ours = rows.filter(({ kind }) => kinds?.includes(kind) ?? true);
  const fromMs = windowFromMs(reading);
  return {
    alertsInWindow: ours.filter(({ createdAt }) => createdAt >= fromMs).length,
    recent: ours
      .toSorted((a, b) => b.createdAt - a.createdAt)
      .slice(0, reading.limit)
      .map(shown),
  };
}

const shown = (row: Row): Infer<typeof alertRow> => ({
  alertKey: shownKey(row.alertKey),
  kind: row.kind,
  severity: row.severity,
  observed: row.observed,
  threshold: row.threshold,
  windowMinutes: row.windowMinutes,
  status: row.status,
  delivery: row.delivery,
  attempts: row.attempts,
  lastFailure: row.lastFailure === undefined ? null : shownName(row.lastFailure),
  createdAt: row.createdAt,
  resolvedAt: row.resolvedAt ?? null,
});

/** Notices that are due or being tried, and those that were given up on within a day. */
async function outbox(ctx: QueryCtx, reading: Reading): Promise<VerdictInput["alerts"]> {
  const { nowMs } = reading;
  const pending = await takeRows(
    reading,
    ctx.db.query("alerts").withIndex("by_delivery_due", (q) => q.eq("delivery", "pending")),
    { section: "alerts", rowsMax: WAITING_ROWS_MAX },
  );
  const dead = await untold(ctx, reading, { delivery: "dead", rowsMax: DEAD_ROWS_MAX });
  const notConfigured = await untold(ctx, reading, {
    delivery: "not_configured",
    rowsMax: UNTOLD_ROWS_MAX,
  });
  // One that only waits for the cooldown after the last telling is where it should be.
  const waiting = pending.filter(({ attempts, dueAt }) => attempts > 0 || dueAt <= nowMs);
  const agesMs = waiting.map((row) => nowMs - untoldSinceMs(row, nowMs));
  return {
    waiting: waiting.length,
    undelivered: dead.length,
    notConfigured: notConfigured.length,
    oldestWaitingAgeMs: agesMs.length === 0 ? null : Math.max(...agesMs),
  };
}

/** Notices of the last day that reached nobody. */
const untold = (
  ctx: QueryCtx,
  reading: Reading,
  { delivery, rowsMax }: { readonly delivery: Row["delivery"]; readonly rowsMax: number },
): Promise<Row[]> =>
  takeRows(
    reading,
    ctx.db
      .query("alerts")
      .withIndex("by_delivery_due", (q) =>
        q.eq("delivery", delivery).gt("dueAt", reading.nowMs - DEAD_SHOWN_MS),
      ),
    { section: "alerts", rowsMax },
  );

/** Since when somebody should have been told what nobody has been told yet. */
function untoldSinceMs(row: Row, nowMs: number): number {
  if (row.notice === "recovered") return row.resolvedAt ?? nowMs;
  // A reminder is of something that was told before.
  return row.raisedSentAt === undefined ? row.createdAt : nowMs;
}
