/** How many jobs there are, of each tool in each state: sums, never samples. */
import { getConvexSize, type Infer, type Value } from "convex/values";
import {
  type Finding,
  PLACE,
  QOS_CODES,
  queueFindings,
  type QueueState,
} from "../../src/core/queue";
import { env } from "../../src/config/env";
import { readKnob } from "../../src/config/read";
import { queuePolicy } from "../../src/tools/policy";
import { isToolId } from "../../src/tools/table";
import type { Doc } from "../_generated/dataModel";
import type { QueryCtx } from "../_generated/server";
import * as Slots from "./slots";
import * as Line from "./toolJobLine";
import { type Job, poolOf, QUEUED_TOOLS } from "./toolJobRows";
import type { queueStats as queueStatsShape } from "./toolJobShapes";

export type QueueStats = Infer<typeof queueStatsShape>;
type JobCounts = QueueStats["byStatus"];

/** A tool's queue at a glance. Ages in milliseconds; null where nothing waits or runs. */
export interface ToolReading {
  readonly counts: JobCounts;
  readonly oldestQueuedAgeMs: number | null;
  readonly oldestRunningAgeMs: number | null;
}

export interface QueueReading {
  readonly tools: Readonly<Record<string, ToolReading>>;
  /** Whether counters, slots, jobs that back off or heads of the line were too many to be read. */
  readonly truncated: boolean;
  /** What was read for this. */
  readonly documents: number;
  readonly bytes: number;
}

const NO_JOBS: JobCounts = {
  queued: 0,
  running: 0,
  completed: 0,
  failed: 0,
  cancelled: 0,
  deadLetter: 0,
};
/** Rows of counts and stripes: those of some ten tools. */
const COUNT_ROWS_MAX = 160;
/** Jobs read of those that back off, are next or run: the oldest of each. */
const OLDEST_MAX = 100;
/** Heads of stripes read for their age: all of three tools. */
const HEADS_MAX = 144;

interface ReadBounds {
  /** Rows of counts, and as many of stripes. */
  readonly countsMax?: number;
  readonly oldestMax?: number;
  /** Slots of all tools together. */
  readonly slotsMax?: number;
  readonly headsMax?: number;
  /** Heads hold arguments: bytes of them, and one more. */
  readonly headsBytesMax?: number;
}

/**
 * The queues of all tools, those included that are no more but left jobs behind. Counts are sums of
 * what slots, stripes and shards say, exact whenever no job is in between two states.
 */
export async function readQueues(
  ctx: QueryCtx,
  nowMs: number,
  bounds: ReadBounds = {},
): Promise<QueueReading> {
  const { countsMax = COUNT_ROWS_MAX, oldestMax = OLDEST_MAX } = bounds;
  const oldestAt = (place: string) =>
    ctx.db
      .query("toolJobs")
      .withIndex("by_place", (q) => q.eq("p", place))
      .take(oldestMax);
  const backingOff = await oldestAt(PLACE.backingOff);
  const running = await oldestAt(PLACE.running);
  const nexts = await oldestAt(PLACE.next);
  const counted = await ctx.db.query("toolJobCounts").take(countsMax);
  const stripes = await ctx.db.query("toolJobStripes").take(countsMax);
  const line = await readHeads(ctx, stripes, bounds);
  const left = [...backingOff, ...running, ...counted, ...stripes].map(({ t }) => t);
  const slots = await readSlots(ctx, new Set<string>([...QUEUED_TOOLS, ...left]), bounds);
  const tools: Record<string, ToolReading> = {};
  for (const [tool, ofTool] of slots.byTool) {
    const of = <Row extends { readonly t: string }>(rows: readonly Row[]) =>
      rows.filter(({ t }) => t === tool);
    const inLine = of(stripes).reduce((sum, row) => sum + Line.standing(row), 0);
    const next = ofTool.filter(({ n }) => n !== undefined).length;
    // One whose time has come is started then: one that still stands there waits like the others.
    const overdue = of(backingOff).filter(({ a }) => a <= nowMs);
    tools[tool] = {
      counts: {
        ...totalOf(of(counted)),
        queued: inLine + next + of(backingOff).length,
        running: ofTool.filter(({ e }) => e > nowMs).length,
        completed: ofTool.reduce((sum, { d = 0 }) => sum + d, 0) + totalOf(of(counted)).completed,
      },
      oldestQueuedAgeMs: ageOf([...of(line.heads), ...of(nexts), ...overdue], nowMs),
      oldestRunningAgeMs: ageOf(of(running), nowMs),
    };
  }
  const jobs = [...backingOff, ...running, ...nexts, ...line.heads];
  const read: Value[] = [...jobs, ...counted, ...stripes, ...[...slots.byTool.values()].flat()];
  return {
    tools,
    truncated:
      line.truncated ||
      slots.truncated ||
      backingOff.length === oldestMax ||
      Math.max(counted.length, stripes.length) === countsMax,
    documents: read.length,
    bytes: read.reduce<number>((sum, row) => sum + getConvexSize(row), 0),
  };
}

