import { env } from "../../src/config/env";
import { publicConfig } from "../../src/config/read";
import { type Breaker, phaseAt, probesFromMs } from "../../src/core/breaker";
import { MINUTE } from "../../src/core/time";
import { PROVIDER_IDS } from "../../src/providers/table";
import { cachePolicy, queuePolicy } from "../../src/tools/policy";
import { TOOL_IDS, toolRow, type ToolId } from "../../src/tools/table";
import type { Doc } from "../_generated/dataModel";
import type { QueryCtx } from "../_generated/server";
import { providerPolicy } from "./providerPolicy";
import * as CacheCounts from "./toolCacheCounts";

/** Rows each section reads at most; a section that had more says so in `truncated`. */
const EVENT_ROWS_MAX = 1_000;
const SLOT_ROWS_MAX = 500;
const CLAIM_ROWS_MAX = 500;
const JOB_ROWS_MAX = 200;
const CACHE_ROWS_MAX = 100;

/** What every section is told. */
export interface Window {
  readonly nowMs: number;
  readonly minutes: number;
  /** Rows a list of the snapshot shows at most. */
  readonly limit: number;
}

/** Collects the names of sections that were cut short. */
export type Truncated = Set<string>;

const QUEUED_TOOLS = TOOL_IDS.filter((tool) => toolRow(tool).queue !== null);
const JOB_STATUSES = ["queued", "running", "completed", "failed", "dead_letter"] as const;
type Counts = Record<"queued" | "running" | "completed" | "failed" | "deadLetter", number>;

/** Every knob as it is in force, in the sections operators know, secrets redacted. */
export function config(): Record<string, unknown> {
  const all = publicConfig(env);
  const limit = (name: string) => ({
    max: all[`RATE_LIMIT_${name}_MAX` as keyof typeof all],
    windowMs: all[`RATE_LIMIT_${name}_WINDOW_MS` as keyof typeof all],
  });
  const policies = PROVIDER_IDS.map((id) => [id, providerPolicy(env, id)] as const);
  return {
    rateLimits: {
      chatStream: limit("CHAT_STREAM"),
      gmailPushWebhook: limit("GMAIL_PUSH"),
      whatsappWebhook: limit("WHATSAPP"),
      gmailOAuthCallback: limit("GMAIL_OAUTH"),
      whatsappLinkingCode: limit("WA_LINK_CODE"),
      global: limit("GLOBAL"),
      address: limit("ADDRESS"),
    },
    circuits: Object.fromEntries(
      policies.map(([id, { breaker }]) => [
        id,
        { threshold: breaker.failureThreshold, cooldownMs: breaker.cooldownMs },
      ]),
    ),
    bulkheads: Object.fromEntries(
      policies.map(([id, { bulkhead }]) => [
        id,
        { maxConcurrent: bulkhead.size, leaseTtlMs: bulkhead.leaseMs },
      ]),
    ),
    toolCache: {
      webSearchTtlMs: all.TOOL_CACHE_WEB_SEARCH_TTL_MS,
      productSearchTtlMs: all.TOOL_CACHE_PRODUCT_SEARCH_TTL_MS,
      revalidateMs: all.TOOL_CACHE_REVALIDATE_MS,
      staleOnErrorMs: all.TOOL_CACHE_STALE_ON_ERROR_MS,
      negativeMs: all.TOOL_CACHE_NEGATIVE_MS,
    },
    toolCacheNamespaces: {
      webSearch: namespaceOf("search_web"),
      productSearch: namespaceOf("search_products"),
      globalSearch: namespaceOf("search_global"),
    },
    toolJobs: {
      maxJobsPerRun: all.TOOL_JOB_MAX_PER_RUN,
      leaseMs: all.TOOL_JOB_LEASE_MS,
      waitTimeoutMs: all.TOOL_JOB_WAIT_MS,
      pollIntervalMs: all.TOOL_JOB_POLL_MS,
      maxAttempts: all.TOOL_JOB_MAX_ATTEMPTS,
      retryBaseMs: all.TOOL_JOB_RETRY_BASE_MS,
      retentionMs: all.TOOL_JOB_TTL_MS,
      deadLetterRetentionMs: all.TOOL_JOB_DLQ_TTL_MS,
      claimScanSize: all.TOOL_JOB_CLAIM_SCAN,
      maxRunningByTool: byTool((tool) => queuePolicy(env, tool)?.runMax ?? 0),
      maxQueuedByTool: byTool((tool) => queuePolicy(env, tool)?.queueMax ?? 0),
    },
    knobs: all,
  };
}

