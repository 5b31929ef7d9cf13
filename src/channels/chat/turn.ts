import { KIB, MIB, utf8Bytes } from "../../core/bytes";
import { SECOND } from "../../core/time";
import type { ErrorCode } from "../../errors/table";
import type { ChatDelta, ChatEnding, ChatMessage, ChatUsage, ToolCall } from "../../providers/chat";
import type { Io } from "../../providers/io";
import type { ProviderId } from "../../providers/table";
import type { Outcome } from "../../providers/outcome";
import type { CacheUse } from "../../tools/cacheUse";
import { offeredToolIds } from "../../tools/table";
import { CallIds } from "./callIds";
import {
  ABORTED,
  EMPTY,
  type Ended,
  endedBy,
  NO_CALLS,
  OUT_OF_TIME,
  terminalOf,
  TOO_LONG_ENDING,
} from "./endings";
import { type ChatEvent, encodeFrame, frameData } from "./events";
import { Recorder, type StoreReply } from "./recorder";
import { type CallingAnswer, type ToolBounds, type ToolOutcome, ToolTurn } from "./toolTurn";
import { addUsage, type TurnUsage, usageCounts, usageOf } from "./usage";
import { pieces, WholeCharacters } from "./wholeCharacters";

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
  /** Ids that calls of the thread have, and whether these are all of them. */
  readonly callIds: { readonly taken: readonly string[]; readonly isAll: boolean };
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
  readonly usage: TurnUsage;
  readonly outcome: Outcome["kind"];
  readonly visible: boolean;
  /** From the first request on the route to its first token; without one, to the end. */
  readonly latencyMs: number;
}

/**
 * What became of a settlement: done, left to be done, or not ours to do, since the turn was ended by
 * someone else before.
 */
export type Settled = "now" | "later" | "elsewhere";

export interface StreamRequest {
  readonly route: Route;
  readonly messages: readonly ChatMessage[];
  readonly webSearch: boolean;
  readonly toolChoice: "auto" | "none";
  readonly totalTimeoutMs: number;
  readonly signal: AbortSignal;
}

/** What a turn needs from where it runs: the same for the HTTP route and the action. */
export interface TurnPorts extends Pick<Io, "now" | "random" | "sleep"> {
  readonly stream: (request: StreamRequest) => AsyncGenerator<ChatDelta, ChatEnding>;
  readonly runTool: (call: ToolCall, bounds: ToolBounds) => Promise<ToolOutcome>;
  readonly store: (firstFrameId: number, frames: readonly string[]) => Promise<StoreReply>;
  /** Moves the turn's slot to the fallback route; not ok where that has none free. */
  readonly switchRoute: (outcome: Outcome["kind"]) => Promise<{ readonly ok: boolean }>;
  readonly settle: (
    firstFrameId: number,
    frames: readonly string[],
    result: TurnResult,
  ) => Promise<Settled>;
  readonly send: (text: string) => void;
}

/**
 * Longest text of one turn. A message is one document, of 1 MiB at most: text, calls and reasoning
 * are bounded in bytes, and each may be longer by one part.
 */
const TURN_TEXT_BYTES_MAX = 256 * KIB;
/** Tool calls of a turn, with their arguments, ids and names. */
const TURN_CALLS_BYTES_MAX = 64 * KIB;
const TURN_REASONING_BYTES_MAX = 64 * KIB;
/** Frames of one turn in all: they are read again as a whole when a worker dies. */
const TURN_FRAMES_BYTES_MAX = 4 * MIB;
/** Characters of one frame: a chunk holds whole frames, and each may be six times that as JSON. */
const FRAME_CHARS_MAX = 32 * KIB;
/** A model is not asked again with less time than this left of the turn. */
const REQUEST_MIN_MS = SECOND;

/**
 * Runs one admitted chat turn to its settlement. Whatever happens in between, the client gets
 * exactly one terminal event and the tables one terminal state, and they agree.
 */
export async function runTurn(start: TurnStart, ports: TurnPorts): Promise<TurnResult> {
  const turn = new Turn(start, ports);
  return await turn.run();
}

