/** Chat turns over the shipped engine, routes and stream reader; only the network and the tables are scripted. */
import { type Route, runTurn, type TurnResult } from "../../src/channels/chat/turn";
import { openChatRoute } from "../../src/providers/chatRoute";
import { type BodyStep, scriptedBody, virtualIo } from "../../src/providers/testing";

export const frame = (fields: object): string => `data: ${JSON.stringify(fields)}\n\n`;
const choice = (delta: object, finish: string | null = null): object => ({
  choices: [{ index: 0, delta, finish_reason: finish }],
});
export const text = (content: string): string => frame(choice({ role: "assistant", content }));
export const finish = (reason: string): string => frame(choice({ content: "" }, reason));
export const error = (code: unknown): string =>
  frame({ error: { code, message: "a secret word" }, choices: [] });
export const DONE = "data: [DONE]\n\n";

const route = (routeId: "primary" | "secondary"): Route => ({
  providerId: `openrouter_chat_${routeId}`,
  routeId,
  modelClass: "agent",
  modelId: routeId,
});

export interface Ran {
  readonly result: TurnResult;
  /** The models that were asked, in order. */
  readonly asked: readonly string[];
  /** Events as the client saw them. */
  readonly events: readonly { readonly type: string; readonly content?: string }[];
  /** Texts of the frames of each store, the settlement's last. */
  readonly stores: readonly (readonly string[])[];
  /** Waits, in milliseconds. */
  readonly slept: readonly number[];
}

/** What a provider does with one request: streams these steps, or answers with a status. */
export type Answer = readonly BodyStep[] | number;

interface Setup {
  /** What chance draws. */
  readonly draw?: number;
  readonly hasFallback?: boolean;
  /** Further attempts on the primary route. */
  readonly retries?: number;
}

/** Runs one turn in which the requests to the providers are answered in this order. */
export async function turn(
  answers: readonly Answer[],
  { draw = 0.5, hasFallback = true, retries = 0 }: Setup = {},
): Promise<Ran> {
  const asked: string[] = [];
  const sent: string[] = [];
  const stores: (readonly string[])[] = [];
  const { io, run } = virtualIo(async (call, init, over) => {
    asked.push((JSON.parse(init.body as string) as { model: string }).model);
    const answer = answers[call - 1] ?? 500;
    if (typeof answer === "number") return new Response(null, { status: answer });
    const headers = { "content-type": "text/event-stream" };
    return new Response(scriptedBody(answer, over).stream, { headers });
  }, draw);
  const env = {
    OPENROUTER_API_KEY: "key-of-the-test",
    OPENROUTER_BASE_URL: "https://o.example",
    CHAT_PROVIDER_PRIMARY_RETRIES: String(retries),
  };
  const result = await run(
    runTurn(
      {
        route: route("primary"),
        fallback: hasFallback ? route("secondary") : null,
        messages: [{ role: "user", content: "hi" }],
        frames: [],
        webSearch: false,
        callIds: { taken: [], isAll: true },
        cyclesMax: 1,
        totalTimeoutMs: 300_000,
      },
      {
        now: io.now,
        random: io.random,
        sleep: io.sleep,
        stream: ({ messages, route: { modelId, providerId }, signal, totalTimeoutMs }) =>
          openChatRoute(
            { provider: providerId, model: modelId, messages, signal, totalTimeoutMs },
            { env, io, mayRetry: async () => true },
          ),
        runTool: async () => ({ kind: "failed", text: "there is none" }),
        store: async (_firstFrameId, frames) => {
          stores.push(frames);
          return { live: true, abort: false };
        },
        switchRoute: async () => ({ ok: true }),
        settle: async (_firstFrameId, frames) => {
          stores.push(frames);
          return "now";
        },
        send: (one) => void sent.push(one),
      },
    ),
  );
  return { result, asked, events: sent.map(eventOf), stores, slept: io.slept };
}

const eventOf = (sent: string): Ran["events"][number] =>
  JSON.parse(/^data: (.*)$/m.exec(sent)?.[1] ?? "null") as Ran["events"][number];

const TERMINAL: readonly string[] = ["done", "error", "aborted"];

/** How often a client was told that the answer is over. */
export const ends = ({ events }: Ran): string[] =>
  events.map(({ type }) => type).filter((type) => TERMINAL.includes(type));
