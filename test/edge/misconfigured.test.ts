/** What answers while a setting that guards something is not valid. */
import { describe, expect, test, vi } from "vitest";
import { internal } from "../../convex/_generated/api";
import { KNOB_NAMES, type KnobName, knobRow, type SecretName } from "../../src/config/knobs";
import { findSecret, readKnob, readSecret } from "../../src/config/read";
import { TEXT_BYTES_MAX } from "../../src/config/rows";
import { errorData } from "../../src/errors/appError";
import { readBaseUrl, readSecrets } from "../../src/providers/settings";
import { PROVIDER_IDS, providerRow } from "../../src/providers/table";
import { backend, refused, useStillClock } from "./backend";
import { admit } from "./chat";

useStillClock();

const GUARDING = KNOB_NAMES.filter((name) => knobRow(name).security);
const isSecret = (name: KnobName): name is SecretName => knobRow(name).secret;

/** Not valid for the knob; one of any form has only its length. */
function garbageFor(name: KnobName): string {
  const row = knobRow(name);
  return "pattern" in row && row.pattern === null ? "x".repeat(TEXT_BYTES_MAX + 1) : "* garbage *";
}

const codeOf = (read: () => unknown): string => {
  try {
    read();
  } catch (error) {
    return errorData(error).code;
  }
  return "none";
};

test.each(GUARDING)("%s is never read as anything else", (name) => {
  const env = { [name]: garbageFor(name) };
  const reads = isSecret(name)
    ? [() => readSecret(env, name), () => findSecret(env, name), () => readSecret({}, name)]
    : [() => readKnob(env, name)];
  expect(reads.map(codeOf)).toEqual(reads.map(() => "misconfigured"));
});

/** The code that a route answers a request of its kind. */
async function codeFrom(path: string, init: RequestInit = {}): Promise<string> {
  const response = await backend().withIdentity({ subject: "dana" }).fetch(path, init);
  const body = (await response.json()) as { readonly code: string };
  return `${response.status} ${body.code}`;
}

const post = (path: string, body: unknown, headers: Record<string, string> = {}) =>
  codeFrom(path, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });

const whatsapp = () => post("/api/whatsapp/webhook", { entry: [] });
const chat = () =>
  post("/api/chat", { message: { content: "hello" } }, { origin: "http://localhost:3000" });
const push = () =>
  post("/api/gmail/push", { message: { data: btoa("{}") } }, { authorization: "Bearer token" });

/** Settings that a request meets on its way, with that request. */
const ON_THE_WAY: Partial<Record<KnobName, () => Promise<string>>> = {
  ALLOWED_ORIGINS: chat,
  TRUSTED_PROXY_HOPS: chat,
  GMAIL_PUBSUB_VERIFY_TOKEN: push,
  GMAIL_PUSH_AUDIENCE: push,
  GMAIL_PUSH_SERVICE_ACCOUNT: push,
  WHATSAPP_APP_SECRET: whatsapp,
  WHATSAPP_VERIFY_TOKEN: () =>
    codeFrom("/api/whatsapp/webhook?hub.mode=subscribe&hub.verify_token=t&hub.challenge=c"),
};

describe("a request", () => {
  test.each(Object.entries(ON_THE_WAY))("that needs %s is refused", async (name, send) => {
    vi.spyOn(console, "log").mockReturnValue(undefined);
    vi.stubEnv("GMAIL_PUBSUB_VERIFY_TOKEN", "another-token");
    vi.stubEnv(name, garbageFor(name as KnobName));
    expect(await send()).toBe("500 misconfigured");
  });

  test("for a model of its own is refused without a list of models", async () => {
    vi.stubEnv("CHAT_MODEL_ALLOWLIST", garbageFor("CHAT_MODEL_ALLOWLIST"));
    await refused(admit(backend(), { modelId: "openai/gpt-4.1" }), "misconfigured");
  });

  test("of the snapshot alone is answered, and says so", async () => {
    for (const name of GUARDING) vi.stubEnv(name, garbageFor(name));
    const said = await backend().query(internal.ops.getReliabilitySnapshot, {});
    expect(said.verdict).toBe("critical");
    const critical = said.causes.filter(({ severity }) => severity === "critical");
    for (const name of GUARDING) expect(critical.map(({ id }) => id)).toContain(`config:${name}`);
  });
});

test.each(PROVIDER_IDS)("no call goes to %s without a valid address and keys", (id) => {
  const row = providerRow(id);
  for (const name of row.secretKnobs)
    expect(codeOf(() => readSecrets({ [name]: garbageFor(name) }, row))).toBe("misconfigured");
  for (const name of row.baseUrlKnobs)
    expect(codeOf(() => readBaseUrl({ [name]: garbageFor(name) }, row, name))).toBe(
      "misconfigured",
    );
});
