import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { errorData } from "../errors/appError";
import { KNOB_NAMES, type KnobName, knobRow, type SecretName, type SettingName } from "./knobs";
import { parseValue } from "./parse";
import { configWarnings, findSecret, publicConfig, readKnob, readSecret, REDACTED } from "./read";

const NAME_LENGTH_MAX = 40;
const isSecret = (name: KnobName): name is SecretName => knobRow(name).secret;
const SECRETS = KNOB_NAMES.filter(isSecret);
const SETTINGS = KNOB_NAMES.filter((name): name is SettingName => !isSecret(name));

const codeOf = (read: () => unknown): string => {
  try {
    read();
  } catch (error) {
    return errorData(error).code;
  }
  return "none";
};

describe("every row", () => {
  test.each(KNOB_NAMES)("%s is well formed", (name) => {
    const row = knobRow(name);
    expect(name).toMatch(/^[A-Z][A-Z0-9]*(_[A-Z0-9]+)+$/);
    expect(name.length).toBeLessThanOrEqual(NAME_LENGTH_MAX);
    expect(row.meaning).toMatch(/^(eBay|[A-Z`]).*[.]$/s);
    if (row.kind === "int") {
      expect(row.min).toBeLessThan(row.max);
      expect(name.endsWith("_MS")).toBe(row.unit === "ms");
    }
    if (row.kind === "secret") return;
    const asText = Array.isArray(row.default) ? row.default.join(",") : String(row.default);
    // An empty default means off; every other default must pass its own row's rule.
    if (asText !== "") expect(parseValue(row, asText)).toEqual({ ok: true, value: row.default });
  });

  test("defaults of the seed are kept", () => {
    const defaults = publicConfig({});
    expect(defaults).toMatchObject({
      RATE_LIMIT_CHAT_STREAM_MAX: 30,
      RATE_LIMIT_CHAT_STREAM_WINDOW_MS: 300_000,
      RATE_LIMIT_GMAIL_PUSH_MAX: 120,
      RATE_LIMIT_WHATSAPP_MAX: 120,
      RATE_LIMIT_GMAIL_OAUTH_MAX: 30,
      RATE_LIMIT_WA_LINK_CODE_MAX: 5,
      RATE_LIMIT_WA_LINK_CODE_WINDOW_MS: 600_000,
      CIRCUIT_OPENROUTER_THRESHOLD: 5,
      CIRCUIT_OPENROUTER_SECONDARY_COOLDOWN_MS: 45_000,
      CIRCUIT_GMAIL_OAUTH_COOLDOWN_MS: 120_000,
      BULKHEAD_OPENROUTER_MAX_CONCURRENT: 24,
      BULKHEAD_OR_SEC_MAX_CONCURRENT: 16,
      BULKHEAD_GLOBAL_SEARCH_LEASE_TTL_MS: 60_000,
      BULKHEAD_TOOL_JOB_MAX: 6,
      TOOL_CACHE_WEB_SEARCH_TTL_MS: 300_000,
      TOOL_CACHE_PRODUCTS_NS_VER: "v1",
      TOOL_JOB_QMAX_GLOB: 40,
      TOOL_JOB_TTL_MS: 86_400_000,
      TOOL_JOB_DLQ_TTL_MS: 604_800_000,
      CHAT_PROVIDER_PRIMARY_TIMEOUT_MS: 45_000,
      CHAT_DEFAULT_MODEL_CLASS: "agent",
      OPS_MAX_ROWS_PER_SECTION: 50,
    });
  });
});

describe("reading", () => {
  test("unset and empty are the default", () => {
    for (const name of SETTINGS) {
      const unset = readKnob({}, name);
      for (const nothing of ["", " ", "\n"])
        expect(readKnob({ [name]: nothing }, name)).toEqual(unset);
    }
    expect(configWarnings({ RATE_LIMIT_WHATSAPP_MAX: "", WHATSAPP_APP_SECRET: "" })).toEqual([]);
  });

  test("a value in bounds is used, typed by its row", () => {
    const max: number = readKnob({ RATE_LIMIT_WHATSAPP_MAX: " 5000 " }, "RATE_LIMIT_WHATSAPP_MAX");
    const origins: readonly string[] = readKnob(
      { ALLOWED_ORIGINS: "https://a.example, http://localhost:8080," },
      "ALLOWED_ORIGINS",
    );
    const kind: "fast" | "agent" = readKnob({}, "CHAT_DEFAULT_MODEL_CLASS");
    expect([max, origins, kind]).toEqual([
      5000,
      ["https://a.example", "http://localhost:8080"],
      "agent",
    ]);
  });

  // 2000 became 30 in a production drill and nobody was told.
  test.each(["2000", "0", "-1", "1.5", "3e2", "0x10", "many", "1_000", "9".repeat(40)])(
    "a bad capacity %s is replaced by the default and says so",
    (value) => {
      const env = { RATE_LIMIT_CHAT_STREAM_MAX: value };
      expect(readKnob(env, "RATE_LIMIT_CHAT_STREAM_MAX")).toBe(30);
      expect(configWarnings(env)).toEqual([
        {
          name: "RATE_LIMIT_CHAT_STREAM_MAX",
          problem: "is not a whole number from 1 to 1000",
          used: "30",
        },
      ]);
    },
  );

  test.each([
    ["ALLOWED_ORIGINS", "*"],
    ["ALLOWED_ORIGINS", "https://a.example/"],
    ["ALLOWED_ORIGINS", "null"],
    ["ALLOWED_ORIGINS", ","],
    ["TRUSTED_PROXY_HOPS", "one"],
    ["OPENROUTER_BASE_URL", "openrouter.ai"],
    ["OPENROUTER_BASE_URL", "https://user:key@openrouter.ai"],
    ["SERPER_BASE_URL", "file:///etc/passwd"],
    ["GMAIL_PUSH_SERVICE_ACCOUNT", "nobody"],
  ] as const)(
    "a bad security value of %s is misconfigured, never the default: %s",
    (name, value) => {
      const env = { [name]: value };
      expect(codeOf(() => readKnob(env, name))).toBe("misconfigured");
      expect(configWarnings(env).map((warning) => warning.name)).toContain(name);
      expect(publicConfig(env)[name]).toBeNull();
    },
  );

  test.each(SECRETS)("%s is never an empty text", (name) => {
    for (const value of [undefined, "", " ", "\t\n"]) {
      expect(findSecret({ [name]: value }, name)).toBeNull();
      expect(codeOf(() => readSecret({ [name]: value }, name))).toBe("misconfigured");
    }
  });

  test("a secret out of form is misconfigured, and no text about it shows it", () => {
    const env = { ENCRYPTION_KEY: "canary-value", OPENROUTER_API_KEY: "canary-value" };
    expect(codeOf(() => readSecret(env, "ENCRYPTION_KEY"))).toBe("misconfigured");
    expect(codeOf(() => findSecret(env, "ENCRYPTION_KEY"))).toBe("misconfigured");
    expect(readSecret(env, "OPENROUTER_API_KEY")).toBe("canary-value");
    const shown = JSON.stringify([configWarnings(env), publicConfig(env)]);
    expect(shown).not.toContain("canary");
    expect(publicConfig(env).OPENROUTER_API_KEY).toBe(REDACTED);
    expect(publicConfig({}).OPENROUTER_API_KEY).toBeNull();
  });

  test("reads by name only, as the platform's environment answers", () => {
    const platform = new Proxy<Record<string, string | undefined>>(
      {},
      {
        get: (_, name) => (name === "RATE_LIMIT_WHATSAPP_MAX" ? "7" : undefined),
        has: () => false,
        ownKeys: () => [],
      },
    );
    expect(readKnob(platform, "RATE_LIMIT_WHATSAPP_MAX")).toBe(7);
    expect(publicConfig(platform).RATE_LIMIT_WHATSAPP_MAX).toBe(7);
  });
});

describe("rules between knobs", () => {
  test("the defaults fit each other", () => {
    expect(configWarnings({})).toEqual([]);
  });

  test.each([
    [{ TOOL_JOB_RUNMAX_WEB: "5" }, "BULKHEAD_TOOL_JOB_MAX"],
    [{ CHAT_STREAM_TOTAL_TIMEOUT_MS: "10000" }, "CHAT_STREAM_IDLE_TIMEOUT_MS"],
    [{ TOOL_JOB_WAIT_MS: "1000", TOOL_JOB_POLL_MS: "1001" }, "TOOL_JOB_POLL_MS"],
    [{ WEBHOOK_JOB_RETRY_CAP_MS: "1000" }, "WEBHOOK_JOB_RETRY_BASE_MS"],
    [{ TOOL_JOB_LEASE_MS: "60001" }, "TOOL_JOB_LEASE_MS"],
    [{ GMAIL_PUSH_AUDIENCE: "https://push" }, "GMAIL_PUSH_SERVICE_ACCOUNT"],
    [{ EBAY_CLIENT_SECRET: "s" }, "EBAY_CLIENT_ID"],
  ])("%j warns at %s", (env: Record<string, string>, name) => {
    expect(configWarnings(env).map((warning) => warning.name)).toEqual([name]);
  });
});

test("no text in any variable breaks the loader", () => {
  const environment = fc.dictionary(
    fc.constantFrom(...KNOB_NAMES),
    fc.oneof(
      fc.string({ unit: "binary" }),
      fc.constant("x".repeat(9_000)),
      fc.integer().map(String),
    ),
  );
  fc.assert(
    fc.property(environment, (env) => {
      for (const warning of configWarnings(env)) expect(KNOB_NAMES).toContain(warning.name);
      expect(Object.keys(publicConfig(env))).toEqual(KNOB_NAMES);
      for (const name of SETTINGS)
        expect(["none", "misconfigured"]).toContain(codeOf(() => readKnob(env, name)));
    }),
  );
});

// What @sentry/node cannot read it writes to the log, its key included.
describe("the address of a tracker", () => {
  const problems = (dsn: string) =>
    configWarnings({ SENTRY_DSN: dsn }).filter(({ name }) => name === "SENTRY_DSN").length;

  test.each([
    "https://0123abcd@o1.ingest.de.sentry.io/42",
    "http://key:pass@127.0.0.1:4810/1",
    "https://key@[::1]:9000/a/path/7",
  ])("may be %s", (dsn) => {
    expect(problems(dsn)).toBe(0);
  });

  test.each([
    "https://ke-y@sentry.example/1",
    "https://key@sentry.example/project",
    "https://key@/1",
    "https://sentry.example/1",
    "https://key@sentry.example:port/1",
    "ftp://key@sentry.example/1",
    "not an address",
  ])("may not be %s", (dsn) => {
    expect(problems(dsn)).toBe(1);
  });
});
