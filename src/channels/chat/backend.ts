import type { FunctionArgs } from "convex/server";
import type { Env } from "../../config/env";
import { readKnob } from "../../config/read";
import { log } from "../../log/log";
import { errorData } from "../../errors/appError";
import type { ChatMessage } from "../../providers/chat";
import { platformIo } from "../../providers/io";
import { openChatRoute } from "../../providers/chatRoute";
import { toolDefinitions } from "../../tools/definitions";
import { throughContention } from "../contention";
import type { Ctx, StreamId, ToolFunctions, TurnFunctions } from "./functions";
import { runToolCall } from "./toolRunner";
import {
  type Route,
  runTurn,
  type Settled,
  type StreamRequest,
  type TurnPorts,
  type TurnResult,
} from "./turn";

interface HistoryMessage {
  readonly role: "user" | "assistant" | "tool" | "system";
  readonly content: string;
  readonly toolCalls?: readonly { id: string; name: string; arguments: string }[] | undefined;
  readonly toolCallId?: string | undefined;
}

/** An admitted turn, as it is handed from admission to whoever runs it. */
export interface AdmittedTurn {
  readonly userId: string;
  readonly streamId: StreamId;
  readonly route: Route;
  readonly fallback: Route | null;
  readonly history: readonly HistoryMessage[];
  readonly frames: readonly string[];
  readonly webSearch: boolean;
}

interface Shell {
  readonly ctx: Ctx;
  readonly env: Env;
  readonly functions: TurnFunctions & ToolFunctions;
  readonly source: "chat_http" | "chat_action";
  readonly cyclesMax: number;
  readonly send: (text: string) => void;
}

/** Runs an admitted turn on the platform: the one engine behind the HTTP route and the action. */
export async function runAdmittedTurn(turn: AdmittedTurn, shell: Shell): Promise<TurnResult> {
  const { env } = shell;
  const deferred: Promise<unknown>[] = [];
  const result = await runTurn(
    {
      route: turn.route,
      fallback: turn.fallback,
      messages: [
        { role: "system", content: readKnob(env, "CHAT_SYSTEM_PROMPT") },
        ...turn.history.flatMap(asChatMessages),
      ],
      frames: turn.frames,
      webSearch: turn.webSearch,
      cyclesMax: shell.cyclesMax,
      totalTimeoutMs: readKnob(env, "CHAT_STREAM_TOTAL_TIMEOUT_MS"),
    },
    portsOf(turn, shell, (work) => deferred.push(work)),
  );
  // What an action leaves undone when it ends may never be done.
  await Promise.allSettled(deferred);
  return result;
}

function portsOf(
  { streamId }: AdmittedTurn,
  shell: Shell,
  defer: (work: Promise<unknown>) => void,
): TurnPorts {
  const { ctx, env, functions } = shell;
  /** Requests that the turn's present route was sent again. */
  let retries = 0;
  const counted = (): void => void (retries += 1);
  return {
    now: platformIo.now,
    sleep: platformIo.sleep,
    send: shell.send,
    stream: (request) => openStream(shell, request, counted),
    runTool: async (call, bounds) =>
      await runToolCall(call, { ctx, env, functions, source: shell.source, defer, ...bounds }),
    store: async (firstFrameId, frames) =>
      await ctx.runMutation(functions.append, { streamId, firstFrameId, frames: [...frames] }),
    switchRoute: async (outcome) => {
      const args = { streamId, outcome, attempts: 1 + retries };
      const switched = await throughContention(() => ctx.runMutation(functions.switchRoute, args));
      if (switched.ok) retries = 0;
      return switched;
    },
    settle: async (firstFrameId, frames, result) =>
      await settle(shell, {
        streamId,
        firstFrameId,
        frames: [...frames],
        result: { ...result, attempts: 1 + retries },
      }),
  };
}

/**
 * Settles now, again after a pause where that was lost to contention, and else leaves it to the
 * scheduler, which tries without end. Only a settlement that happened gives the closing frames their
 * ids: a client is not to hear of an end that the tables do not know.
 */
async function settle(
  { ctx, functions }: Shell,
  args: FunctionArgs<TurnFunctions["settle"]>,
): Promise<Settled> {
  try {
    const { settled } = await throughContention(() => ctx.runMutation(functions.settle, args));
    return settled ? "now" : "elsewhere";
  } catch (error) {
    log.event("turn_settle_failed", { code: errorData(error).code });
  }
  await ctx.scheduler.runAfter(0, functions.settle, args);
  return "later";
}

function openStream(
  { ctx, env, functions }: Shell,
  { messages, route, signal, toolChoice, totalTimeoutMs, webSearch }: StreamRequest,
  onRetry: () => void,
): ReturnType<typeof openChatRoute> {
  const provider = route.providerId;
  return openChatRoute(
    {
      provider,
      model: route.modelId,
      messages,
      tools: toolDefinitions({ webSearch }),
      toolChoice,
      signal,
      totalTimeoutMs,
    },
    {
      env,
      io: platformIo,
      mayRetry: async (attempts) => {
        const granted = await ctx.runQuery(functions.mayRetry, { provider, attempts });
        if (granted) onRetry();
        return granted;
      },
    },
  );
}

/** A stored answer that called tools is three things to a model: calls, results, text. */
function asChatMessages(
  message: HistoryMessage,
  index: number,
  history: readonly HistoryMessage[],
): ChatMessage[] {
  const { content, role, toolCalls = [] } = message;
  switch (role) {
    case "user":
    case "system":
      return [{ role, content }];
    case "tool":
      return [];
    case "assistant": {
      const results = toolCalls.map(({ id }) => ({ id, content: resultOf(history, index, id) }));
      const known = results.filter((result) => result.content !== null);
      const said: ChatMessage[] = content === "" ? [] : [{ role, content }];
      if (known.length === 0 || known.length < toolCalls.length) return said;
      return [
        {
          role,
          content: null,
          tool_calls: toolCalls.map(({ arguments: args, id, name }) => ({
            id,
            type: "function",
            function: { name, arguments: args },
          })),
        },
        ...known.map((result): ChatMessage => ({
          role: "tool",
          tool_call_id: result.id,
          content: result.content ?? "",
        })),
        ...said,
      ];
    }
  }
}

/** The stored result of a call, which follows its answer; null where the history was cut. */
function resultOf(history: readonly HistoryMessage[], after: number, id: string): string | null {
  const found = history.find(
    ({ role, toolCallId }, i) => i > after && role === "tool" && toolCallId === id,
  );
  return found?.content ?? null;
}
