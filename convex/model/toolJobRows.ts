import type { Infer } from "convex/values";
import type { WithoutSystemFields } from "convex/server";
import { env } from "../../src/config/env";
import { readKnob } from "../../src/config/read";
import { KIB, utf8Bytes } from "../../src/core/bytes";
import {
  attemptsMaxOf,
  isPast,
  type PerQos,
  PLACE,
  type QosCode,
  type Status,
  statusOf,
  type WaitingRoom,
  waitingRoom,
} from "../../src/core/queue";
import { SECOND } from "../../src/core/time";
import { queuePolicy } from "../../src/tools/policy";
import {
  isToolId,
  QOS_WEIGHT_KNOBS,
  type QosClass,
  TOOL_IDS,
  type ToolId,
  toolRow,
} from "../../src/tools/table";
import type { Doc, Id } from "../_generated/dataModel";
import type { MutationCtx, QueryCtx } from "../_generated/server";
import type { claim, jobView } from "./toolJobShapes";

export type Job = Doc<"toolJobs">;
export type JobRow = WithoutSystemFields<Job>;
export type JobId = Id<"toolJobs">;

/** What a worker needs to run a job, and to prove later that it is still its own. */
export type Claim = Infer<typeof claim>;

/** After a lease ends its job is taken back, with a margin for the completion on its way. */
export const LEASE_GRACE_MS = 5 * SECOND;
const MAX_ATTEMPTS_CEILING = 6;
/** Arguments and results above this have a row of their own. */
const INLINE_BYTES_MAX = KIB;

const CODE_OF_CLASS = {
  realtime: "r",
  interactive: "i",
  batch: "b",
} as const satisfies Record<QosClass, QosCode>;

/** Tools whose work goes through the queue. */
export const QUEUED_TOOLS = TOOL_IDS.filter((tool) => toolRow(tool).queue !== null);

/** The queue of one tool, as configured. */
export interface ToolQueue {
  readonly tool: ToolId;
  readonly pool: string;
  /** Slots of the pool. */
  readonly size: number;
  readonly room: WaitingRoom;
  readonly qos: QosCode;
  readonly weights: PerQos;
  /** How long a claim lasts without a heartbeat. */
  readonly leaseMs: number;
  /** How long its slot is kept: longer, so that nobody takes it before the job is taken back. */
  readonly slotMs: number;
}

export const poolOf = (toolName: string): string => `tool:${toolName}`;

/** The queue of a tool, or null for a name that is no tool, or no longer one that queues. */
export function queueOf(toolName: string): ToolQueue | null {
  const policy = isToolId(toolName) ? queuePolicy(env, toolName) : null;
  if (policy === null || !isToolId(toolName)) return null;
  const leaseMs = readKnob(env, "TOOL_JOB_LEASE_MS");
  const weightOf = (qos: QosClass): number => readKnob(env, QOS_WEIGHT_KNOBS[qos]);
  return {
    tool: toolName,
    pool: poolOf(toolName),
    size: policy.runMax,
    room: waitingRoom({ size: policy.runMax, queueMax: policy.queueMax }),
    qos: CODE_OF_CLASS[policy.qos],
    weights: { r: weightOf("realtime"), i: weightOf("interactive"), b: weightOf("batch") },
    leaseMs,
    slotMs: Math.max(leaseMs + 2 * LEASE_GRACE_MS, readKnob(env, "BULKHEAD_TOOL_JOB_LEASE_MS")),
  };
}

export interface NewJob {
  readonly source: "chat_action" | "chat_http" | "operator";
  readonly argsJson: string;
  /** Key of identical work; callers with the same key share one job. */
  readonly workKey?: string;
  readonly maxAttempts?: number;
  readonly qosClass?: QosClass;
  /** From now on, in milliseconds: past it the job is not started any more. */
  readonly deadlineMs?: number;
}

const CODE_OF_SOURCE = { chat_http: "h", chat_action: "a", operator: "o" } as const;

/** The row of a new job that stands nowhere yet. */
export function newRow(job: NewJob, { qos, tool }: ToolQueue, nowMs: number): JobRow {
  const { argsJson, deadlineMs, maxAttempts, qosClass, workKey } = job;
  return {
    p: PLACE.backingOff,
    a: nowMs,
    t: tool,
    c: qosClass === undefined ? qos : CODE_OF_CLASS[qosClass],
    o: CODE_OF_SOURCE[job.source],
    f: 0,
    ...(maxAttempts === undefined ? {} : { m: attemptsMax(maxAttempts) }),
    ...(workKey === undefined ? {} : { k: workKey }),
    ...(deadlineMs === undefined ? {} : { d: nowMs + Math.max(0, Math.floor(deadlineMs) || 0) }),
    ...(isLarge(argsJson) ? { v: true } : { j: argsJson }),
  };
}

/** Attempts a job may have; asked for or, where nobody asked, as configured now. */
const attemptsMax = (asked: number | undefined): number =>
  attemptsMaxOf(asked ?? null, readKnob(env, "TOOL_JOB_MAX_ATTEMPTS"), MAX_ATTEMPTS_CEILING);

export const attemptsMaxOfJob = ({ m }: JobRow): number => m ?? attemptsMax(undefined);

export const attemptsOf = ({ b = 0, f }: JobRow): number => f - b;

