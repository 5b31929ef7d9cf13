import { KIB, MIB, utf8Bytes } from "../../core/bytes";
import { errorData } from "../../errors/appError";
import { ERRORS, type ErrorCode } from "../../errors/table";
import type {
  ChatDelta,
  ChatEnding,
  ChatEndingKind,
  ChatMessage,
  ChatUsage,
  ToolCall,
} from "../../providers/chat";
import type { Io } from "../../providers/io";
import type { ProviderId } from "../../providers/table";
import { type Outcome, outcomeOfError } from "../../providers/outcome";
import type { CacheUse } from "../../tools/cacheUse";
import type { ChatEvent, TerminalEvent } from "./events";
import { Recorder, type StoreReply } from "./recorder";
import { type ToolBounds, type ToolOutcome, ToolTurn } from "./toolTurn";
import { wellFormed, WholeCharacters } from "./wholeCharacters";

/** A route to a model, chosen at admission or by falling back. */
export interface Route {
  readonly providerId: ProviderId;
  readonly routeId: "primary" | "secondary";
  readonly modelClass: "fast" | "agent";
  readonly modelId: string;
}

export interface TurnStart {
  readonly route: Route;
  /** Where to go when the route fails before anything was seen; null on the last one. */
  readonly fallback: Route | null;
  /** System prompt and history, oldest first. */
  readonly messages: readonly ChatMessage[];
  /** Frames stored at admission; their ids start at 1. */
  readonly frames: readonly string[];
  readonly webSearch: boolean;
  /** Requests to the model in this turn at most. */
  readonly cyclesMax: number;
  /** Whole turn, in milliseconds. */
  readonly totalTimeoutMs: number;
}

/** How a turn ended, as settlement stores it. */
export interface TurnResult {
  readonly status: "completed" | "error" | "aborted";
  readonly content: string;
  readonly reasoning: string;
  readonly toolCalls: { id: string; name: string; arguments: string }[];
  readonly toolResults: { toolCallId: string; name: string; content: string }[];
  /** What the tool cache was to this turn, by namespace. */
  readonly cacheUse: CacheUse[];
  readonly ending: string;
  readonly errorCode?: ErrorCode;
  readonly modelId: string;
  readonly usage: ChatUsage & { readonly estimated: boolean };
  readonly outcome: Outcome["kind"];
  readonly visible: boolean;
  /** Until the first token; without one, until the end. */
  readonly latencyMs: number;
}

export interface StreamRequest {
  readonly route: Route;
  readonly messages: readonly ChatMessage[];
  readonly webSearch: boolean;
  readonly toolChoice: "auto" | "none";
  readonly totalTimeoutMs: number;
  readonly signal: AbortSignal;
}

/** What a turn needs from where it runs: the same for the HTTP route and the action. */
export interface TurnPorts extends Pick<Io, "now" | "sleep"> {
  readonly stream: (request: StreamRequest) => AsyncGenerator<ChatDelta, ChatEnding>;
  readonly runTool: (call: ToolCall, bounds: ToolBounds) => Promise<ToolOutcome>;
  readonly store: (firstFrameId: number, frames: readonly string[]) => Promise<StoreReply>;
  /** Moves the turn's slot to the fallback route; not ok where that has none free. */
  readonly switchRoute: (outcome: Outcome["kind"]) => Promise<{ readonly ok: boolean }>;
  /** False when the turn was ended by someone else, or will be settled later. */
  readonly settle: (
    firstFrameId: number,
    frames: readonly string[],
    result: TurnResult,
  ) => Promise<boolean>;
  readonly send: (text: string) => void;
}

/** Longest text of one turn: a message is one document, and documents are bounded. */
const TURN_TEXT_BYTES_MAX = 256 * KIB;
const TURN_REASONING_CHARS_MAX = 64 * KIB;
/** Frames of one turn in all: they are read again as a whole when a worker dies. */
const TURN_FRAMES_BYTES_MAX = 4 * MIB;
const BYTES_PER_TOKEN = 4;

