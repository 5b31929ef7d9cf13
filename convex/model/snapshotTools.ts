/** The tool cache and the tool job queue as a snapshot shows them. */
import type { Infer } from "convex/values";
import { env } from "../../src/config/env";
import { KIB } from "../../src/core/bytes";
import { MINUTE } from "../../src/core/time";
import { isErrorCode } from "../../src/errors/table";
import type { QueueReading, VerdictInput } from "../../src/slo/reading";
import { cachePolicy, queuePolicy } from "../../src/tools/policy";
import { TOOL_IDS, type ToolId, toolRow } from "../../src/tools/table";
import type { QueryCtx } from "../_generated/server";
import { type Reading, reserve, shownName, takeNewest } from "./snapshotReading";
import type { cacheSection, jobCounts, toolJobSection } from "./snapshotShape";
import * as CacheCounts from "./toolCacheCounts";
import {
  newestFirst as deadLettersNewestFirst,
  viewOf as deadLetterView,
} from "./toolJobDeadLetters";
import { without } from "./toolJobRows";
import { readQueues } from "./toolJobStats";

const CACHE_COUNT_ROWS_MAX = 32;
/** Eight shards of each five minutes that a quarter of an hour touches, and some. */
const CACHE_USE_ROWS_MAX = 40;

const QUEUED_TOOLS = TOOL_IDS.filter((tool) => toolRow(tool).queue !== null);

type CacheSection = Infer<typeof cacheSection>;

/** Answers held by namespace, exact, and what they were good for in the window. */
export async function toolCache(ctx: QueryCtx, reading: Reading): Promise<CacheSection> {
  const { minutes, nowMs, truncated } = reading;
  const held = await CacheCounts.held(ctx, reserve(reading, CACHE_COUNT_ROWS_MAX));
  const used = await CacheCounts.used(
    ctx,
    nowMs - minutes * MINUTE,
    reserve(reading, CACHE_USE_ROWS_MAX),
  );
  if (held.truncated || used.truncated) truncated.add("toolCache");
  const current = QUEUED_TOOLS.flatMap((tool) => cachePolicy(env, tool)?.namespace ?? []);
  const shown = (name: string): string => (current.includes(name) ? name : shownName(name));
  const byNamespace: Record<string, number> = Object.fromEntries(
    current.map((namespace) => [namespace, 0]),
  );
  for (const [namespace, entries] of Object.entries(held.byNamespace))
    byNamespace[shown(namespace)] = (byNamespace[shown(namespace)] ?? 0) + entries;
  return {
    sampledActiveEntries: Object.values(byNamespace).reduce((sum, n) => sum + n, 0),
    byNamespace,
    useFromMs: used.fromMs,
    use: used.use.map((use) => ({ ...use, namespace: shown(use.namespace) })),
  };
}

/** How often each namespace answered from what was there before because asking failed. */
export const cacheServed = ({ use }: CacheSection): VerdictInput["served"] =>
  use.map(({ degraded, hits, misses, namespace, stale }) => ({
    key: `cache:${namespace}`,
    served: hits + misses + stale + degraded,
    degraded,
  }));

type Counts = Infer<typeof jobCounts>;
type JobSection = Infer<typeof toolJobSection>;

const NO_JOBS: Counts = { queued: 0, running: 0, completed: 0, failed: 0, deadLetter: 0 };
/** Jobs are read for their age, and hold arguments: most of these are the bytes of them. */
const JOBS_READ = {
  countsMax: 64,
  oldestMax: 10,
  slotsMax: 120,
  headsMax: 96,
  headsBytesMax: 24 * KIB,
};

export interface ToolJobs {
  readonly section: Omit<JobSection, "recentDeadLetters">;
  readonly queues: readonly QueueReading[];
}

/** Jobs by tool and status, and ages of the oldest. */
export async function toolJobs(ctx: QueryCtx, reading: Reading): Promise<ToolJobs> {
  const read = await readQueues(ctx, reading.nowMs, JOBS_READ);
  reading.left.rowsLeft -= read.documents;
  reading.left.bytesLeft -= read.bytes;
  if (read.truncated) reading.truncated.add("toolJobs");
  const byTool: Record<string, Counts> = {};
  const queues: QueueReading[] = [];
  for (const [name, { counts, ...ages }] of Object.entries(read.tools)) {
    const tool = shownName(name);
    const shown = addCounts(without(counts, ["cancelled"]), byTool[tool] ?? NO_JOBS);
    byTool[tool] = shown;
    const queuedMax = QUEUED_TOOLS.some((known) => known === tool)
      ? (queuePolicy(env, tool as ToolId)?.queueMax ?? 1)
      : 1;
    queues.push({ tool, queued: shown.queued, queuedMax, running: shown.running, ...ages });
  }
  const byStatus = Object.values(byTool).reduce(addCounts, NO_JOBS);
  const section = {
    sampled: Object.values(byStatus).reduce((sum, n) => sum + n, 0),
    byStatus,
    byTool,
    pressureByTool: Object.fromEntries(queues.map((queue) => [queue.tool, pressureOf(queue)])),
    oldestQueuedAgeMs: oldest(queues.map(({ oldestQueuedAgeMs }) => oldestQueuedAgeMs)),
    oldestRunningAgeMs: oldest(queues.map(({ oldestRunningAgeMs }) => oldestRunningAgeMs)),
  };
  return { section, queues };
}

/** The newest dead letters, without what users asked: arguments and results are shown to nobody. */
export async function recentDeadLetters(
  ctx: QueryCtx,
  reading: Reading,
): Promise<JobSection["recentDeadLetters"]> {
  const rows = await takeNewest(reading, deadLettersNewestFirst(ctx), {
    section: "toolJobs",
    rowsMax: reading.limit,
  });
  return rows.map(deadLetterView).map((letter) => ({
    jobId: letter.jobId,
    toolName: shownName(letter.toolName),
    attempts: letter.attempts,
    reason: letter.reason === null ? null : shownName(letter.reason),
    errorCode: letter.errorCode === null ? null : shownCode(letter.errorCode),
    deadLetterAt: letter.deadLetterAt,
  }));
}

/** A worker's word for what went wrong; what is no code of ours could be a provider's own text. */
const shownCode = (code: string): string =>
  isErrorCode(code) || code === "lease_expired" ? code : "other";

function pressureOf({ queued, queuedMax, running, tool }: QueueReading) {
  const id = QUEUED_TOOLS.find((known) => known === tool);
  const runMax = (id === undefined ? null : queuePolicy(env, id))?.runMax ?? 1;
  return {
    queuedUtilization: queued / Math.max(1, queuedMax),
    runningUtilization: running / Math.max(1, runMax),
  };
}

const oldest = (ages: readonly (number | null)[]): number | null => {
  const known = ages.filter((age) => age !== null);
  return known.length === 0 ? null : Math.max(...known);
};

const addCounts = (a: Counts, b: Counts): Counts => ({
  queued: a.queued + b.queued,
  running: a.running + b.running,
  completed: a.completed + b.completed,
  failed: a.failed + b.failed,
  deadLetter: a.deadLetter + b.deadLetter,
});
