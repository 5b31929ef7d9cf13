/**
 * A thread of chat turns over the shipped engine and stream reader: the test says what the provider
 * streams and sees what it is sent, what the frontend is sent and what is stored. Nothing waits.
 */
import { callIdsOf, type HistoryMessage, toChatMessages } from "../../src/channels/chat/history";
import {
  type Route,
  runTurn,
  type StreamRequest,
  type TurnResult,
} from "../../src/channels/chat/turn";
import type { ToolOutcome } from "../../src/channels/chat/toolTurn";
import {
  type ChatDelta,
  type ChatEnding,
  type ChatMessage,
  type ToolCall,
} from "../../src/providers/chat";
import { chatFrames } from "../../src/providers/chatFrames";
import { offeredToolIds } from "../../src/tools/table";

const ROUTE: Route = {
  providerId: "openrouter_chat_primary",
  routeId: "primary",
  modelClass: "agent",
  modelId: "vendor/model",
};

/** One event as the frontend was sent it. */
export interface SentEvent {
  readonly type: string;
  readonly [field: string]: unknown;
}

export interface TurnSeen {
  /** The messages of each request, oldest first. */
  readonly requests: readonly (readonly ChatMessage[])[];
  /** The tools that each request offered. */
  readonly offered: readonly (readonly string[])[];
  readonly events: readonly SentEvent[];
  /** The same as the bytes of the stream. */
  readonly sent: readonly string[];
  /** Calls that really ran. */
  readonly ran: readonly ToolCall[];
  readonly result: TurnResult;
}

interface TurnOptions {
  readonly webSearch?: boolean;
  readonly cyclesMax?: number;
  /** Told to the engine: whether it knows all ids of the thread. */
  readonly isWhole?: boolean;
  readonly runTool?: (call: ToolCall) => ToolOutcome;
}

/** The text of one stream: what arrives, in the pieces in which it arrives. */
export type Stream = readonly string[];

export class Conversation {
  readonly history: HistoryMessage[] = [];
  private readonly random: () => number;

  constructor(random: () => number = Math.random) {
    this.random = random;
  }

  /** One turn of the thread, in which the requests are answered by these streams in order. */
  async turn(
    content: string,
    streams: readonly Stream[],
    { cyclesMax = 6, isWhole = true, runTool = echo, webSearch = true }: TurnOptions = {},
  ): Promise<TurnSeen> {
    this.history.push({ role: "user", content });
    const past = toChatMessages(this.history);
    const requests: ChatMessage[][] = [];
    const offered: string[][] = [];
    const sent: string[] = [];
    const ran: ToolCall[] = [];
    const result = await runTurn(
      {
        route: ROUTE,
        fallback: null,
        messages: past,
        frames: [],
        webSearch,
        callIds: { taken: callIdsOf(this.history, past), isAll: isWhole },
        cyclesMax,
        totalTimeoutMs: 60_000,
      },
      {
        now: () => 0,
        random: this.random,
        sleep: async (_ms, signal) => {
          await new Promise<void>((resolve) => {
            signal?.addEventListener("abort", () => {
              resolve();
            });
          });
        },
        stream: (request) => {
          requests.push([...request.messages]);
          const tools = [...offeredToolIds(request)];
          offered.push(tools);
          return read(streams[requests.length - 1] ?? [], request, tools);
        },
        runTool: async (call) => {
          ran.push(call);
          return runTool(call);
        },
        store: async () => ({ live: true, abort: false }),
        switchRoute: async () => ({ ok: false }),
        settle: async () => "now",
        send: (frame) => sent.push(frame),
      },
    );
    this.store(result);
    return { requests, offered, events: sent.map(eventOf), sent, ran, result };
  }

  /** What the next turn of this thread would send the provider first. */
  next(content = "and now?"): ChatMessage[] {
    return toChatMessages([...this.history, { role: "user", content }]);
  }

  /** As settlement does: the answer, then what the tools said. */
  private store({ content, toolCalls, toolResults }: TurnResult): void {
    this.history.push({ role: "assistant", content, toolCalls });
    for (const { content: output, toolCallId } of toolResults)
      this.history.push({ role: "tool", toolCallId, content: output });
  }
}

/** A tool that says what it was given, so that results can be joined to their calls. */
export const echo = (call: ToolCall): ToolOutcome => ({
  kind: "result",
  text: JSON.stringify({ ran: call.name, with: call.arguments }),
  degraded: false,
});

async function* read(
  stream: Stream,
  { signal }: StreamRequest,
  tools: readonly string[],
): AsyncGenerator<ChatDelta, ChatEnding> {
  const frames = chatFrames(tools);
  const ended = (stop: Parameters<typeof frames.end>[0]): ChatEnding => ({
    ...frames.end(stop),
    latencyMs: 0,
    firstTokenMs: null,
  });
  for (const piece of stream) {
    if (signal.aborted) return ended("client_abort");
    yield* frames.push(piece);
    if (frames.over) return ended("done");
  }
  yield* frames.flush();
  return ended("eof");
}

function eventOf(frame: string): SentEvent {
  const data = /^data: ([^\n]*)$/m.exec(frame)?.[1] ?? "null";
  return JSON.parse(data) as SentEvent;
}

/** One frame as a provider writes it. */
export const frame = (fields: object): string => `data: ${JSON.stringify(fields)}\n\n`;
export const delta = (fields: object, finish: string | null = null): string =>
  frame({ choices: [{ index: 0, delta: fields, finish_reason: finish }] });
export const text = (content: string): string => delta({ role: "assistant", content });
/** One part of a call. */
export const part = (fields: object): string => delta({ tool_calls: [fields] });
export const finish = (reason: string): string => delta({}, reason);
export const DONE = "data: [DONE]\n\n";

/** A call that comes in one part, as OpenAI would give it. */
export const call = (index: number, id: string, name: string, args: string): string =>
  part({ index, id, type: "function", function: { name, arguments: args } });

/** A whole answer without calls. */
export const answer = (content: string): Stream => [text(content), finish("stop"), DONE];

/**
 * What is wrong with how the frontend was shown the calls of a turn; null where each is shown once:
 * begun, its arguments, its result, in this order and by an id of its own.
 */
export function shownFault(events: readonly SentEvent[], taken: Set<string>): string | null {
  const states = new Map<string, "begun" | "given" | "ended">();
  for (const { toolCallId, type } of events) {
    if (typeof toolCallId !== "string") continue;
    const state = states.get(toolCallId);
    if (type === "tool-input-start") {
      if (taken.has(toolCallId)) return `${toolCallId} began twice`;
      taken.add(toolCallId);
      states.set(toolCallId, "begun");
    } else if (type === "tool-input-delta") {
      if (state !== "begun") return `${toolCallId} is written while ${state ?? "unknown"}`;
    } else if (type === "tool-input-available") {
      if (state !== "begun") return `${toolCallId} is given while ${state ?? "unknown"}`;
      states.set(toolCallId, "given");
    } else if (type === "tool-output-partially-available") {
      if (state !== "given") return `${toolCallId} ends while ${state ?? "unknown"}`;
      states.set(toolCallId, "ended");
    }
  }
  const open = [...states].filter(([, state]) => state !== "ended");
  return open.length === 0 ? null : `never ended: ${open.map(([id]) => id).join(", ")}`;
}
