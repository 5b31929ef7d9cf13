import { utf8Bytes } from "../../core/bytes";
import { wellFormed } from "../../core/wellFormed";
import type { ChatDelta, ChatMessage, ProviderState, ToolCall } from "../../providers/chat";
import { type CacheUse, sumUse } from "../../tools/cacheUse";
import type { Backpressure } from "../../tools/jobClient";
import { isToolId, toolRow } from "../../tools/table";
import { inputEvent, NOT_RUN, notRunEvents, outputEvent } from "./callEvents";
import type { CallIds } from "./callIds";
import type { ChatEvent } from "./events";
import { sentCalls } from "./sentCalls";
import { WholeCharacters } from "./wholeCharacters";

/** What became of one tool call. */
export type ToolOutcome = {
  /** What the model reads. */
  readonly text: string;
  /** Absent where no cache was looked into. */
  readonly cacheUse?: CacheUse;
} & (
  | { readonly kind: "result"; readonly degraded: boolean }
  | { readonly kind: "failed" }
  | ({ readonly kind: "backpressure" } & Backpressure)
);

/** What a tool call may take of the turn's time. */
export interface ToolBounds {
  readonly signal: AbortSignal;
  /** Epoch milliseconds. */
  readonly deadlineAtMs: number;
}

interface ToolPorts {
  readonly say: (event: ChatEvent) => Promise<void>;
  readonly runTool: (call: ToolCall, bounds: ToolBounds) => Promise<ToolOutcome>;
  readonly bounds: ToolBounds;
  /** The tools that this turn offers: no other one runs. */
  readonly offered: ReadonlySet<string>;
  readonly ids: CallIds;
}

type InputDelta = Extract<ChatDelta, { kind: "tool_call_start" | "tool_call_delta" }>;

/** One answer of the model that called tools. */
export interface CallingAnswer {
  readonly toolCalls: readonly ToolCall[];
  /** What it said beside the calls. */
  readonly text: string;
  readonly state: ProviderState | null;
}

/** A call that was shown and has not been ended yet. */
interface OpenCall {
  /** The provider's own id, by which its state may name the call. */
  readonly providerId: string;
  readonly id: string;
  readonly sentId: string;
  readonly name: string;
  argumentsText: string;
  /** Joins characters that came in two parts: no frame may hold half of one. */
  readonly halves: WholeCharacters;
  /** How much of the arguments has been told. */
  toldChars: number;
  isInputShown: boolean;
}

/** Arguments up to so long are told part by part. */
const TOLD_EACH_CHARS = 1_024;
/** Longer ones are told by sixteenths: each event repeats all of them. */
const TOLD_SHARE = 16;
/** What a call costs its message beside its own texts. */
const CALL_BYTES = 512;
/** Calls of tools that there are not, after which the turn goes on without tools. */
const UNKNOWN_MAX = 3;

/** The tool calls of one turn: their events, limits and results. Each is shown once, and ended. */
export class ToolTurn {
  private readonly ports: ToolPorts;
  private readonly used = new Map<string, number>();
  /** Calls of the answer at hand by their place in it. */
  private readonly open = new Map<number, OpenCall>();
  readonly calls: { id: string; name: string; arguments: string }[] = [];
  readonly results: { toolCallId: string; name: string; content: string }[] = [];
  /** What the cache was to the calls, by namespace. */
  cacheUse: CacheUse[] = [];
  /** True once a tool was asked for more often than a turn may: no more tools after that. */
  limitReached = false;
  /** Bytes that all calls of the turn take in its message. */
  inputBytes = 0;
  private unknown = 0;

  constructor(ports: ToolPorts) {
    this.ports = ports;
  }

  /** Passes on a tool call as the model writes it. */
  async input(delta: InputDelta): Promise<void> {
    if (delta.kind === "tool_call_start") {
      await this.begin(delta);
      return;
    }
    const call = this.open.get(delta.index);
    if (call === undefined) return;
    this.inputBytes += utf8Bytes(delta.argumentsText);
    call.argumentsText += call.halves.push(delta.argumentsText);
    const { length } = call.argumentsText;
    const isDue = length <= TOLD_EACH_CHARS || length - call.toldChars >= length / TOLD_SHARE;
    if (isDue) await this.tell(call);
  }

  /** Tells what was added to the arguments of a call since the last time. */
  private async tell(call: OpenCall): Promise<void> {
    const inputTextDelta = call.argumentsText.slice(call.toldChars);
    if (inputTextDelta === "") return;
    call.toldChars = call.argumentsText.length;
    await this.ports.say({
      type: "tool-input-delta",
      toolCallId: call.id,
      inputTextDelta,
      argsSnapshot: call.argumentsText,
    });
  }

