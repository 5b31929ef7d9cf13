/**
 * Every provider we call: one row each, data only, so that queries and mutations may import it.
 * Ids are contracts: breakers, bulkheads, metrics and the snapshot use them as keys.
 */
import type { NumberKnob, SecretName, TextKnobName } from "../config/knobs";
import { MINUTE, SECOND } from "../core/time";

/**
 * A number that an operator may set, or one that is fixed. `common` is a knob of several providers:
 * it is used where it is set and the provider's own is not.
 */
export type Setting =
  { readonly knob: NumberKnob; readonly common?: NumberKnob } | { readonly value: number };

interface RetryPolicy {
  /** Attempts after the first. */
  readonly retries: Setting;
  readonly baseMs: number;
  readonly capMs: number;
}

export interface ProviderRow {
  /** One line for the documentation and the snapshot. */
  readonly title: string;
  /** Knobs that hold its addresses; the first is the usual one. None: not called this way. */
  readonly baseUrlKnobs: readonly TextKnobName[];
  /** Secrets a call cannot do without; a missing one is `misconfigured` before any call. */
  readonly secretKnobs: readonly SecretName[];
  /** Whole call with its retries, in milliseconds; for a stream, until its first byte. */
  readonly deadlineMs: Setting;
  /** One attempt of a request that may be repeated, so that silence leaves time for another. */
  readonly attemptMs: number;
  readonly retry: RetryPolicy;
  readonly breaker: { readonly threshold: Setting; readonly cooldownMs: Setting };
  readonly bulkhead: { readonly maxConcurrent: Setting; readonly leaseMs: Setting };
  /** Only on rows whose answers are streams. */
  readonly stream?: StreamPolicy;
}

interface StreamPolicy {
  /** Longest silence between two parts of the body, in milliseconds. */
  readonly idleMs: Setting;
  /** Whole stream, in milliseconds. */
  readonly totalMs: Setting;
}

/** Extra calls that retries may add to a provider's traffic, as a share of its first attempts. */
export const RETRY_BUDGET_RATIO = 0.1;

/** Retries that a window bears however few its calls are: 10 % of nothing is nothing. */
export const RETRY_BUDGET_FLOOR = 10;

const RETRY_TWICE: RetryPolicy = { retries: { value: 2 }, baseMs: 250, capMs: 2 * SECOND };

const knob = (name: NumberKnob): Setting => ({ knob: name });
const either = (name: NumberKnob, common: NumberKnob): Setting => ({ knob: name, common });
const fixed = (value: number): Setting => ({ value });
const circuit = (name: "SERPER" | "EBAY" | "GLOBAL_SEARCH" | "GMAIL_OAUTH") => ({
  threshold: knob(`CIRCUIT_${name}_THRESHOLD`),
  cooldownMs: knob(`CIRCUIT_${name}_COOLDOWN_MS`),
});
const bulkhead = (name: "SERPER" | "EBAY" | "GLOBAL_SEARCH" | "GMAIL_OAUTH") => ({
  maxConcurrent: knob(`BULKHEAD_${name}_MAX_CONCURRENT`),
  leaseMs: knob(`BULKHEAD_${name}_LEASE_TTL_MS`),
});
const stream: StreamPolicy = {
  idleMs: knob("CHAT_STREAM_IDLE_TIMEOUT_MS"),
  totalMs: knob("CHAT_STREAM_TOTAL_TIMEOUT_MS"),
};
// The seed had one route, whose knobs now hold for each that has none of its own set.
const openrouter = (
  circuitName: "OPENROUTER_PRIMARY" | "OPENROUTER_SECONDARY",
  bulkheadName: "OR_PRI" | "OR_SEC",
) => ({
  breaker: {
    threshold: either(`CIRCUIT_${circuitName}_THRESHOLD`, "CIRCUIT_OPENROUTER_THRESHOLD"),
    cooldownMs: either(`CIRCUIT_${circuitName}_COOLDOWN_MS`, "CIRCUIT_OPENROUTER_COOLDOWN_MS"),
  },
  bulkhead: {
    maxConcurrent: either(
      `BULKHEAD_${bulkheadName}_MAX_CONCURRENT`,
      "BULKHEAD_OPENROUTER_MAX_CONCURRENT",
    ),
    leaseMs: either(`BULKHEAD_${bulkheadName}_LEASE_TTL_MS`, "BULKHEAD_OPENROUTER_LEASE_TTL_MS"),
  },
});
// Providers the seed names no knobs for: few calls, so the smallest pools and the common breaker.
const QUIET = {
  breaker: { threshold: fixed(4), cooldownMs: fixed(2 * MINUTE) },
  bulkhead: { maxConcurrent: fixed(8), leaseMs: fixed(MINUTE) },
};

