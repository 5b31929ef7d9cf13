import { DAY, HOUR, MINUTE, SECOND } from "../core/time";
import { JOB_KNOBS, QUEUE_ALERT_KNOBS } from "./jobKnobs";
import { int, type IntKnob, text } from "./rows";

/** The pair that every rate limit has. */
function rateLimit<Name extends string>(
  name: Name,
  what: string,
  spec: { readonly max: number; readonly ceiling: number; readonly windowMs: number },
): Record<`${Name}_MAX` | `${Name}_WINDOW_MS`, IntKnob> {
  const group = { group: "Rate limits" } as const;
  return {
    [`${name}_MAX`]: int(group, {
      unit: "requests",
      default: spec.max,
      range: [1, spec.ceiling],
      meaning: `${what}: requests per window, and how many may come at once.`,
    }),
    [`${name}_WINDOW_MS`]: int(group, {
      unit: "ms",
      default: spec.windowMs,
      range: [SECOND, HOUR],
      meaning: `${what}: the window in which that many requests are granted again, evenly.`,
    }),
  } as Record<`${Name}_MAX` | `${Name}_WINDOW_MS`, IntKnob>;
}

/** The pair that every circuit breaker has. */
function circuit<Name extends string>(
  name: Name,
  what: string,
  spec: { readonly threshold: number; readonly cooldownMs: number },
): Record<`CIRCUIT_${Name}_THRESHOLD` | `CIRCUIT_${Name}_COOLDOWN_MS`, IntKnob> {
  const group = { group: "Circuit breakers" } as const;
  return {
    [`CIRCUIT_${name}_THRESHOLD`]: int(group, {
      default: spec.threshold,
      range: [1, 100],
      meaning: `${what}: failures in a row that open the circuit.`,
    }),
    [`CIRCUIT_${name}_COOLDOWN_MS`]: int(group, {
      unit: "ms",
      default: spec.cooldownMs,
      range: [SECOND, HOUR],
      meaning: `${what}: how long the circuit stays open before a probe.`,
    }),
  } as Record<`CIRCUIT_${Name}_THRESHOLD` | `CIRCUIT_${Name}_COOLDOWN_MS`, IntKnob>;
}

/** The pair that every bulkhead has. */
function bulkhead<Name extends string>(
  name: Name,
  what: string,
  spec: { readonly maxConcurrent: number; readonly leaseMs: number },
): Record<`BULKHEAD_${Name}_MAX_CONCURRENT` | `BULKHEAD_${Name}_LEASE_TTL_MS`, IntKnob> {
  const group = { group: "Bulkheads" } as const;
  return {
    [`BULKHEAD_${name}_MAX_CONCURRENT`]: int(group, {
      unit: "requests",
      default: spec.maxConcurrent,
      range: [1, 500],
      meaning: `${what}: calls in flight at once.`,
    }),
    [`BULKHEAD_${name}_LEASE_TTL_MS`]: int(group, {
      unit: "ms",
      default: spec.leaseMs,
      range: [15 * SECOND, HOUR],
      meaning: `${what}: when a slot whose holder died is free again.`,
    }),
  } as Record<`BULKHEAD_${Name}_MAX_CONCURRENT` | `BULKHEAD_${Name}_LEASE_TTL_MS`, IntKnob>;
}

const OPENROUTER = "OpenRouter, each route whose own knob is not set";
const PRIMARY = "OpenRouter, primary route";
const SECONDARY = "OpenRouter, secondary route";
const EBAY = "eBay search";
const GLOBAL = "Global shopping search";
const SERPER = "Serper web search";
const GMAIL_OAUTH = "Google OAuth and Gmail";

const RATE_LIMIT_KNOBS = {
  ...rateLimit("RATE_LIMIT_CHAT_STREAM", "Chat turns of one user", {
    max: 30,
    ceiling: 1_000,
    windowMs: 5 * MINUTE,
  }),
  ...rateLimit("RATE_LIMIT_GMAIL_PUSH", "Gmail pushes", {
    max: 120,
    ceiling: 5_000,
    windowMs: MINUTE,
  }),
  ...rateLimit("RATE_LIMIT_WHATSAPP", "WhatsApp deliveries", {
    max: 120,
    ceiling: 5_000,
    windowMs: MINUTE,
  }),
  ...rateLimit("RATE_LIMIT_GMAIL_OAUTH", "Returns from Google's consent page", {
    max: 30,
    ceiling: 1_000,
    windowMs: 5 * MINUTE,
  }),
  ...rateLimit("RATE_LIMIT_WA_LINK_CODE", "WhatsApp linking codes of one user", {
    max: 5,
    ceiling: 100,
    windowMs: 10 * MINUTE,
  }),
  ...rateLimit("RATE_LIMIT_ADDRESS", "Chat turns from one client address", {
    max: 120,
    ceiling: 100_000,
    windowMs: MINUTE,
  }),
  ...rateLimit("RATE_LIMIT_GLOBAL", "All limited routes together, the backstop", {
    max: 18_000,
    ceiling: 1_000_000,
    windowMs: MINUTE,
  }),
  RATE_LIMIT_ADDRESS_KEYS_MAX: int(
    { group: "Rate limits" },
    {
      default: 65_536,
      range: [16, 1_048_576],
      meaning:
        "Rows that limits by client address may ever make. Addresses share rows beyond it, so " +
        "that spoofed ones cannot fill the database.",
    },
  ),
};