/** Refusals of the window by policy, and by policy and reason. */
export async function rateLimitPressure(
  ctx: QueryCtx,
  { nowMs, minutes }: Window,
  truncated: Truncated,
): Promise<Record<string, unknown>> {
  const rows = await ctx.db
    .query("rateLimitEvents")
    .withIndex("by_row", (q) => q.gte("minuteMs", Math.floor(nowMs / MINUTE - minutes) * MINUTE))
    .take(EVENT_ROWS_MAX);
  if (rows.length === EVENT_ROWS_MAX) truncated.add("rateLimitPressure");
  const byBucketOutcome: Record<string, number> = {};
  for (const { bucket, outcome, count } of rows) {
    const key = `${bucket}:${outcome}`;
    byBucketOutcome[key] = (byBucketOutcome[key] ?? 0) + count;
  }
  return {
    sampledEvents: rows.reduce((sum, { count }) => sum + count, 0),
    byBucketOutcome,
    recentAlerts: [],
    alertsInWindow: 0,
  };
}

/** State of every breaker that ever left, or came near to leaving, the closed state. */
export async function circuitBreakers(ctx: QueryCtx): Promise<Record<string, unknown>> {
  const rows = await ctx.db.query("circuitBreakers").take(PROVIDER_IDS.length);
  const nowMs = Date.now();
  const recent = rows.map(({ provider, state, generation, updatedAt }) => ({
    provider,
    state: shownState(provider, { state, generation }, nowMs),
    cooldownUntil: cooldownUntil(provider, state),
    generation,
    updatedAt,
  }));
  return { recent, openCount: recent.filter(({ state }) => state === "open").length };
}

/** What operators see: half-open is never stored, it is an open circuit whose cooldown is over. */
function shownState(provider: string, breaker: Breaker, nowMs: number): string {
  const id = PROVIDER_IDS.find((known) => known === provider);
  const { kind } = breaker.state;
  if (kind !== "open" || id === undefined) return kind;
  return phaseAt(breaker, nowMs, providerPolicy(env, id).breaker).kind;
}

function cooldownUntil(provider: string, state: Doc<"circuitBreakers">["state"]): number | null {
  const id = PROVIDER_IDS.find((known) => known === provider);
  return id === undefined ? null : probesFromMs(state, providerPolicy(env, id).breaker);
}

/** Slots held now, by pool. */
export async function bulkheads(
  ctx: QueryCtx,
  { nowMs }: Window,
  truncated: Truncated,
): Promise<Record<string, unknown>> {
  const rows = await ctx.db.query("slots").take(SLOT_ROWS_MAX);
  if (rows.length === SLOT_ROWS_MAX) truncated.add("bulkheads");
  const held = rows.filter(({ e }) => e > nowMs);
  const inFlightByProvider: Record<string, number> = {};
  for (const { p: pool } of held) inFlightByProvider[pool] = (inFlightByProvider[pool] ?? 0) + 1;
  return { activeLeaseCount: held.length, inFlightByProvider };
}

/** Claims made in the window, by scope. A scope that names a user is shown without the name. */
export async function replayProtection(
  ctx: QueryCtx,
  { nowMs, minutes }: Window,
  truncated: Truncated,
): Promise<Record<string, unknown>> {
  const rows = await ctx.db
    .query("idempotencyKeys")
    .withIndex("by_first_seen", (q) => q.gte("firstSeenAt", nowMs - minutes * MINUTE))
    .take(CLAIM_ROWS_MAX);
  if (rows.length === CLAIM_ROWS_MAX) truncated.add("replayProtection");
  const byScope: Record<string, { totalKeys: number }> = {};
  for (const { scope } of rows) {
    const name = scope.split(":")[0] ?? scope;
    byScope[name] = { totalKeys: (byScope[name]?.totalKeys ?? 0) + 1 };
  }
  return { keysInWindow: rows.length, byScope };
}

/** Answers held by namespace, exact, and what they were good for in the window. */
export async function toolCache(
  ctx: QueryCtx,
  { nowMs, minutes }: Window,
  truncated: Truncated,
): Promise<Record<string, unknown>> {
  const held = await CacheCounts.held(ctx, CACHE_ROWS_MAX);
  const used = await CacheCounts.used(ctx, nowMs - minutes * MINUTE, CACHE_ROWS_MAX);
  if (held.truncated || used.truncated) truncated.add("toolCache");
  const current = QUEUED_TOOLS.flatMap((tool) => cachePolicy(env, tool)?.namespace ?? []);
  const byNamespace: Record<string, number> = {
    ...Object.fromEntries(current.map((namespace) => [namespace, 0])),
    ...held.byNamespace,
  };
  const sampledActiveEntries = Object.values(byNamespace).reduce((sum, n) => sum + n, 0);
  return { sampledActiveEntries, byNamespace, useFromMs: used.fromMs, use: used.use };
}

