import { afterAll, beforeAll, expect, test } from "vitest";
import { api } from "../../convex/_generated/api";
import { type Backend, clientOf, startBackend } from "./backend";
import { chat, type Frame, startOf, terminals, textOf } from "./sse";

let backend: Backend;
beforeAll(async () => {
  backend = await startBackend({
    env: {
      CHAT_PROVIDER_PRIMARY_TIMEOUT_MS: "1000",
      CHAT_PROVIDER_SECONDARY_TIMEOUT_MS: "1000",
      CHAT_STREAM_IDLE_TIMEOUT_MS: "2000",
      CHAT_STREAM_TOTAL_TIMEOUT_MS: "5000",
    },
  });
});
afterAll(async () => {
  await backend.close();
});

const codeOf = (frames: readonly Frame[]) => terminals(frames).map(({ event }) => event.code);

async function endingOf(frames: readonly Frame[]) {
  const { threadId, messageId } = startOf(frames);
  const client = await clientOf(backend, "alice");
  const messages = await client.query(api.messages.list, { threadId });
  const stored = messages.find(({ _id }) => _id === messageId);
  expect(stored?.content).toBe(textOf(frames));
  return [stored?.status, stored?.ending, stored?.errorCode];
}

test("a provider's silence is given up: before the first byte, between tokens, and in all", async () => {
  await backend.fault("openrouter", { hang: true, times: 2 });
  const unheard = await chat(backend, "[[words:3]] unheard");
  const routes = unheard.filter(({ event }) => event.type === "provider-route");
  expect(routes.map(({ event }) => event["routeId"])).toEqual(["primary", "secondary"]);
  expect(codeOf(unheard)).toEqual(["upstream_timeout"]);
  // From here on only the limits that are looked at are short: a busy machine is slow, too.
  await backend.setEnv({
    CHAT_PROVIDER_PRIMARY_TIMEOUT_MS: "30000",
    CHAT_PROVIDER_SECONDARY_TIMEOUT_MS: "30000",
  });
  const [idle, total, tool] = await Promise.all([
    chat(backend, "[[words:9]] [[hang]]"),
    chat(backend, "[[words:3000]] [[slow:300]] endless"),
    // The clock of the whole turn runs while its tools do, too.
    chat(backend, "[[tool:get_current_time]] [[words:3000]] [[slow:300]] with a tool"),
  ]);
  expect([codeOf(idle), await endingOf(idle)]).toEqual([
    ["upstream_timeout"],
    ["error", "idle_timeout", "upstream_timeout"],
  ]);
  for (const frames of [total, tool])
    expect([codeOf(frames), await endingOf(frames)]).toEqual([
      ["upstream_timeout"],
      ["error", "total_timeout", "upstream_timeout"],
    ]);
  await backend.setEnv({
    CHAT_STREAM_IDLE_TIMEOUT_MS: "5000",
    CHAT_STREAM_TOTAL_TIMEOUT_MS: "60000",
  });
  // A comment every second says that the model still thinks.
  const thinking = await chat(backend, "[[words:3]] [[wait:7000]] thinking");
  expect(terminals(thinking).map(({ event }) => event.type)).toEqual(["done"]);
});