export const PROVIDERS = {
  openrouter_chat_primary: {
    title: "OpenRouter chat completions, primary route",
    baseUrlKnobs: ["OPENROUTER_BASE_URL"],
    secretKnobs: ["OPENROUTER_API_KEY"],
    deadlineMs: knob("CHAT_PROVIDER_PRIMARY_TIMEOUT_MS"),
    attemptMs: 20 * SECOND,
    retry: { ...RETRY_TWICE, retries: knob("CHAT_PROVIDER_PRIMARY_RETRIES") },
    ...openrouter("OPENROUTER_PRIMARY", "OR_PRI"),
    stream,
  },
  openrouter_chat_secondary: {
    title: "OpenRouter chat completions, secondary route",
    baseUrlKnobs: ["OPENROUTER_BASE_URL"],
    secretKnobs: ["OPENROUTER_API_KEY"],
    deadlineMs: knob("CHAT_PROVIDER_SECONDARY_TIMEOUT_MS"),
    attemptMs: 20 * SECOND,
    retry: { ...RETRY_TWICE, retries: knob("CHAT_PROVIDER_SECONDARY_RETRIES") },
    ...openrouter("OPENROUTER_SECONDARY", "OR_SEC"),
    stream,
  },
  serper_search: {
    title: "Serper web search",
    baseUrlKnobs: ["SERPER_BASE_URL"],
    secretKnobs: ["SERPER_API_KEY"],
    deadlineMs: fixed(10 * SECOND),
    attemptMs: 5 * SECOND,
    retry: RETRY_TWICE,
    breaker: circuit("SERPER"),
    bulkhead: bulkhead("SERPER"),
  },
  ebay_search: {
    title: "eBay Browse search",
    baseUrlKnobs: ["EBAY_BASE_URL"],
    secretKnobs: ["EBAY_CLIENT_ID", "EBAY_CLIENT_SECRET"],
    deadlineMs: fixed(10 * SECOND),
    attemptMs: 5 * SECOND,
    retry: RETRY_TWICE,
    breaker: circuit("EBAY"),
    bulkhead: bulkhead("EBAY"),
  },
  global_search: {
    title: "SerpApi Google Shopping search",
    baseUrlKnobs: ["SERPAPI_BASE_URL"],
    secretKnobs: ["SERPAPI_API_KEY"],
    deadlineMs: fixed(20 * SECOND),
    attemptMs: 12 * SECOND,
    retry: RETRY_TWICE,
    breaker: circuit("GLOBAL_SEARCH"),
    bulkhead: bulkhead("GLOBAL_SEARCH"),
  },
  google_certs: {
    title: "Google's public keys for push tokens",
    baseUrlKnobs: ["GOOGLE_CERTS_URL"],
    secretKnobs: [],
    deadlineMs: fixed(5 * SECOND),
    attemptMs: 3 * SECOND,
    retry: RETRY_TWICE,
    ...QUIET,
  },
  gmail_oauth: {
    title: "Google OAuth tokens and the Gmail API",
    baseUrlKnobs: ["GOOGLE_OAUTH_BASE_URL", "GMAIL_BASE_URL"],
    secretKnobs: ["GMAIL_OAUTH_CLIENT_ID", "GMAIL_OAUTH_CLIENT_SECRET"],
    deadlineMs: fixed(10 * SECOND),
    attemptMs: 5 * SECOND,
    retry: RETRY_TWICE,
    breaker: circuit("GMAIL_OAUTH"),
    bulkhead: bulkhead("GMAIL_OAUTH"),
  },
  whatsapp_graph: {
    title: "WhatsApp Graph API",
    baseUrlKnobs: ["WHATSAPP_GRAPH_BASE_URL"],
    secretKnobs: ["WHATSAPP_ACCESS_TOKEN", "WHATSAPP_PHONE_NUMBER_ID"],
    deadlineMs: fixed(10 * SECOND),
    attemptMs: 5 * SECOND,
    retry: RETRY_TWICE,
    ...QUIET,
  },
  sentry_ingest: {
    title: "Sentry event ingest",
    // Sentry's address and key are both in the DSN.
    baseUrlKnobs: [],
    secretKnobs: ["SENTRY_DSN"],
    deadlineMs: fixed(5 * SECOND),
    attemptMs: 5 * SECOND,
    retry: { ...RETRY_TWICE, retries: fixed(0) },
    ...QUIET,
  },
  tool_job_worker: {
    title: "Workers of the tool job queue",
    baseUrlKnobs: [],
    secretKnobs: [],
    deadlineMs: knob("TOOL_JOB_LEASE_MS"),
    attemptMs: MINUTE,
    retry: { ...RETRY_TWICE, retries: fixed(0) },
    breaker: QUIET.breaker,
    bulkhead: {
      maxConcurrent: knob("BULKHEAD_TOOL_JOB_MAX"),
      leaseMs: knob("BULKHEAD_TOOL_JOB_LEASE_MS"),
    },
  },
} as const satisfies Record<string, ProviderRow>;

export type ProviderId = keyof typeof PROVIDERS;

export const PROVIDER_IDS = Object.keys(PROVIDERS) as readonly ProviderId[];

/** The row of a provider, typed as any row. */
export function providerRow(id: ProviderId): ProviderRow {
  return PROVIDERS[id];
}

/** How an attempt counts for the breaker; neutral says nothing about the provider's health. */
export type Verdict = "success" | "failure" | "neutral";

/**
 * The one rule of what counts as failure: what came from a provider in trouble. A refusal of our
 * own request (400, 401, 404, …) proves that it answers.
 */
export function statusVerdict(status: number): Verdict {
  if (status >= 200 && status < 400) return "success";
  if (status === 408 || status === 425 || status === 429 || status >= 500) return "failure";
  return "neutral";
}
