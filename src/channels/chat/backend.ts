import type { FunctionArgs } from "convex/server";
import type { Env } from "../../config/env";
import { readKnob } from "../../config/read";
import { log } from "../../log/log";
import { errorData } from "../../errors/appError";
import { platformIo } from "../../providers/io";
import { openChatRoute } from "../../providers/chatRoute";
import { toolDefinitions } from "../../tools/definitions";
import { throughContention } from "../contention";
import type { Ctx, StreamId, ToolFunctions, TurnFunctions } from "./functions";
import { callIdsOf, type HistoryMessage, toChatMessages } from "./history";
import { runToolCall } from "./toolRunner";
import {
  type Route,
  runTurn,
  type Settled,
  type StreamRequest,
  type TurnPorts,
  type TurnResult,
} from "./turn";

/** An admitted turn, as it is handed from admission to whoever runs it. */
export interface AdmittedTurn {
  readonly userId: string;
  readonly streamId: StreamId;
  readonly route: Route;
  readonly fallback: Route | null;
  readonly history: readonly HistoryMessage[];
  /** Whether that is all of the thread; absent in a turn that an older version scheduled. */
  readonly historyIsWhole?: boolean | undefined;
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
  const history = toChatMessages(turn.history);
  const result = await runTurn(
    {
      route: turn.route,
      fallback: turn.fallback,
      messages: [{ role: "system", content: readKnob(env, "CHAT_SYSTEM_PROMPT") }, ...history],
      callIds: { taken: callIdsOf(turn.history, history), isAll: turn.historyIsWhole ?? false },
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
    random: platformIo.random,
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