/** One ending of the turn: a stream's, or our own reason to stop. */
interface Ended {
  readonly kind: ChatEndingKind;
  readonly code: ErrorCode | null;
  readonly retryAfterMs?: number;
  readonly outcome: Outcome["kind"];
}

/**
 * Runs one admitted chat turn to its settlement. Whatever happens in between, the client gets
 * exactly one terminal event and the tables one terminal state, and they agree.
 */
export async function runTurn(start: TurnStart, ports: TurnPorts): Promise<TurnResult> {
  const turn = new Turn(start, ports);
  return await turn.run();
}

class Turn {
  private readonly ports: TurnPorts;
  private readonly start: TurnStart;
  private readonly recorder: Recorder;
  private readonly tools: ToolTurn;
  private readonly abort = new AbortController();
  private readonly startedAtMs: number;
  private readonly messages: ChatMessage[];
  private route: Route;
  private canFallBack: boolean;
  private readonly halves = new WholeCharacters();
  private text = "";
  private textBytes = 0;
  private reasoning = "";
  private usage: ChatUsage | null = null;
  private usageIsWhole = true;
  private firstTokenMs: number | null = null;
  private model: string | null = null;
  private finishReason: string | null = null;
  private tooLong = false;
  private lost = false;

  constructor(start: TurnStart, ports: TurnPorts) {
    this.start = start;
    this.ports = ports;
    this.route = start.route;
    this.canFallBack = start.fallback !== null;
    this.messages = [...start.messages];
    this.startedAtMs = ports.now();
    this.recorder = new Recorder(
      {
        store: ports.store,
        send: ports.send,
        now: ports.now,
        sleep: ports.sleep,
        onStop: (reason) => {
          this.lost = reason === "lost";
          this.abort.abort();
        },
      },
      start.frames.length + 1,
    );
    this.tools = new ToolTurn({
      say: (event) => this.recorder.say(event),
      runTool: ports.runTool,
      bounds: {
        signal: this.abort.signal,
        deadlineAtMs: this.startedAtMs + start.totalTimeoutMs,
      },
    });
  }

  async run(): Promise<TurnResult> {
    this.recorder.replay(this.start.frames);
    const pulse = this.recorder.keepAlive();
    // A bug in the turn ends it as an error like any other failure: the slot must be released.
    const ended = await this.converse().catch((error: unknown) => endedBy(error));
    const result = this.resultOf(ended);
    const closing = this.closingEvents(ended, result);
    const left = await this.recorder.finish();
    await pulse;
    await this.close(left, closing, result);
    return result;
  }

  /** Asks the model until it stops calling tools. */
  private async converse(): Promise<Ended> {
    for (let cycle = 1; ; cycle++) {
      const last = cycle >= this.start.cyclesMax || this.tools.limitReached;
      const ended = await this.ask(last ? "none" : "auto");
      if (ended.kind !== "tool_calls") return ended;
      // A model that calls what it was told not to call, and says nothing, has not answered.
      if (last) return this.text === "" ? EMPTY : { ...ended, kind: "completed" };
      this.messages.push(...(await this.tools.run(ended.toolCalls)));
      if (this.abort.signal.aborted) return ABORTED;
    }
  }

  /** One request to the model, on the fallback route if the first fails unseen. */
  private async ask(
    toolChoice: "auto" | "none",
  ): Promise<Ended & { readonly toolCalls: readonly ToolCall[] }> {
    for (;;) {
      const seenBefore = this.tools.said;
      const ended = await this.consume(toolChoice).catch((error: unknown) => ({
        ...endedBy(error),
        toolCalls: [],
      }));
      const unseen = this.text === "" && this.reasoning === "" && this.tools.said === seenBefore;
      const upstream = ended.code?.startsWith("upstream_") ?? false;
      if (!unseen || !upstream || this.abort.signal.aborted || !(await this.fallBack(ended)))
        return ended;
    }
  }

