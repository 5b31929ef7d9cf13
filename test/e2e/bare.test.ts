import { afterAll, beforeAll, expect, test } from "vitest";
import { api } from "../../convex/_generated/api";
import { hub256 } from "../../src/sim/deliveries";
import { type Backend, clientOf, startBackend } from "./backend";
import { chat, parseFrames, postChat, terminals } from "./sse";
import { refusal, send, type WireAnswer } from "./wire";

// A deployment that nobody has set up: no keys, no secrets, nothing but who its users are.
let backend: Backend;
beforeAll(async () => {
  backend = await startBackend({ bare: true });
});
afterAll(async () => {
  await backend.close();
});

const to = async (
  path: string,
  body?: string,
  headers: Record<string, string> = {},
): Promise<WireAnswer> =>
  await send(
    `${backend.siteUrl}${path}`,
    body === undefined
      ? {}
      : { method: "POST", body, headers: { "content-type": "application/json", ...headers } },
  );

test("a webhook without its secret is misconfigured, whatever is sent", async () => {
  const body = '{"entry":[]}';
  const push = '{"message":{"data":"e30="}}';
  const answers = await Promise.all([
    to("/api/whatsapp/webhook", body),
    to("/api/whatsapp/webhook", body, { "x-hub-signature-256": hub256("", body) }),
    to("/api/whatsapp/webhook", body, { "x-hub-signature-256": hub256("undefined", body) }),
    to("/api/whatsapp/webhook?hub.mode=subscribe&hub.verify_token=&hub.challenge=1"),
    to("/api/whatsapp/webhook?hub.mode=subscribe&hub.verify_token=undefined&hub.challenge=1"),
    to("/api/gmail/push", push),
    to("/api/gmail/push?token=", push),
    to("/api/gmail/push", push, { "x-pubsub-token": "", authorization: "Bearer a.b.c" }),
  ]);
  expect(answers.map(refusal)).toEqual(answers.map(() => [500, "misconfigured"]));
});

test("chat without a key is misconfigured, for the operator to read and not the caller", async () => {
  const response = await postChat(backend, { message: { content: "hi" } });
  const text = await response.text();
  const code =
    response.status === 200
      ? terminals(parseFrames(text))[0]?.event.code
      : response.headers.get("x-error-code");
  expect(code).toBe("misconfigured");
  expect(text).not.toContain("OPENROUTER");
});

test("a tool without its key fails alone: the answer says so and goes on", async () => {
  // Only the model is set up.
  const { simUrl } = backend;
  await backend.setEnv({
    OPENROUTER_BASE_URL: `${simUrl}/openrouter/api/v1`,
    OPENROUTER_API_KEY: "sim-openrouter-key",
  });
  const prompt = '[[tool:search_products {"query":"x"}]] [[tool:get_current_time]]';
  const frames = await chat(backend, prompt, { webSearch: true });
  expect(terminals(frames).map(({ event }) => event.type)).toEqual(["done"]);
  const outputs = frames.filter(({ event }) => event.type === "tool-output-partially-available");
  const degraded = Object.fromEntries(
    outputs.map(({ event }) => [String(event["toolName"]), event["degraded"]]),
  ) as Record<string, unknown>;
  expect(degraded).toEqual({
    search_web: true,
    search_products: true,
    get_current_time: false,
  });
  expect(JSON.stringify(frames)).not.toMatch(/_KEY|EBAY_|SERPER_/);
});

test("health answers, and the operator sees what is missing", async () => {
  expect((await to("/api/health")).status).toBe(200);
  const { config } = await backend.operator<{ config: { knobs: Record<string, unknown> } }>(
    "ops:getReliabilitySnapshot",
  );
  expect(config.knobs["WHATSAPP_APP_SECRET"]).toBeNull();
  expect(config.knobs["OPENROUTER_API_KEY"]).toBe("***redacted***");
});

test("an issuer that is not configured lets nobody in", async () => {
  const client = await clientOf(backend, "alice");
  await backend.setEnv({ AUTH_ISSUER: "", AUTH_JWKS_URL: "", AUTH_AUDIENCE: "" });
  const response = await postChat(backend, { message: { content: "hi" } });
  expect([response.status, response.headers.get("x-error-code")]).toEqual([401, "unauthorized"]);
  await expect(client.query(api.threads.list, {})).rejects.toThrow();
  await backend.setEnv({ AUTH_ISSUER: null, AUTH_JWKS_URL: null, AUTH_AUDIENCE: null });
});