/** The slots of each tool. */
async function readSlots(
  ctx: QueryCtx,
  tools: ReadonlySet<string>,
  { slotsMax = Infinity }: ReadBounds,
) {
  const byTool = new Map<string, readonly Doc<"slots">[]>();
  let slotsLeft = slotsMax;
  for (const tool of tools) {
    const rowsMax = Math.min(Slots.POOL_SLOTS_MAX, slotsLeft);
    const slots = rowsMax === 0 ? [] : await Slots.ofPool(ctx, poolOf(tool), rowsMax);
    slotsLeft -= slots.length;
    byTool.set(tool, slots);
  }
  return { byTool, truncated: slotsLeft === 0 };
}

function totalOf(rows: readonly Doc<"toolJobCounts">[]): JobCounts {
  return rows.reduce(
    (sum, row) =>
      addCounts(sum, {
        ...NO_JOBS,
        completed: row.completed,
        failed: row.failed,
        cancelled: row.cancelled,
        deadLetter: row.deadLetters,
      }),
    NO_JOBS,
  );
}

/** Who stands first in each class of each stripe, of every tool some where not all can be read. */
async function readHeads(
  ctx: QueryCtx,
  stripes: readonly Doc<"toolJobStripes">[],
  { headsBytesMax = Infinity, headsMax = HEADS_MAX }: ReadBounds,
): Promise<{ readonly heads: readonly Job[]; readonly truncated: boolean }> {
  const places = stripes
    .toSorted((one, other) => one.z - other.z)
    .flatMap((row) =>
      QOS_CODES.filter((qos) => row[qos] > 0).map((qos) => ({ tool: row.t, qos, stripe: row.z })),
    );
  const heads: Job[] = [];
  let bytesLeft = headsBytesMax;
  for (const at of places.slice(0, headsMax)) {
    if (bytesLeft <= 0) return { heads, truncated: true };
    const head = await Line.headOf(ctx, at);
    if (head === null) continue;
    heads.push(head);
    bytesLeft -= getConvexSize(head);
  }
  return { heads, truncated: places.length > headsMax };
}

const ageOf = (jobs: readonly Job[], nowMs: number): number | null =>
  oldest(jobs.map(({ a }) => Math.max(0, nowMs - a)));

const oldest = (ages: readonly (number | null)[]): number | null =>
  ages.reduce((most, age) => (age === null ? most : Math.max(most ?? 0, age)), null);

/** All counts together and by tool, and the greatest ages. */
export async function queueStats(ctx: QueryCtx, nowMs: number): Promise<QueueStats> {
  const { tools, truncated } = await readQueues(ctx, nowMs);
  const readings = Object.values(tools);
  const byStatus = readings.reduce((sum, { counts }) => addCounts(sum, counts), NO_JOBS);
  const each = <T>(of: (tool: string, reading: ToolReading) => T): Record<string, T> =>
    Object.fromEntries(Object.entries(tools).map(([tool, one]) => [tool, of(tool, one)]));
  return {
    sampled: Object.values(byStatus).reduce((sum, jobs) => sum + jobs, 0),
    truncated,
    byStatus,
    byTool: each((_, { counts }) => counts),
    pressureByTool: each((tool, { counts }) => pressureOf(tool, counts)),
    oldestQueuedAgeMs: oldest(readings.map(({ oldestQueuedAgeMs }) => oldestQueuedAgeMs)),
    oldestRunningAgeMs: oldest(readings.map(({ oldestRunningAgeMs }) => oldestRunningAgeMs)),
  };
}

/** Whether any tool's jobs wait for a slot: those that wait for the time of a retry do not. */
export const isHeldUp = ({ byTool, pressureByTool }: QueueStats): boolean =>
  Object.entries(pressureByTool).some(
    ([tool, { runningUtilization }]) => runningUtilization >= 1 && (byTool[tool]?.queued ?? 0) > 0,
  );

function pressureOf(tool: string, counts: JobCounts) {
  const policy = isToolId(tool) ? queuePolicy(env, tool) : null;
  return {
    queuedUtilization: counts.queued / Math.max(1, policy?.queueMax ?? 1),
    runningUtilization: counts.running / Math.max(1, policy?.runMax ?? 1),
  };
}

const addCounts = (one: JobCounts, other: JobCounts): JobCounts => ({
  queued: one.queued + other.queued,
  running: one.running + other.running,
  completed: one.completed + other.completed,
  failed: one.failed + other.failed,
  cancelled: one.cancelled + other.cancelled,
  deadLetter: one.deadLetter + other.deadLetter,
});

/** What of the queue's state an operator asked to be told of. */
export function findingsOf({ byStatus, ...ages }: QueueStats): Finding[] {
  const state: QueueState = {
    queued: byStatus.queued,
    deadLetters: byStatus.deadLetter,
    oldestQueuedAgeMs: ages.oldestQueuedAgeMs,
    oldestRunningAgeMs: ages.oldestRunningAgeMs,
  };
  return queueFindings(state, {
    queued_depth: readKnob(env, "TOOL_QUEUE_ALERT_MAX_QUEUED"),
    oldest_queued_age: readKnob(env, "TOOL_QUEUE_ALERT_MAX_QUEUED_AGE_MS"),
    oldest_running_age: readKnob(env, "TOOL_QUEUE_ALERT_MAX_RUNNING_AGE_MS"),
    dead_letter_depth: readKnob(env, "TOOL_QUEUE_ALERT_MAX_DLQ"),
  });
}
