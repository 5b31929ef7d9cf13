import type { Env } from "../../config/env";
import { readKnob } from "../../config/read";
import { SECOND } from "../../core/time";
import { errorData } from "../../errors/appError";
import { ERRORS } from "../../errors/table";
import { log } from "../../log/log";
import type { ToolCall } from "../../providers/chat";
import { platformIo } from "../../providers/io";
import { parseToolArgs } from "../../tools/definitions";
import { runTool } from "../../tools/executors";
import { cacheKey } from "../../tools/keys";
import { type CachePolicy, cachePolicy } from "../../tools/policy";
import { isToolId, type QueuedToolId, type ToolId, toolRow } from "../../tools/table";
import type { ToolArgs } from "../../tools/arguments";
import type { CacheEntry, Claim, Ctx, JobId, Source, ToolFunctions } from "./functions";
import { gateOf, tokenStoreOf } from "./outbound";
import type { ToolOutcome } from "./toolTurn";

/** Whether a tool's work goes through the cache and the queue. */
const isQueuedToolId = (tool: ToolId): tool is QueuedToolId => toolRow(tool).queue !== null;

interface Runner {
  readonly ctx: Ctx;
  readonly env: Env;
  readonly functions: ToolFunctions;
  readonly signal: AbortSignal;
  readonly source: Source;
  readonly userId: string;
}

/** Time kept of a lease for reporting the result. */
const LEASE_MARGIN_MS = 2 * SECOND;
/** Reads a waiting caller makes at most, with growing gaps between them. */
const WAIT_READS = 6;
const WAIT_GROWTH = 2;
const DEAD_LETTER_RETRY_MS = 1_500;

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
    const { value } = await runTool<ToolId>(name, parsed.args, depsOf(runner, Infinity));
    return { kind: "result", text: value, degraded: false };
  } catch (error) {
    log.event("tool_failed", { tool: name, code: errorData(error).code });
    return { kind: "failed", text: toolRow(name).degraded };
  }
}

async function runQueued(
  tool: QueuedToolId,
  args: ToolArgs[QueuedToolId],
  runner: Runner,
): Promise<ToolOutcome> {
  const { ctx, env, functions, source } = runner;
  const key = await cacheKey(tool, args);
  const cache = cachePolicy(env, tool);
  if (cache !== null) {
    const hit = await ctx.runQuery(functions.cacheGet, { namespace: cache.namespace, key });
    if (hit !== null) return { kind: "result", text: hit, degraded: false };
  }
  const enqueued = await ctx.runMutation(functions.enqueue, {
    source,
    toolName: tool,
    argsJson: JSON.stringify(args),
    ...(cache === null ? {} : { workKey: `${cache.namespace}:${key}` }),
  });
  switch (enqueued.kind) {
    case "saturated":
      return backpressure(tool, "queue_saturated", enqueued.retryAfterMs);
    case "run": {
      const done = await untilAborted(runClaim(enqueued.claim, runner), runner.signal);
      if (done === null) return { kind: "failed", text: toolRow(tool).degraded };
      return done.kind === "requeued"
        ? await waitFor(tool, enqueued.claim.jobId, runner)
        : done.outcome;
    }
    case "waiting":
      return await waitFor(tool, enqueued.jobId, runner);
  }
}

type Ran =
  | { readonly kind: "done"; readonly outcome: ToolOutcome }
  /** The attempt failed and the job will be tried again by itself. */
  | { readonly kind: "requeued" };