export const deadlineOf = ({ d }: JobRow): number | null => d ?? null;

/** A row of a job that ended: without what is only of use while it waits or runs. */
export const settledRow = (job: Job, place: string, nowMs: number): JobRow => ({
  ...without(looseRow(job), ["k"]),
  p: place,
  a: nowMs,
});

/** A row that stands nowhere, to be put somewhere: no lease, nothing scheduled. */
export const looseRow = (job: Job): JobRow =>
  without(job, ["_id", "_creationTime", "g", "l", "s", "u", "x", "y"]);

/** A row without its arguments, which nobody will need again. */
export const withoutArgs = (row: JobRow): Omit<JobRow, "j" | "v"> => without(row, ["j", "v"]);

/** What is left of a row without some of its fields. */
export function without<Row extends object, Field extends keyof Row>(
  row: Row,
  fields: readonly Field[],
): Omit<Row, Field> {
  const left = Object.entries(row).filter(([name]) => !fields.some((field) => field === name));
  // Entries lose the names of a type.
  return Object.fromEntries(left) as Omit<Row, Field>;
}

/** Writes a row where there is one, or a new one with its large arguments. */
export async function saveRow(
  ctx: MutationCtx,
  row: JobRow,
  of: { readonly id: JobId } | { readonly argsJson: string },
): Promise<JobId> {
  if ("id" in of) {
    await ctx.db.replace("toolJobs", of.id, row);
    return of.id;
  }
  const jobId = await ctx.db.insert("toolJobs", row);
  if (row.j === undefined) await ctx.db.insert("toolJobPayloads", { jobId, argsJson: of.argsJson });
  return jobId;
}

export async function argsOf(ctx: QueryCtx, jobId: JobId, row: JobRow): Promise<string> {
  if (row.j !== undefined) return row.j;
  const payload = await loadPayload(ctx, jobId);
  if (payload?.argsJson === undefined) throw new Error("a job has its arguments");
  return payload.argsJson;
}

/** Puts a result where it belongs; the arguments are of no use any more. Returns the row's part. */
export async function storeResult(
  ctx: MutationCtx,
  job: Job,
  resultJson: string,
): Promise<Pick<JobRow, "r" | "v">> {
  const payload = job.v === true ? await loadPayload(ctx, job._id) : null;
  if (!isLarge(resultJson)) {
    if (payload !== null) await ctx.db.delete("toolJobPayloads", payload._id);
    return { r: resultJson };
  }
  const fields = { jobId: job._id, resultJson };
  if (payload === null) await ctx.db.insert("toolJobPayloads", fields);
  else await ctx.db.replace("toolJobPayloads", payload._id, fields);
  return { v: true };
}

export async function deletePayload(ctx: MutationCtx, job: Job): Promise<void> {
  const payload = await payloadOf(ctx, job);
  if (payload !== null) await ctx.db.delete("toolJobPayloads", payload._id);
}

/** What a job has beside its row. */
export const payloadOf = async (
  ctx: QueryCtx,
  { _id, v: has }: Job,
): Promise<Doc<"toolJobPayloads"> | null> => (has === true ? await loadPayload(ctx, _id) : null);

const isLarge = (json: string): boolean => utf8Bytes(json) > INLINE_BYTES_MAX;

async function loadPayload(ctx: QueryCtx, jobId: JobId): Promise<Doc<"toolJobPayloads"> | null> {
  return await ctx.db
    .query("toolJobPayloads")
    .withIndex("by_job", (q) => q.eq("jobId", jobId))
    .unique();
}

export type JobView = Infer<typeof jobView>;

/** The state of a job with its result; reads a second row only where the result is large. */
export async function view(ctx: QueryCtx, job: Job, nowMs: number): Promise<JobView> {
  const status = statusNow(job, nowMs);
  const large = status === "completed" && job.r === undefined;
  return {
    _id: job._id,
    toolName: job.t,
    status,
    attempts: attemptsOf(job),
    maxAttempts: attemptsMaxOfJob(job),
    progress: job.s ?? null,
    resultJson: large ? ((await loadPayload(ctx, job._id))?.resultJson ?? null) : (job.r ?? null),
    lastError: status === "failed" ? "deadline_exceeded" : lastErrorOf(job),
    deadLetterReason: status === "dead_letter" ? (job.w ?? null) : null,
    deadLetterAt: status === "dead_letter" ? (job.u?.sinceMs ?? job.a) : null,
    availableAt: job.a,
    updatedAt:
      job.p === PLACE.backingOff ? (job.h?.at(-1)?.atMs ?? Math.floor(job._creationTime)) : job.a,
    createdAt: Math.floor(job._creationTime),
    completedAt: status === "completed" ? job.a : null,
  };
}

export const lastErrorOf = ({ h }: JobRow): string | null => h?.at(-1)?.code ?? null;

/** Where a job stands, as whoever waits for it must see it. */
export function statusNow(job: Job, nowMs: number): Status {
  // Nobody is to wait for what was cancelled, though its worker has yet to hear of it.
  if (job.y === true) return "cancelled";
  const status = statusOf(job.p);
  // It is buried when its turn comes; until then it is as good as that.
  return status === "queued" && isPast(deadlineOf(job), nowMs) ? "failed" : status;
}