const CIRCUITS = { group: "Circuit breakers" } as const;

const CIRCUIT_KNOBS = {
  ...circuit("OPENROUTER", OPENROUTER, { threshold: 5, cooldownMs: MINUTE }),
  ...circuit("OPENROUTER_PRIMARY", PRIMARY, { threshold: 5, cooldownMs: MINUTE }),
  ...circuit("OPENROUTER_SECONDARY", SECONDARY, { threshold: 4, cooldownMs: 45 * SECOND }),
  ...circuit("SERPER", SERPER, { threshold: 4, cooldownMs: 2 * MINUTE }),
  ...circuit("EBAY", EBAY, { threshold: 4, cooldownMs: 2 * MINUTE }),
  ...circuit("GLOBAL_SEARCH", GLOBAL, { threshold: 4, cooldownMs: 2 * MINUTE }),
  ...circuit("GMAIL_OAUTH", GMAIL_OAUTH, { threshold: 4, cooldownMs: 2 * MINUTE }),
  CIRCUIT_WINDOW_MS: int(CIRCUITS, {
    unit: "ms",
    default: 2 * MINUTE,
    range: [2 * SECOND, HOUR],
    meaning: "Window over which failure rates, slow-call rates and retry budgets are counted.",
  }),
  CIRCUIT_CALLS_MIN: int(CIRCUITS, {
    unit: "calls",
    default: 20,
    range: [1, 10_000],
    meaning: "Calls in the window below which no rate opens a circuit.",
  }),
  CIRCUIT_FAILURE_RATE_PCT: int(CIRCUITS, {
    unit: "percent",
    default: 50,
    range: [1, 100],
    meaning: "Share of failed calls in the window that opens a circuit.",
  }),
  CIRCUIT_SLOW_RATE_PCT: int(CIRCUITS, {
    unit: "percent",
    default: 100,
    range: [1, 100],
    meaning: "Share of slow calls in the window, which took 80 % of their deadline, that opens it.",
  }),
  CIRCUIT_PROBES: int(CIRCUITS, {
    unit: "calls",
    default: 1,
    range: [1, 20],
    meaning: "Probes a half-open circuit admits; it closes when all of them succeed.",
  }),
};

const BULKHEAD_KNOBS = {
  ...bulkhead("OPENROUTER", OPENROUTER, {
    maxConcurrent: 24,
    leaseMs: 10 * MINUTE,
  }),
  ...bulkhead("OR_PRI", PRIMARY, { maxConcurrent: 24, leaseMs: 10 * MINUTE }),
  ...bulkhead("OR_SEC", SECONDARY, { maxConcurrent: 16, leaseMs: 10 * MINUTE }),
  ...bulkhead("SERPER", SERPER, { maxConcurrent: 12, leaseMs: MINUTE }),
  ...bulkhead("EBAY", EBAY, { maxConcurrent: 8, leaseMs: MINUTE }),
  ...bulkhead("GLOBAL_SEARCH", GLOBAL, { maxConcurrent: 10, leaseMs: MINUTE }),
  ...bulkhead("GMAIL_OAUTH", GMAIL_OAUTH, { maxConcurrent: 8, leaseMs: MINUTE }),
  BULKHEAD_TOOL_JOB_MAX: int(
    { group: "Bulkheads" },
    {
      unit: "jobs",
      default: 6,
      range: [1, 200],
      meaning:
        "Tool jobs that are meant to run at once, all tools together: limits of the tools that add " +
        "up to more are reported, and hold as they are.",
    },
  ),
  BULKHEAD_TOOL_JOB_LEASE_MS: int(
    { group: "Bulkheads" },
    {
      unit: "ms",
      default: MINUTE,
      range: [15 * SECOND, 30 * MINUTE],
      meaning: "When the slot of a tool worker that died is free again.",
    },
  ),
  BULKHEAD_SENTRY_COOLDOWN_MS: int(
    { group: "Bulkheads" },
    {
      unit: "ms",
      default: MINUTE,
      range: [SECOND, 10 * MINUTE],
      meaning: "Shortest time between two reports that one bulkhead is saturated.",
    },
  ),
};

