/** Chat turns, their routes and what a turn is told. */
import { convexTest } from "convex-test";
import { vi } from "vitest";
import { api } from "../../../convex/_generated/api";
import type { ActionCtx } from "../../../convex/_generated/server";
import schema from "../../../convex/schema";
import { env } from "../../../src/config/env";
import { errorData } from "../../../src/errors/appError";
import { openChatRoute } from "../../../src/providers/chatRoute";
import { searchEbay } from "../../../src/providers/ebay";
import {
  type BodyStep,
  HANG,
  jsonResponse,
  scriptedBody,
  virtualIo,
} from "../../../src/providers/testing";
import { backend, type Backend } from "../backend";
import { admit, begin, newThread } from "../chat";
import { postChat } from "../chatRoute";
import { drive } from "../drive";
import { countUntil, given, type Proof, type Proofs } from "./proof";

const modules = import.meta.glob(["/convex/**/*.{ts,js}", "!/convex/**/*.test.ts"]);

type RouteProvider = "openrouter_chat_primary" | "openrouter_chat_secondary";

const HI = 'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n';

/** What a route did before it gave up on a provider that answers in one way. */
async function giveUp(provider: RouteProvider, answer: readonly BodyStep[] | 503) {
  given({ OPENROUTER_API_KEY: "key" });
  // It has a clock of its own.
  vi.useRealTimers();
  const { io, run } = virtualIo(async (_, __, virtual) =>
    answer === 503
      ? jsonResponse({}, { status: 503 })
      : new Response(scriptedBody(answer, virtual).stream),
  );
  const signal = new AbortController().signal;
  const request = { provider, model: "m", messages: [], signal };
  const deps = { env, io, mayRetry: async () => true };
  const listen = async (): Promise<string> => {
    const stream = openChatRoute(request, deps);
    for (;;) {
      const step = await stream.next();
      if (step.done === true) return step.value.kind;
    }
  };
  const ended = await run(listen().catch((error: unknown) => errorData(error).code));
  return [ended, io.requests.length, io.now()];
}

const timeout = (provider: RouteProvider): Proof => ({
  values: ["2000", "9000"],
  observe: () => giveUp(provider, [HANG]),
});
const retries = (provider: RouteProvider): Proof => ({
  values: ["0", "2"],
  observe: () => giveUp(provider, 503),
});