/** Runs a claimed job and reports it, result and cache entry in one transaction. */
export async function runClaim(
  claim: Claim,
  worker: Pick<Runner, "ctx" | "env" | "functions">,
): Promise<Ran> {
  const { ctx, env, functions } = worker;
  const { fence, jobId, toolName } = claim;
  if (!isToolId(toolName) || !isQueuedToolId(toolName))
    throw new Error("a job names a queued tool");
  try {
    const parsed = parseToolArgs<QueuedToolId>(toolName, JSON.parse(claim.argsJson) as unknown);
    if (!parsed.ok) throw new Error("arguments were checked before they were queued");
    const deps = depsOf(worker, claim.leaseExpiresAt - LEASE_MARGIN_MS);
    const result = await runTool(toolName, parsed.args, deps);
    const cache = result.kind === "complete" ? cachePolicy(env, toolName) : null;
    await ctx.runMutation(functions.complete, {
      jobId,
      fence,
      resultJson: JSON.stringify({ kind: result.kind, value: result.value }),
      ...(cache === null
        ? {}
        : { cache: await entryOf(cache, toolName, parsed.args, result.value) }),
    });
    return {
      kind: "done",
      outcome: { kind: "result", text: result.value, degraded: result.kind === "partial" },
    };
  } catch (error) {
    const { code } = errorData(error);
    const failed = await ctx.runMutation(functions.fail, {
      jobId,
      fence,
      errorCode: code,
      retryable: ERRORS[code].retryable,
    });
    log.event("tool_attempt_failed", { tool: toolName, code, status: failed.status });
    if (failed.status === "requeued") return { kind: "requeued" };
    return { kind: "done", outcome: backpressure(toolName, "dead_letter", DEAD_LETTER_RETRY_MS) };
  }
}

async function entryOf(
  cache: CachePolicy,
  tool: QueuedToolId,
  args: ToolArgs[QueuedToolId],
  value: string,
): Promise<CacheEntry> {
  return { ...cache, key: await cacheKey(tool, args), value };
}

/** Waits for a job that others run: a few looks with growing gaps, within the configured time. */
async function waitFor(tool: ToolId, jobId: JobId, runner: Runner): Promise<ToolOutcome> {
  const { ctx, env, functions, signal } = runner;
  const waitMs = readKnob(env, "TOOL_JOB_WAIT_MS");
  const endAtMs = platformIo.now() + waitMs;
  let gapMs = readKnob(env, "TOOL_JOB_POLL_MS");
  for (let read = 1; read <= WAIT_READS; read++) {
    // The last look is at the end of the wait, however short the gaps before it were.
    const leftMs = endAtMs - platformIo.now();
    await platformIo.sleep(read === WAIT_READS ? leftMs : Math.min(gapMs, leftMs), signal);
    if (signal.aborted) return { kind: "failed", text: toolRow(tool).degraded };
    const job = await ctx.runQuery(functions.getJob, { jobId });
    const outcome = job === null ? lost(tool) : outcomeOf(tool, job);
    if (outcome !== null) return outcome;
    if (platformIo.now() >= endAtMs) break;
    gapMs *= WAIT_GROWTH;
  }
  return backpressure(tool, "queue_timeout", Math.max(waitMs / 4, SECOND));
}

function outcomeOf(
  tool: ToolId,
  job: { readonly status: string; readonly resultJson: string | null },
): ToolOutcome | null {
  if (job.status === "queued" || job.status === "running") return null;
  if (job.status !== "completed" || job.resultJson === null) return lost(tool);
  const { kind, value } = JSON.parse(job.resultJson) as { kind: string; value: string };
  return { kind: "result", text: value, degraded: kind === "partial" };
}

const lost = (tool: ToolId): ToolOutcome => backpressure(tool, "dead_letter", DEAD_LETTER_RETRY_MS);

function backpressure(
  tool: ToolId,
  reason: Extract<ToolOutcome, { kind: "backpressure" }>["reason"],
  retryAfterMs: number,
): ToolOutcome {
  return { kind: "backpressure", text: toolRow(tool).degraded, reason, retryAfterMs };
}

function depsOf(
  { ctx, env, functions }: Pick<Runner, "ctx" | "env" | "functions">,
  deadlineAtMs: number,
) {
  return {
    gate: gateOf(ctx, functions),
    tokens: tokenStoreOf(ctx, functions),
    io: { ...platformIo, env },
    deadlineAtMs,
  };
}

/** The result, or null as soon as the turn is aborted; the work itself goes on to its report. */
async function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T | null> {
  if (signal.aborted) return null;
  let stop = (): void => undefined;
  const aborted = new Promise<null>((resolve) => {
    stop = () => {
      resolve(null);
    };
    signal.addEventListener("abort", stop);
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
