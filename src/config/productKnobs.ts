import { MINUTE, SECOND } from "../core/time";
import { choice, int, type IntKnob, list, secret, text, url } from "./rows";

const ACCESS = { group: "Access", security: true } as const;

const ACCESS_KNOBS = {
  ALLOWED_ORIGINS: list(ACCESS, {
    default: ["http://localhost:3000", "http://localhost:3100", "http://localhost:5173"],
    // What a browser sends as Origin: scheme, host, port where it is not the scheme's own.
    pattern: "^https?://([a-z0-9.-]+|\\[[0-9a-f:.]+\\])(:[0-9]{1,5})?$",
    meaning: "Origins whose pages may call the chat routes. The first is where redirects go.",
  }),
  TRUSTED_PROXY_HOPS: int(ACCESS, {
    default: 0,
    range: [0, 10],
    meaning:
      "Proxies of yours in front of the deployment: the client address is that many values from " +
      "the right of X-Forwarded-For. With 0 a forwarded address is not believed.",
  }),
};

const SIGN_IN = { group: "Sign-in", security: true } as const;

const SIGN_IN_KNOBS = {
  AUTH_ISSUER: text(SIGN_IN, {
    default: "",
    meaning: "The `iss` of the tokens your identity provider signs, exactly as it writes it.",
  }),
  AUTH_JWKS_URL: text(SIGN_IN, {
    default: "",
    pattern: "^(https?://|data:).+$",
    meaning: "Where the provider publishes its keys: an address, or a `data:` URI that holds them.",
  }),
  AUTH_AUDIENCE: text(SIGN_IN, {
    default: "",
    meaning: "The `aud` that tokens for this deployment carry.",
  }),
};

const CHAT = { group: "Chat" } as const;
const CHAT_GUARD = { group: "Chat", security: true } as const;
const MODEL_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$";

const model = (id: string, meaning: string) =>
  text(CHAT, { default: id, pattern: MODEL_PATTERN, meaning });
const routeTimeout = (ms: number, route: string): IntKnob =>
  int(CHAT, {
    unit: "ms",
    default: ms,
    range: [SECOND, 5 * MINUTE],
    meaning: `How long the ${route} route may take to its first byte, retries included.`,
  });
const routeRetries = (route: string): IntKnob =>
  int(CHAT, { default: 0, range: [0, 5], meaning: `Further attempts on the ${route} route.` });

const CHAT_KNOBS = {
  CHAT_PROVIDER_PRIMARY_TIMEOUT_MS: routeTimeout(45 * SECOND, "primary"),
  CHAT_PROVIDER_PRIMARY_RETRIES: routeRetries("primary"),
  CHAT_PROVIDER_SECONDARY_TIMEOUT_MS: routeTimeout(35 * SECOND, "secondary"),
  CHAT_PROVIDER_SECONDARY_RETRIES: routeRetries("secondary"),
  CHAT_STREAM_IDLE_TIMEOUT_MS: int(CHAT, {
    unit: "ms",
    default: 30 * SECOND,
    range: [SECOND, 5 * MINUTE],
    meaning: "Longest silence of a provider's stream before the turn ends as an error.",
  }),
  CHAT_STREAM_TOTAL_TIMEOUT_MS: int(CHAT, {
    unit: "ms",
    default: 5 * MINUTE,
    range: [5 * SECOND, 20 * MINUTE],
    meaning: "Longest turn, tools included.",
  }),
  CHAT_DEFAULT_MODEL_CLASS: choice(CHAT, {
    default: "agent",
    options: ["fast", "agent"],
    meaning: "Models of a turn that names none.",
  }),
  CHAT_MODEL_FAST_PRIMARY: model("google/gemini-2.5-flash", "Fast class, primary route."),
  CHAT_MODEL_FAST_SECONDARY: model("openai/gpt-4.1-mini", "Fast class, secondary route."),
  CHAT_MODEL_AGENT_PRIMARY: model("anthropic/claude-sonnet-4", "Agent class, primary route."),
  CHAT_MODEL_AGENT_SECONDARY: model("openai/gpt-4.1", "Agent class, secondary route."),
  CHAT_MODEL_ALLOWLIST: list(CHAT_GUARD, {
    default: [
      "google/gemini-2.5-flash",
      "openai/gpt-4.1-mini",
      "anthropic/claude-sonnet-4",
      "openai/gpt-4.1",
    ],
    pattern: MODEL_PATTERN,
    meaning: "Models that a caller may ask for by `modelId`.",
  }),
  CHAT_TOKENS_PER_DAY: int(CHAT, {
    unit: "tokens",
    default: 500_000,
    range: [1_000, 1_000_000_000],
    meaning: "Tokens of one user and day (UTC), questions and answers together.",
  }),
  CHAT_HISTORY_MESSAGES_MAX: int(CHAT, {
    default: 60,
    range: [1, 500],
    meaning: "Newest messages of a thread that the model is shown.",
  }),
  CHAT_HISTORY_BYTES_MAX: int(CHAT, {
    unit: "bytes",
    default: 200_000,
    range: [4_096, 1_000_000],
    meaning: "Bytes of those messages; older ones are left out first.",
  }),
  CHAT_SYSTEM_PROMPT: text(CHAT, {
    default:
      "You are a helpful assistant. Use the tools when they help, name your sources, and say so " +
      "when a tool failed.",
    meaning: "What the model is told before every conversation.",
  }),
  CHAT_CYCLES_HTTP_MAX: int(CHAT, {
    default: 10,
    range: [1, 20],
    meaning: "Rounds of model and tools in one streamed turn.",
  }),
  CHAT_CYCLES_ACTION_MAX: int(CHAT, {
    default: 5,
    range: [1, 20],
    meaning: "Rounds of model and tools in one turn of `chat:streamAnswer`.",
  }),
};