const CACHE = { group: "Tool cache" } as const;
const VERSION_PATTERN = "^[a-z0-9_-]{1,24}$";

const CACHE_KNOBS = {
  TOOL_CACHE_WEB_SEARCH_TTL_MS: int(CACHE, {
    unit: "ms",
    default: 5 * MINUTE,
    range: [5 * SECOND, DAY],
    meaning: "How long a web search result is served again.",
  }),
  TOOL_CACHE_PRODUCT_SEARCH_TTL_MS: int(CACHE, {
    unit: "ms",
    default: 10 * MINUTE,
    range: [5 * SECOND, DAY],
    meaning: "How long a product or global search result is served again.",
  }),
  TOOL_CACHE_REVALIDATE_MS: int(CACHE, {
    unit: "ms",
    default: 5 * MINUTE,
    range: [0, DAY],
    meaning:
      "How long after that a result is still served at once while one job renews it; 0 never.",
  }),
  TOOL_CACHE_STALE_ON_ERROR_MS: int(CACHE, {
    unit: "ms",
    default: DAY,
    range: [0, 7 * DAY],
    meaning:
      "How long after that a result is kept and served, marked as degraded, when the search fails; 0 never. A longer one holds for results stored from then on.",
  }),
  TOOL_CACHE_NEGATIVE_MS: int(CACHE, {
    unit: "ms",
    default: 15 * SECOND,
    range: [0, 5 * MINUTE],
    meaning: "How long the same search is not repeated after it failed for good; 0 never.",
  }),
  TOOL_CACHE_WEB_SEARCH_NAMESPACE_VERSION: text(CACHE, {
    default: "v1",
    pattern: VERSION_PATTERN,
    meaning: "Part of every web search key: another value makes all stored results unused.",
  }),
  TOOL_CACHE_PRODUCTS_NS_VER: text(CACHE, {
    default: "v1",
    pattern: VERSION_PATTERN,
    meaning: "The same for product search.",
  }),
};

const WEBHOOKS = { group: "Webhook jobs" } as const;

const WEBHOOK_KNOBS = {
  WEBHOOK_JOB_ATTEMPTS_MAX: int(WEBHOOKS, {
    default: 5,
    range: [1, 20],
    meaning: "Attempts to process a stored delivery before it is dead-lettered.",
  }),
  WEBHOOK_JOB_RETRY_BASE_MS: int(WEBHOOKS, {
    unit: "ms",
    default: 2 * SECOND,
    range: [100, MINUTE],
    meaning: "Delay ceiling of the first retry; it doubles, fully jittered.",
  }),
  WEBHOOK_JOB_RETRY_CAP_MS: int(WEBHOOKS, {
    unit: "ms",
    default: 10 * MINUTE,
    range: [SECOND, DAY],
    meaning: "Largest delay ceiling between two attempts.",
  }),
};

const SNAPSHOT = { group: "Snapshot" } as const;

const SNAPSHOT_KNOBS = {
  OPS_DEFAULT_WINDOW_MINUTES: int(SNAPSHOT, {
    unit: "minutes",
    default: 15,
    range: [1, 1_440],
    meaning: "Window of the reliability snapshot where the caller names none.",
  }),
  OPS_MAX_ROWS_PER_SECTION: int(SNAPSHOT, {
    unit: "rows",
    default: 50,
    range: [5, 500],
    meaning: "Rows of each section of the reliability snapshot.",
  }),
};

/** Names, defaults and bounds of the primitives: what an operator tunes. */
export const RELIABILITY_KNOBS = {
  ...RATE_LIMIT_KNOBS,
  ...CIRCUIT_KNOBS,
  ...BULKHEAD_KNOBS,
  IDEMPOTENCY_TTL_MS: int(
    { group: "Idempotency" },
    {
      unit: "ms",
      default: DAY,
      range: [MINUTE, 7 * DAY],
      meaning: "How long an `Idempotency-Key` of a chat turn is recognised.",
    },
  ),
  ...CACHE_KNOBS,
  ...JOB_KNOBS,
  ...QUEUE_ALERT_KNOBS,
  ...WEBHOOK_KNOBS,
  ...SNAPSHOT_KNOBS,
};