  private async fallBack(ended: Ended): Promise<boolean> {
    const { fallback } = this.start;
    if (!this.canFallBack || fallback === null) return false;
    this.canFallBack = false;
    const switched = await this.ports.switchRoute(ended.outcome).catch(() => ({ ok: false }));
    if (!switched.ok) return false;
    this.route = fallback;
    const { providerId, routeId, modelClass } = fallback;
    await this.recorder.say({ type: "provider-route", providerId, routeId, modelClass });
    return true;
  }

  private async consume(
    toolChoice: "auto" | "none",
  ): Promise<Ended & { readonly toolCalls: readonly ToolCall[] }> {
    const { totalTimeoutMs, webSearch } = this.start;
    const deltas = this.ports.stream({
      route: this.route,
      messages: this.messages,
      webSearch,
      toolChoice,
      totalTimeoutMs: Math.max(1, this.startedAtMs + totalTimeoutMs - this.ports.now()),
      signal: this.abort.signal,
    });
    for (;;) {
      const next = await deltas.next();
      if (next.done === true) {
        await this.say(this.halves.flush());
        return this.streamEnded(next.value);
      }
      await this.take(next.value);
      if (this.isTooLong()) {
        await deltas.return(TOO_LONG_ENDING);
        this.usageIsWhole = false;
        return { kind: "length", code: null, outcome: "success", toolCalls: [] };
      }
    }
  }

  private async take(delta: ChatDelta): Promise<void> {
    if (delta.kind !== "usage") this.firstTokenMs ??= this.ports.now() - this.startedAtMs;
    switch (delta.kind) {
      case "text":
        await this.say(this.halves.push(delta.text));
        return;
      case "reasoning":
        await this.think(wellFormed(delta.text));
        return;
      case "tool_call_start":
      case "tool_call_delta":
        await this.tools.input(delta);
        return;
      case "usage":
        // Counted from the ending, which knows whether there was one.
        return;
    }
  }

  private async think(content: string): Promise<void> {
    if (this.reasoning.length < TURN_REASONING_CHARS_MAX) this.reasoning += content;
    await this.recorder.say({ type: "reasoning", content });
  }

  private async say(content: string): Promise<void> {
    if (content === "") return;
    this.text += content;
    this.textBytes += utf8Bytes(content);
    await this.recorder.say({ type: "content", content });
  }

  private isTooLong(): boolean {
    this.tooLong =
      this.textBytes >= TURN_TEXT_BYTES_MAX || this.recorder.saidBytes >= TURN_FRAMES_BYTES_MAX;
    return this.tooLong;
  }

  private streamEnded(ending: ChatEnding): Ended & { readonly toolCalls: readonly ToolCall[] } {
    if (ending.usage === null) this.usageIsWhole = false;
    else this.usage = addUsage(this.usage, ending.usage);
    this.model = ending.model ?? this.model;
    this.finishReason = ending.finishReason;
    const { kind, code, outcome, toolCalls } = ending;
    return { kind, code, outcome, toolCalls };
  }

  private resultOf(ended: Ended): TurnResult {
    const aborted = ended.kind === "client_abort";
    const failed = ended.code !== null;
    return {
      status: aborted ? "aborted" : failed ? "error" : "completed",
      content: this.text,
      reasoning: this.reasoning,
      toolCalls: this.tools.calls,
      toolResults: this.tools.results,
      cacheUse: this.tools.cacheUse,
      ending: ended.kind,
      ...(ended.code === null ? {} : { errorCode: ended.code }),
      modelId: this.model ?? this.route.modelId,
      usage: this.countUsage(),
      outcome: ended.outcome,
      visible: this.firstTokenMs !== null,
      latencyMs: this.firstTokenMs ?? this.ports.now() - this.startedAtMs,
    };
  }

  /** The provider's counts, or an estimate from the text where a usage frame is missing. */
  private countUsage(): TurnResult["usage"] {
    if (this.usage !== null && this.usageIsWhole) return { ...this.usage, estimated: false };
    const prompt = this.messages.reduce((sum, { content }) => sum + (content?.length ?? 0), 0);
    const promptTokens = this.firstTokenMs === null ? 0 : Math.ceil(prompt / BYTES_PER_TOKEN);
    const said = this.textBytes + this.reasoning.length;
    const completionTokens = Math.ceil(said / BYTES_PER_TOKEN);
    const counted = this.usage ?? NOTHING_USED;
    return {
      ...counted,
      promptTokens: Math.max(counted.promptTokens, promptTokens),
      completionTokens: Math.max(counted.completionTokens, completionTokens),
      totalTokens: Math.max(counted.totalTokens, promptTokens + completionTokens),
      estimated: true,
    };
  }