/** A model that never says anything but that it wants to know the time. */
const asksForTheTime = (): Response => {
  const call = { index: 0, id: "c1", function: { name: "get_current_time", arguments: "{}" } };
  const chunks = [
    { choices: [{ delta: { tool_calls: [call] } }] },
    { choices: [{ delta: {}, finish_reason: "tool_calls" }] },
  ];
  const lines = chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`);
  return new Response(`${lines.join("")}data: [DONE]\n\n`, {
    headers: { "content-type": "text/event-stream" },
  });
};

interface Sent {
  readonly messages: readonly { readonly content: string | null }[];
}

/** What the provider was sent in a turn. */
async function turn(run: () => Promise<unknown>): Promise<Sent[]> {
  given({ OPENROUTER_API_KEY: "key", OPENROUTER_BASE_URL: "http://provider.test" });
  const sent: Sent[] = [];
  vi.stubGlobal("fetch", async (_: string, init: { body: string }) => {
    sent.push(JSON.parse(init.body) as Sent);
    return asksForTheTime();
  });
  await drive(run());
  return sent;
}

const turnOfAction = (): Promise<Sent[]> =>
  turn(async () => {
    const t = convexTest({ schema, modules });
    const user = t.withIdentity({ subject: "dana" });
    const threadId = await user.mutation(api.threads.create, {});
    await user.mutation(api.messages.send, { threadId, content: "hi" });
    await user.action(api.chat.streamAnswer, { threadId });
  });

const turnOfRoute = (): Promise<Sent[]> =>
  turn(async () => {
    const t = backend();
    const ctx = { runMutation: t.mutation, runQuery: t.query } as unknown as ActionCtx;
    await (await postChat(ctx)).text();
  });

const model = (modelId: "fast" | "agent", route: "route" | "fallback"): Proof => ({
  values: ["vendor/one", "vendor/two"],
  observe: async () => (await begin(backend(), { modelId }))[route]?.modelId,
});

/** What a model is shown of a thread. */
async function shown(...contents: string[]): Promise<string[]> {
  const t: Backend = backend();
  const threadId = await newThread(t, ...contents);
  const { history } = await begin(t, { threadId, content: "and now?" });
  return history.map(({ content }) => content);
}

export const CHAT: Proofs = {
  CHAT_PROVIDER_PRIMARY_TIMEOUT_MS: timeout("openrouter_chat_primary"),
  CHAT_PROVIDER_PRIMARY_RETRIES: retries("openrouter_chat_primary"),
  CHAT_PROVIDER_SECONDARY_TIMEOUT_MS: timeout("openrouter_chat_secondary"),
  CHAT_PROVIDER_SECONDARY_RETRIES: retries("openrouter_chat_secondary"),
  CHAT_STREAM_IDLE_TIMEOUT_MS: {
    values: ["3000", "9000"],
    observe: () => giveUp("openrouter_chat_primary", [HI, HANG]),
  },
  CHAT_STREAM_TOTAL_TIMEOUT_MS: {
    values: ["5000", "9000"],
    observe: () => giveUp("openrouter_chat_primary", [HI, HANG]),
  },
  CHAT_DEFAULT_MODEL_CLASS: {
    values: ["fast", "agent"],
    observe: async () => (await begin(backend())).route,
  },
  CHAT_MODEL_FAST_PRIMARY: model("fast", "route"),
  CHAT_MODEL_FAST_SECONDARY: model("fast", "fallback"),
  CHAT_MODEL_AGENT_PRIMARY: model("agent", "route"),
  CHAT_MODEL_AGENT_SECONDARY: model("agent", "fallback"),
  CHAT_TOKENS_PER_DAY: {
    values: ["1500", "3000"],
    observe: async () => {
      const t = backend();
      return await countUntil(9, async () => (await admit(t)).kind === "admitted");
    },
  },
  CHAT_HISTORY_MESSAGES_MAX: { values: ["2", "3"], observe: () => shown("a", "b", "c", "d") },
  CHAT_HISTORY_BYTES_MAX: {
    values: ["4096", "9000"],
    observe: () => shown("a".repeat(3_000), "b".repeat(3_000)),
  },
  CHAT_SYSTEM_PROMPT: {
    values: ["Be brief.", "Be kind."],
    observe: async () => (await turnOfAction())[0]?.messages[0],
  },
  CHAT_CYCLES_HTTP_MAX: { values: ["1", "2"], observe: async () => (await turnOfRoute()).length },
  CHAT_CYCLES_ACTION_MAX: {
    values: ["1", "2"],
    observe: async () => (await turnOfAction()).length,
  },
  EBAY_MARKETPLACE_ID: {
    values: ["EBAY_US", "EBAY_GB"],
    observe: async () => {
      given({ EBAY_CLIENT_ID: "id", EBAY_CLIENT_SECRET: "secret" });
      vi.useRealTimers();
      const { io, run } = virtualIo(async () => jsonResponse({ total: 0 }));
      const args = {
        query: "tea",
        limit: 1,
        categoryId: null,
        categoryName: null,
        minPrice: null,
        maxPrice: null,
        condition: null,
        shipping: null,
        sellerRating: 95,
        location: null,
        marketplaceId: null,
      };
      const gate = {
        admit: async () => ({ ok: true as const, permit: 1 }),
        mayRetry: async () => false,
        settle: async () => undefined,
      };
      const tokens = { load: async () => "token", store: async () => undefined };
      await run(searchEbay(args, { gate, tokens, io: { ...io, env } }));
      return io.requests.map(({ url, init: { method, headers } }) => ({ url, method, headers }));
    },
  },
};
