/** What is configured, in the sections operators know. */
import { env } from "../../src/config/env";
import { publicConfig } from "../../src/config/read";
import { PROVIDER_IDS } from "../../src/providers/table";
import { cachePolicy, queuePolicy } from "../../src/tools/policy";
import { TOOL_IDS, type ToolId, toolRow } from "../../src/tools/table";
import { providerPolicy } from "./providerPolicy";

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
      maxRunningByQos: {
        realtime: all.TOOL_JOB_RUNMAX_QOS_REALTIME,
        interactive: all.TOOL_JOB_RUNMAX_QOS_INTERACTIVE,
        batch: all.TOOL_JOB_RUNMAX_QOS_BATCH,
      },
    },
    ...sinceTheSeed(all),
    knobs: all,
  };
}

/** What the deployments of the public original have besides. */
const sinceTheSeed = (all: ReturnType<typeof publicConfig>) => ({
  toolQueueAlerts: {
    enabled: all.TOOL_QUEUE_ALERTS_ENABLED === "true",
    windowMinutes: all.TOOL_QUEUE_ALERT_WINDOW_MIN,
    cooldownMs: all.TOOL_QUEUE_ALERT_COOLDOWN_MS,
    maxQueued: all.TOOL_QUEUE_ALERT_MAX_QUEUED,
    maxDeadLetters: all.TOOL_QUEUE_ALERT_MAX_DLQ,
    maxQueuedAgeMs: all.TOOL_QUEUE_ALERT_MAX_QUEUED_AGE_MS,
    maxRunningAgeMs: all.TOOL_QUEUE_ALERT_MAX_RUNNING_AGE_MS,
  },
  chatProviderRoutes: {
    defaultModelClass: all.CHAT_DEFAULT_MODEL_CLASS,
    primary: {
      timeoutMs: all.CHAT_PROVIDER_PRIMARY_TIMEOUT_MS,
      retries: all.CHAT_PROVIDER_PRIMARY_RETRIES,
      models: { fast: all.CHAT_MODEL_FAST_PRIMARY, agent: all.CHAT_MODEL_AGENT_PRIMARY },
    },
    secondary: {
      timeoutMs: all.CHAT_PROVIDER_SECONDARY_TIMEOUT_MS,
      retries: all.CHAT_PROVIDER_SECONDARY_RETRIES,
      models: { fast: all.CHAT_MODEL_FAST_SECONDARY, agent: all.CHAT_MODEL_AGENT_SECONDARY },
    },
  },
});

const QUEUED_TOOLS = TOOL_IDS.filter((tool) => toolRow(tool).queue !== null);

const byTool = <T>(value: (tool: ToolId) => T): Record<string, T> =>
  Object.fromEntries(QUEUED_TOOLS.map((tool) => [tool, value(tool)]));

const namespaceOf = (tool: ToolId): string | null => cachePolicy(env, tool)?.namespace ?? null;