const PROVIDER_KNOBS = {
  OPENROUTER_API_KEY: secret("Providers", "Key of OpenRouter; without it chat is off."),
  OPENROUTER_BASE_URL: url("Providers", "https://openrouter.ai/api/v1", "OpenRouter's API."),
  SERPER_API_KEY: secret("Providers", "Key of Serper; without it `search_web` is off."),
  SERPER_BASE_URL: url("Providers", "https://google.serper.dev", "Serper's API."),
  SERPAPI_API_KEY: secret("Providers", "Key of SerpApi; without it `search_global` is off."),
  SERPAPI_BASE_URL: url("Providers", "https://serpapi.com", "SerpApi's API."),
  EBAY_CLIENT_ID: secret("Providers", "eBay application id; without it `search_products` is off."),
  EBAY_CLIENT_SECRET: secret("Providers", "eBay application secret."),
  EBAY_MARKETPLACE_ID: text(
    { group: "Providers" },
    {
      default: "EBAY_US",
      pattern: "^EBAY_[A-Z]{2,5}$",
      meaning: "eBay site that is searched.",
    },
  ),
  EBAY_BASE_URL: url("Providers", "https://api.ebay.com", "eBay's API."),
};

const GMAIL = { group: "Gmail", security: true } as const;

const GMAIL_KNOBS = {
  GMAIL_PUBSUB_VERIFY_TOKEN: secret(
    "Gmail",
    "Shared token of the push subscription. Pushes need this, or the OIDC pair below.",
  ),
  GMAIL_PUSH_AUDIENCE: text(GMAIL, {
    default: "",
    meaning: "Audience of the OIDC token that Google signs for pushes.",
  }),
  GMAIL_PUSH_SERVICE_ACCOUNT: text(GMAIL, {
    default: "",
    pattern: "^[^@\\s]+@[^@\\s]+$",
    meaning: "E-mail of the service account that pushes; set together with the audience.",
  }),
  GMAIL_PUBSUB_TOPIC: text(
    { group: "Gmail" },
    {
      default: "",
      pattern: "^projects/[^/\\s]+/topics/[^/\\s]+$",
      meaning: "Pub/Sub topic that Gmail watches publish to.",
    },
  ),
  GMAIL_OAUTH_CLIENT_ID: secret("Gmail", "Google OAuth client for connecting mailboxes."),
  GMAIL_OAUTH_CLIENT_SECRET: secret("Gmail", "Secret of that client."),
  GMAIL_BASE_URL: url("Gmail", "https://gmail.googleapis.com/gmail/v1", "The Gmail API."),
  GOOGLE_OAUTH_BASE_URL: url("Gmail", "https://oauth2.googleapis.com", "Google's token endpoint."),
  GOOGLE_CERTS_URL: url(
    "Gmail",
    "https://www.googleapis.com/oauth2/v3/certs",
    "Google's public keys, for the tokens of pushes.",
  ),
  ENCRYPTION_KEY: secret(
    "Gmail",
    "Key that mailbox tokens are stored under: 64 hexadecimal digits.",
    "^[0-9a-fA-F]{64}$",
  ),
};

const WHATSAPP_KNOBS = {
  WHATSAPP_APP_SECRET: secret("WhatsApp", "App secret that Meta signs deliveries with."),
  WHATSAPP_VERIFY_TOKEN: secret("WhatsApp", "Token that Meta shows when it verifies the webhook."),
  WHATSAPP_ACCESS_TOKEN: secret("WhatsApp", "Token for the Graph API."),
  WHATSAPP_PHONE_NUMBER_ID: secret("WhatsApp", "Id of the business phone number."),
  WHATSAPP_GRAPH_BASE_URL: url(
    "WhatsApp",
    "https://graph.facebook.com/v23.0",
    "The Graph API, with its version.",
  ),
};

// As @sentry/node reads it: what that cannot read it would write, key and all, to the log.
const DSN_PATTERN =
  "^https?://\\w+(?::\\w*)?@(?:\\[[:.%\\w]+\\]|[\\w.-]+)(?::[0-9]+)?/(?:[^@\\s]+/)?[0-9]+$";

const REPORT_KNOBS = {
  SENTRY_DSN: secret("Reports", "Sentry project that failures are reported to.", DSN_PATTERN),
  RATE_LIMIT_SENTRY_DSN: secret(
    "Reports",
    "Another Sentry project for rate limit alerts.",
    DSN_PATTERN,
  ),
};

/** What makes this deployment yours: who may call, which models, which keys. */
export const PRODUCT_KNOBS = {
  ...ACCESS_KNOBS,
  ...SIGN_IN_KNOBS,
  ...CHAT_KNOBS,
  ...PROVIDER_KNOBS,
  ...GMAIL_KNOBS,
  ...WHATSAPP_KNOBS,
  ...REPORT_KNOBS,
};