  /** Runs the calls of one answer side by side; returns what the model is told of them. */
  async run({ state, text, toolCalls }: CallingAnswer): Promise<ChatMessage[]> {
    const begun = [];
    for (const call of toolCalls)
      begun.push({ call, shown: this.open.get(call.index) ?? (await this.begin(call)) });
    const outcomes = await Promise.all(
      begun.map(async ({ call, shown }) => await this.runOne({ ...call, id: shown.id }, shown)),
    );
    const told = begun.map(({ call, shown: { id, sentId } }, i) => {
      const { argumentsText, extra, name } = call;
      const result = outcomes[i]?.text ?? "";
      this.record({ id, name, argumentsText }, result);
      const own = extra === undefined ? {} : { extra };
      return { id: sentId, name, argumentsText, result, ...own };
    });
    const renamed = new Map<string, string>();
    // Of two calls with one id it is the first that state names: it kept the id.
    for (const { shown } of begun)
      if (!renamed.has(shown.providerId)) renamed.set(shown.providerId, shown.sentId);
    return sentCalls(text, told, withIds(state, renamed));
  }

  /** Ends the calls that were shown and will not run: their answer ended before them. */
  async closeOpen(): Promise<void> {
    for (const call of this.open.values()) {
      this.record(call, NOT_RUN);
      if (!call.isInputShown) await this.tell(call);
      for (const event of notRunEvents(call, call.isInputShown)) await this.ports.say(event);
    }
    this.open.clear();
  }

  private async begin({ id: providerId, index, name }: BegunCall): Promise<OpenCall> {
    const ids = this.ports.ids.take(providerId);
    const call: OpenCall = {
      ...ids,
      providerId,
      name,
      argumentsText: "",
      halves: new WholeCharacters(),
      toldChars: 0,
      isInputShown: false,
    };
    const { id } = call;
    this.inputBytes += CALL_BYTES + utf8Bytes(id) + utf8Bytes(name);
    this.open.set(index, call);
    const started = { toolCallId: id, toolName: name, state: "streaming" } as const;
    await this.ports.say({ type: "tool-input-start", ...started });
    return call;
  }

  private async runOne(call: ToolCall, shown: OpenCall): Promise<ToolOutcome> {
    await this.tell(shown);
    shown.isInputShown = true;
    await this.ports.say(inputEvent(call));
    const outcome = this.refusalOf(call) ?? (await this.ports.runTool(call, this.ports.bounds));
    if (outcome.cacheUse !== undefined) this.cacheUse = sumUse(this.cacheUse, [outcome.cacheUse]);
    if (outcome.kind === "backpressure")
      await this.ports.say({
        type: "tool-backpressure",
        toolName: call.name,
        reason: outcome.reason,
        retryable: true,
        retryAfterMs: outcome.retryAfterMs,
      });
    this.open.delete(call.index);
    const { text } = outcome;
    const degraded = outcome.kind === "result" ? outcome.degraded : true;
    await this.ports.say(outputEvent(call, { text, degraded }));
    return outcome;
  }

  /** Keeps a call and its result for the message. The text of the arguments is for display. */
  private record(
    { argumentsText, id, name }: Pick<ToolCall, "id" | "name" | "argumentsText">,
    result: string,
  ): void {
    this.calls.push({ id, name, arguments: wellFormed(argumentsText) });
    this.results.push({ toolCallId: id, name, content: wellFormed(result) });
  }

  /** Calls that are answered without running anything. */
  private refusalOf({ name, arguments: args }: ToolCall): ToolOutcome | null {
    // A model may call what it was told of earlier in the thread, or makes up.
    if (!isToolId(name) || !this.ports.offered.has(name)) {
      this.unknown += 1;
      this.limitReached ||= this.unknown > UNKNOWN_MAX;
      return failed("There is no tool of this name.");
    }
    const used = (this.used.get(name) ?? 0) + 1;
    this.used.set(name, used);
    const { turnMax } = toolRow(name);
    if (used > turnMax) {
      this.limitReached = true;
      return failed("This tool has been used up for this answer. Answer with what you have.");
    }
    return args === null ? failed("The arguments were not a JSON object.") : null;
  }
}

type BegunCall = Pick<ToolCall, "index" | "id" | "name">;

/** State that names calls by their ids names them by those that they are sent back under. */
function withIds(
  state: ProviderState | null,
  ids: ReadonlyMap<string, string>,
): ProviderState | null {
  const details = state?.reasoning_details?.map((detail) => {
    const id = typeof detail["id"] === "string" ? ids.get(detail["id"]) : undefined;
    return id === undefined ? detail : { ...detail, id };
  });
  return details === undefined ? state : { ...state, reasoning_details: details };
}

const failed = (text: string): ToolOutcome => ({ kind: "failed", text });