/** One ended request, with the calls that its answer made. */
type Answered = Ended & Omit<CallingAnswer, "text">;

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
  /** When the present route was first asked. */
  private routeAtMs: number;
  private readonly halves = new WholeCharacters();
  private text = "";
  /** Where the text of the answer at hand begins: what earlier requests said stands before it. */
  private answerAt = 0;
  private textBytes = 0;
  private reasoning = "";
  private reasoningBytes = 0;
  private readonly thoughtHalves = new WholeCharacters();
  private usage: ChatUsage | null = null;
  private usageIsWhole = true;
  private firstTokenMs: number | null = null;
  private model: string | null = null;
  private finishReason: string | null = null;
  private lost = false;

  constructor(start: TurnStart, ports: TurnPorts) {
    this.start = start;
    this.ports = ports;
    this.route = start.route;
    this.canFallBack = start.fallback !== null;
    this.messages = [...start.messages];
    this.startedAtMs = ports.now();
    this.routeAtMs = this.startedAtMs;
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
      offered: new Set<string>(offeredToolIds(start)),
      ids: new CallIds({ ...start.callIds, random: ports.random }),
    });
  }

  async run(): Promise<TurnResult> {
    this.recorder.replay(this.start.frames);
    const pulse = this.recorder.keepAlive();
    // A bug in the turn ends it as an error like any other failure: the slot must be released.
    const ended = await this.converse().catch((error: unknown) => endedBy(error));
    // Of a turn that someone else has ended nothing more is said, also of its calls.
    if (!this.lost) await this.tools.closeOpen();
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
      const text = this.text.slice(this.answerAt);
      this.messages.push(...(await this.tools.run({ ...ended, text })));
      if (this.abort.signal.aborted) return ABORTED;
    }
  }

  /**
   * One request to the model, on the fallback route if the first fails while nothing of the turn has
   * been seen: what one model began, be it a tool call, no other one continues.
   */
  private async ask(toolChoice: "auto" | "none"): Promise<Answered> {
    for (;;) {
      // The time went to tools or to the other route: this one has not failed.
      if (this.leftMs() < REQUEST_MIN_MS) return OUT_OF_TIME;
      const ended = await this.consume(toolChoice).catch((error: unknown) => ({
        ...endedBy(error),
        ...NO_CALLS,
      }));
      const unseen = this.firstTokenMs === null;
      const upstream = ended.code?.startsWith("upstream_") ?? false;
      if (!unseen || !upstream || this.abort.signal.aborted || !(await this.fallBack(ended)))
        return ended;
    }
  }

  private async fallBack(ended: Ended): Promise<boolean> {
    const { fallback } = this.start;
    if (!this.canFallBack || fallback === null || this.leftMs() < REQUEST_MIN_MS) return false;
    this.canFallBack = false;
    const switched = await this.ports.switchRoute(ended.outcome).catch(() => ({ ok: false }));
    if (!switched.ok) return false;
    this.route = fallback;
    this.routeAtMs = this.ports.now();
    // Of the first route nothing was seen: what it counted, or did not, says nothing of the answer.
    this.usageIsWhole = true;
    this.model = null;
    const { providerId, routeId, modelClass } = fallback;
    await this.recorder.say({ type: "provider-route", providerId, routeId, modelClass });
    return true;
  }

  private async consume(toolChoice: "auto" | "none"): Promise<Answered> {
    this.answerAt = this.text.length;
    const deltas = this.ports.stream({
      route: this.route,
      messages: this.messages,
      webSearch: this.start.webSearch,
      toolChoice,
      totalTimeoutMs: this.leftMs(),
      signal: this.abort.signal,
    });
    for (;;) {
      const next = await deltas.next();
      if (next.done === true) {
        await this.think(this.thoughtHalves.flush());
        await this.say(this.halves.flush());
        return this.streamEnded(next.value);
      }
      await this.take(next.value);
      if (this.isTooLong()) {
        await deltas.return(TOO_LONG_ENDING);
        this.usageIsWhole = false;
        this.finishReason = TOO_LONG_ENDING.finishReason;
        return { kind: "length", code: null, outcome: "success", ...NO_CALLS };
      }
    }
  }

  private async take(delta: ChatDelta): Promise<void> {
    if (delta.kind !== "usage") this.firstTokenMs ??= this.elapsedMs();
    switch (delta.kind) {
      case "text":
        await this.say(this.halves.push(delta.text));
        return;
      case "reasoning":
        await this.think(this.thoughtHalves.push(delta.text));
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

  private async think(reasoning: string): Promise<void> {
    for (const content of pieces(reasoning, FRAME_CHARS_MAX)) {
      if (this.reasoningBytes < TURN_REASONING_BYTES_MAX) {
        this.reasoning += content;
        this.reasoningBytes += utf8Bytes(content);
      }
      await this.recorder.say({ type: "reasoning", content });
    }
  }

  private async say(text: string): Promise<void> {
    for (const content of pieces(text, FRAME_CHARS_MAX)) {
      // What is said is stored: a message that is full says no more.
      if (this.isTooLong()) return;
      this.text += content;
      this.textBytes += utf8Bytes(content);
      await this.recorder.say({ type: "content", content });
    }
  }

  private isTooLong(): boolean {
    return (
      this.textBytes >= TURN_TEXT_BYTES_MAX ||
      this.tools.inputBytes >= TURN_CALLS_BYTES_MAX ||
      this.recorder.saidBytes >= TURN_FRAMES_BYTES_MAX
    );
  }

  private leftMs(): number {
    return this.start.totalTimeoutMs - this.elapsedMs();
  }

  private elapsedMs(): number {
    return this.ports.now() - this.startedAtMs;
  }

  private streamEnded(ending: ChatEnding): Answered {
    if (ending.usage === null) this.usageIsWhole = false;
    else this.usage = addUsage(this.usage, ending.usage);
    this.model = ending.model ?? this.model;
    this.finishReason = ending.finishReason;
    const { kind, code, outcome, state, toolCalls } = ending;
    return { kind, code, outcome, state, toolCalls };
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
      usage: this.usageSoFar(),
      outcome: ended.outcome,
      visible: this.firstTokenMs !== null,
      latencyMs: this.startedAtMs + (this.firstTokenMs ?? this.elapsedMs()) - this.routeAtMs,
    };
  }

  private usageSoFar(): TurnUsage {
    const prompt = this.messages.reduce((sum, { content }) => sum + (content?.length ?? 0), 0);
    return usageOf(
      { usage: this.usage, isWhole: this.usageIsWhole },
      {
        promptChars: this.firstTokenMs === null ? 0 : prompt,
        saidChars: this.textBytes + this.reasoning.length,
      },
    );
  }

  private closingEvents(ended: Ended, result: TurnResult): ChatEvent[] {
    const terminal = terminalOf(ended, this.finishReason);
    if (!result.visible) return [terminal];
    const { usage } = result;
    return [
      {
        type: "usage",
        usage: usageCounts(usage),
        estimated: usage.estimated,
        metrics: {
          latencyMs: this.elapsedMs(),
          ttftMs: this.firstTokenMs,
          modelId: result.modelId,
          finishReason: ended.kind,
        },
      },
      terminal,
    ];
  }

  /**
   * Settles first, then tells: a client that saw the end finds it in the tables. Of a turn that
   * someone else has ended it says nothing: another end is stored, and a client that resumes gets it.
   */
  private async close(
    left: { readonly firstFrameId: number; readonly frames: readonly string[] },
    closing: readonly ChatEvent[],
    result: TurnResult,
  ): Promise<void> {
    const data = closing.map(frameData);
    if (this.lost) return;
    const { firstFrameId, frames } = left;
    const settled = await this.ports.settle(firstFrameId, [...frames, ...data], result);
    if (settled === "elsewhere") return;
    const firstId = firstFrameId + frames.length;
    for (const [i, frame] of data.entries())
      this.ports.send(encodeFrame(frame, settled === "now" ? firstId + i : null));
  }
}