  private closingEvents(ended: Ended, result: TurnResult): ChatEvent[] {
    const terminal = terminalOf(ended, this.finishReason);
    if (!result.visible) return [terminal];
    const { usage } = result;
    return [
      {
        type: "usage",
        usage: {
          prompt_tokens: usage.promptTokens,
          completion_tokens: usage.completionTokens,
          total_tokens: usage.totalTokens,
          cached_tokens: usage.cachedTokens,
          reasoning_tokens: usage.reasoningTokens,
          cost: usage.cost,
        },
        estimated: usage.estimated,
        metrics: {
          latencyMs: this.ports.now() - this.startedAtMs,
          ttftMs: this.firstTokenMs,
          modelId: result.modelId,
          finishReason: ended.kind,
        },
      },
      terminal,
    ];
  }

  /** Settles first, then tells: a client that saw the end finds it in the tables. */
  private async close(
    left: { readonly firstFrameId: number; readonly frames: readonly string[] },
    closing: readonly ChatEvent[],
    result: TurnResult,
  ): Promise<void> {
    const data = closing.map((event) => JSON.stringify(event));
    const settled =
      !this.lost && (await this.ports.settle(left.firstFrameId, [...left.frames, ...data], result));
    const firstId = left.firstFrameId + left.frames.length;
    for (const [i, frame] of data.entries())
      this.ports.send(settled ? `id: ${firstId + i}\ndata: ${frame}\n\n` : `data: ${frame}\n\n`);
  }
}

const ABORTED: Ended = { kind: "client_abort", code: null, outcome: "neutral" };
const EMPTY: Ended = { kind: "empty_success", code: "upstream_error", outcome: "failure" };

const NOTHING_USED: ChatUsage = {
  promptTokens: 0,
  completionTokens: 0,
  totalTokens: 0,
  cachedTokens: 0,
  reasoningTokens: 0,
  cost: null,
};

/** Handed to the generator when we stop listening; nobody reads it. */
const TOO_LONG_ENDING: ChatEnding = {
  kind: "length",
  outcome: "success",
  code: null,
  finishReason: "length",
  toolCalls: [],
  usage: null,
  model: null,
  visible: true,
  latencyMs: 0,
  firstTokenMs: null,
};

/** A failure before the first byte, or a fault of our own. */
function endedBy(error: unknown): Ended {
  const { code, retryAfterMs } = errorData(error);
  const { kind: outcome } = outcomeOfError(error, 0);
  return {
    kind: code === "upstream_timeout" ? "idle_timeout" : "error_in_band",
    code,
    outcome,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  };
}

function terminalOf(ended: Ended, finishReason: string | null): TerminalEvent {
  if (ended.kind === "client_abort") return { type: "aborted" };
  if (ended.code === null) return { type: "done", finishReason: finishReason ?? ended.kind };
  const { message, retryable } = ERRORS[ended.code];
  return {
    type: "error",
    error: message,
    code: ended.code,
    retryable,
    ...(ended.retryAfterMs === undefined ? {} : { retryAfterMs: ended.retryAfterMs }),
  };
}

function addUsage(sum: ChatUsage | null, more: ChatUsage): ChatUsage {
  if (sum === null) return more;
  const cost = sum.cost === null && more.cost === null ? null : (sum.cost ?? 0) + (more.cost ?? 0);
  return {
    promptTokens: sum.promptTokens + more.promptTokens,
    completionTokens: sum.completionTokens + more.completionTokens,
    totalTokens: sum.totalTokens + more.totalTokens,
    cachedTokens: sum.cachedTokens + more.cachedTokens,
    reasoningTokens: sum.reasoningTokens + more.reasoningTokens,
    cost,
  };
}
