import { readKnob } from "../../config/read";
import { SECOND } from "../../core/time";
import { errorData, isContention } from "../../errors/appError";
import { log } from "../../log/log";
import type { ToolCall } from "../../providers/chat";
import { platformIo } from "../../providers/io";
import type { ToolArgs } from "../../tools/arguments";
import { type CacheUseKind, oneUse } from "../../tools/cacheUse";
import { parseToolArgs } from "../../tools/definitions";
import { runTool } from "../../tools/executors";
import { type JobOutcome, runJob } from "../../tools/jobClient";
import { asOld } from "../../tools/result";
import { isToolId, type QueuedToolId, type ToolId, toolRow } from "../../tools/table";
import { throughContention } from "../contention";
import { cachePlace, depsOf, isQueuedToolId, runClaim, type Worker } from "./claimRunner";
import type { Cached, CacheKey, Claim, JobId, Source } from "./functions";
import type { ToolBounds, ToolOutcome } from "./toolTurn";

interface Runner extends Worker, ToolBounds {
  readonly deadlineAtMs: number;
  readonly source: Source;
  /** Takes work that nobody waits for but that must be done before the action ends. */
  readonly defer: (work: Promise<unknown>) => void;
}

/**
 * Runs one tool call of a turn: from the cache, at once where a slot is free, else through the
 * queue. Never throws: what cannot be had is told to the model in words.
 */
export async function runToolCall(call: ToolCall, runner: Runner): Promise<ToolOutcome> {
  const { name } = call;
  if (!isToolId(name)) return { kind: "failed", text: "There is no tool of this name." };
  try {
    if (isQueuedToolId(name)) {
      const parsed = parseToolArgs<QueuedToolId>(name, call.arguments);
      if (!parsed.ok) return { kind: "failed", text: parsed.problem };
      return await runQueued(name, parsed.args, runner);
    }
    const parsed = parseToolArgs<ToolId>(name, call.arguments);
    if (!parsed.ok) return { kind: "failed", text: parsed.problem };
    const { value } = await runTool<ToolId>(name, parsed.args, depsOf(runner, runner));
    return { kind: "result", text: value, degraded: false };
  } catch (error) {
    const data = errorData(error);
    log.event("tool_failed", { tool: name, code: data.code });
    const text = toolRow(name).degraded;
    // A queue that cannot take the job for all who ask at once is full, whatever its counts say.
    if (isContention(data))
      return {
        kind: "backpressure",
        text,
        reason: "queue_saturated",
        retryAfterMs: CROWDED_RETRY_MS,
      };
    return { kind: "failed", text };
  }
}

const CROWDED_RETRY_MS = 2 * SECOND;

/** A piece of work that may be cached and queued. */
interface Work {
  readonly tool: QueuedToolId;
  readonly argsJson: string;
  readonly at: CacheKey | null;
}

async function runQueued<Id extends QueuedToolId>(
  tool: Id,
  args: ToolArgs[Id],
  runner: Runner,
): Promise<ToolOutcome> {
  const place = await cachePlace(runner.env, tool, args);
  const work = { tool, argsJson: JSON.stringify(args), at: place?.at ?? null };
  if (work.at === null) return told(work, await haveDone(work, runner));
  const { namespace } = work.at;
  const cached = await look(work.at, runner);
  const { kind, outcome } = await answer(work, cached, runner);
  return { ...outcome, cacheUse: oneUse(namespace, kind) };
}

interface Answered {
  readonly outcome: ToolOutcome;
  /** What the cache was to this call. */
  readonly kind: CacheUseKind;
}

/** Answers from what the cache holds, or by asking. */
async function answer(work: Work, cached: Cached | null, runner: Runner): Promise<Answered> {
  const nowMs = platformIo.now();
  switch (cached?.freshness) {
    case "fresh":
      return { kind: "hits", outcome: result(cached.value) };
    case "stale":
      if (cached.askFromMs === null || cached.askFromMs <= nowMs) runner.defer(renew(work, runner));
      return { kind: "stale", outcome: result(cached.value) };
    case "negative":
      return { kind: "negative", outcome: refusedBefore(work, cached.askFromMs - nowMs) };
    case "error_only":
      if (cached.askFromMs !== null && cached.askFromMs > nowMs) return standIn(cached);
      return await ask(work, cached, runner);
    case undefined:
      return await ask(work, null, runner);
  }
}