/** Jobs by tool and status, each counted up to a bound; ages of the oldest; dead letters. */
export async function toolJobs(
  ctx: QueryCtx,
  { nowMs, limit }: Window,
  truncated: Truncated,
): Promise<Record<string, unknown>> {
  const counts = new Map<ToolId, Counts>();
  const oldest = { queued: null as number | null, running: null as number | null };
  for (const tool of QUEUED_TOOLS) {
    const count: Counts = { queued: 0, running: 0, completed: 0, failed: 0, deadLetter: 0 };
    for (const status of JOB_STATUSES) {
      const rows = await jobsOf(ctx, tool, status);
      if (rows.length === JOB_ROWS_MAX) truncated.add("toolJobs");
      count[status === "dead_letter" ? "deadLetter" : status] = rows.length;
      if (status === "queued" || status === "running")
        for (const job of rows) {
          const sinceMs = status === "queued" ? job.createdAt : job.updatedAt;
          oldest[status] = Math.max(oldest[status] ?? 0, nowMs - sinceMs);
        }
    }
    counts.set(tool, count);
  }
  const byStatus = [...counts.values()].reduce(addCounts, NO_JOBS);
  return {
    sampled: Object.values(byStatus).reduce((sum, n) => sum + n, 0),
    byStatus,
    byTool: Object.fromEntries(counts),
    pressureByTool: byTool((tool) => pressureOf(tool, counts.get(tool) ?? NO_JOBS)),
    oldestQueuedAgeMs: oldest.queued,
    oldestRunningAgeMs: oldest.running,
    recentDeadLetters: await deadLetters(ctx, limit),
  };
}

const NO_JOBS: Counts = { queued: 0, running: 0, completed: 0, failed: 0, deadLetter: 0 };

async function jobsOf(
  ctx: QueryCtx,
  tool: ToolId,
  status: (typeof JOB_STATUSES)[number],
): Promise<Doc<"toolJobs">[]> {
  return await ctx.db
    .query("toolJobs")
    .withIndex("by_tool_status_available", (q) => q.eq("toolName", tool).eq("status", status))
    .take(JOB_ROWS_MAX);
}

/** Dead letters without what users asked: arguments and results are never shown to operators. */
async function deadLetters(ctx: QueryCtx, limit: number): Promise<Record<string, unknown>[]> {
  const rows = await ctx.db
    .query("toolJobs")
    .withIndex("by_status_updated", (q) => q.eq("status", "dead_letter"))
    .order("desc")
    .take(limit);
  return rows.map((job) => ({
    jobId: job._id,
    toolName: job.toolName,
    attempts: job.attempts,
    reason: job.deadLetterReason ?? null,
    errorCode: job.lastErrorCode ?? null,
    deadLetterAt: job.deadLetterAt ?? null,
  }));
}

function pressureOf(tool: ToolId, counts: Counts): Record<string, number> {
  const policy = queuePolicy(env, tool);
  return {
    queuedUtilization: counts.queued / Math.max(1, policy?.queueMax ?? 1),
    runningUtilization: counts.running / Math.max(1, policy?.runMax ?? 1),
  };
}

const addCounts = (a: Counts, b: Counts): Counts => ({
  queued: a.queued + b.queued,
  running: a.running + b.running,
  completed: a.completed + b.completed,
  failed: a.failed + b.failed,
  deadLetter: a.deadLetter + b.deadLetter,
});

const byTool = <T>(value: (tool: ToolId) => T): Record<string, T> =>
  Object.fromEntries(QUEUED_TOOLS.map((tool) => [tool, value(tool)]));

const namespaceOf = (tool: ToolId): string | null => cachePolicy(env, tool)?.namespace ?? null;

/** Turns that stream now, and webhook events that wait or were buried. */
export async function backlog(
  ctx: QueryCtx,
  _window: Window,
  truncated: Truncated,
): Promise<Record<string, unknown>> {
  const streaming = await ctx.db
    .query("streamSessions")
    .withIndex("by_status_heartbeat", (q) => q.eq("status", "streaming"))
    .take(JOB_ROWS_MAX);
  if (streaming.length === JOB_ROWS_MAX) truncated.add("chatStreams");
  const inbox: Record<string, number> = {};
  for (const state of ["queued", "dead_letter"] as const) {
    const rows = await ctx.db
      .query("webhookInbox")
      .withIndex("by_state_due", (q) => q.eq("state", state))
      .take(JOB_ROWS_MAX);
    if (rows.length === JOB_ROWS_MAX) truncated.add("webhookInbox");
    inbox[state === "dead_letter" ? "deadLetter" : state] = rows.length;
  }
  return { chatStreams: { streaming: streaming.length }, webhookInbox: inbox };
}