type OldAnswer = Exclude<Cached, { freshness: "negative" }>;

/** Has the work done, and falls back on an old answer, if there is one, where that fails. */
async function ask(work: Work, old: OldAnswer | null, runner: Runner): Promise<Answered> {
  const asked = await haveDone(work, runner, old !== null).catch((error: unknown) => {
    if (old === null) throw error;
    log.event("tool_failed", { tool: work.tool, code: errorData(error).code });
    return null;
  });
  if (old !== null && (asked === null || !["completed", "aborted"].includes(asked.kind)))
    return standIn(old);
  return { kind: "misses", outcome: asked === null ? failed(work) : told(work, asked) };
}

function standIn({ createdAt, value }: OldAnswer): Answered {
  const text = asOld(value, Math.max(0, platformIo.now() - createdAt));
  return { kind: "degraded", outcome: { kind: "result", text, degraded: true } };
}

/** A cache that cannot be read is a miss. */
async function look(at: CacheKey, { ctx, functions }: Runner): Promise<Cached | null> {
  return await ctx.runQuery(functions.lookup, at).catch((error: unknown) => {
    log.event("tool_cache_unreadable", { code: errorData(error).code });
    return null;
  });
}

/** Has the queue renew an answer that was served stale. Identical renewals join one job. */
async function renew(work: Work, runner: Runner): Promise<void> {
  try {
    await enqueue(work, runner, "worker");
  } catch (error) {
    // The next caller tries again; this one has its answer.
    log.event("tool_renewal_failed", { tool: work.tool, code: errorData(error).code });
  }
}

async function haveDone(work: Work, runner: Runner, hasStandIn = false): Promise<JobOutcome> {
  const { ctx, env, functions, signal } = runner;
  if (signal.aborted) return { kind: "aborted" };
  const leftMs = Math.max(1, runner.deadlineAtMs - platformIo.now());
  return await runJob<JobId, Claim>(
    {
      now: platformIo.now,
      sleep: platformIo.sleep,
      signal,
      enqueue: async () => await throughContention(() => enqueue(work, runner, "caller")),
      run: async (claim) => {
        const attempt = runClaim(claim, runner);
        runner.defer(attempt);
        return await attempt;
      },
      read: async (jobId) => await ctx.runQuery(functions.getJob, { jobId }),
    },
    {
      firstMs: readKnob(env, "TOOL_JOB_POLL_MS"),
      waitMs: Math.min(readKnob(env, "TOOL_JOB_WAIT_MS"), leftMs),
      waitForRetry: !hasStandIn,
    },
  );
}

async function enqueue(
  { argsJson, at, tool }: Work,
  { ctx, functions, source }: Runner,
  run: "caller" | "worker",
) {
  return await ctx.runMutation(functions.enqueue, {
    source,
    toolName: tool,
    argsJson,
    run,
    ...(at === null ? {} : { workKey: `${at.namespace}:${at.key}`, cache: at }),
  });
}

/** What the model and the stream are told of a job's outcome. */
function told(work: Work, outcome: JobOutcome): ToolOutcome {
  switch (outcome.kind) {
    case "completed": {
      const { kind, value } = outcome.result;
      return { kind: "result", text: value, degraded: kind === "partial" };
    }
    case "aborted":
      return failed(work);
    case "failed":
    case "timeout":
    case "backpressure":
      return { kind: "backpressure", text: toolRow(work.tool).degraded, ...outcome.backpressure };
  }
}

const result = (text: string): ToolOutcome => ({ kind: "result", text, degraded: false });

const failed = ({ tool }: Work): ToolOutcome => ({
  kind: "failed",
  text: toolRow(tool).degraded,
});

/** The same work failed a moment ago: nobody asks again before the time is over. */
const refusedBefore = ({ tool }: Work, retryAfterMs: number): ToolOutcome => ({
  kind: "backpressure",
  text: toolRow(tool).degraded,
  reason: "dead_letter",
  retryAfterMs: Math.max(1, retryAfterMs),
});
