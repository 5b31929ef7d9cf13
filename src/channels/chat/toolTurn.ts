import type { ChatMessage, ToolCall } from "../../providers/chat";
import { type CacheUse, sumUse } from "../../tools/cacheUse";
import type { Backpressure } from "../../tools/jobClient";
import { isToolId, toolRow } from "../../tools/table";
import type { ChatEvent } from "./events";
import { wellFormed } from "./wholeCharacters";

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
}

type InputDelta =
  | { readonly kind: "tool_call_start"; readonly id: string; readonly name: string }
  | { readonly kind: "tool_call_delta"; readonly id: string; readonly argumentsText: string };

/** The tool calls of one turn: their events, limits and results. */
export class ToolTurn {
  private readonly ports: ToolPorts;
  private readonly used = new Map<string, number>();
  private readonly snapshots = new Map<string, string>();
  readonly calls: { id: string; name: string; arguments: string }[] = [];
  readonly results: { toolCallId: string; name: string; content: string }[] = [];
  /** What the cache was to the calls, by namespace. */
  cacheUse: CacheUse[] = [];
  /** True once a tool was asked for more often than a turn may: no more tools after that. */
  limitReached = false;
  /** Characters of all arguments that the model wrote. */
  inputChars = 0;

  constructor(ports: ToolPorts) {
    this.ports = ports;
  }

  /** Passes on a tool call as the model writes it. */
  async input(delta: InputDelta): Promise<void> {
    const toolCallId = delta.id;
    if (delta.kind === "tool_call_start") {
      this.snapshots.set(toolCallId, "");
      await this.ports.say({
        type: "tool-input-start",
        toolCallId,
        toolName: delta.name,
        state: "streaming",
      });
      return;
    }
    const argsSnapshot = (this.snapshots.get(toolCallId) ?? "") + delta.argumentsText;
    this.snapshots.set(toolCallId, argsSnapshot);
    const inputTextDelta = delta.argumentsText;
    this.inputChars += inputTextDelta.length;
    await this.ports.say({ type: "tool-input-delta", toolCallId, inputTextDelta, argsSnapshot });
  }

  /** Runs the calls of one answer side by side; returns what the model is told of them. */
  async run(toolCalls: readonly ToolCall[]): Promise<ChatMessage[]> {
    const outcomes = await Promise.all(toolCalls.map(async (call) => await this.runOne(call)));
    const told: ChatMessage[] = [
      {
        role: "assistant",
        content: null,
        tool_calls: toolCalls.map(({ id, name, argumentsText }) => ({
          id,
          type: "function",
          function: { name, arguments: argumentsText },
        })),
      },
    ];
    for (const [i, { id, name, argumentsText }] of toolCalls.entries()) {
      const content = outcomes[i]?.text ?? "";
      this.calls.push({ id, name, arguments: wellFormed(argumentsText) });
      this.results.push({ toolCallId: id, name, content });
      told.push({ role: "tool", tool_call_id: id, content });
    }
    return told;
  }

  private async runOne(call: ToolCall): Promise<ToolOutcome> {
    const { id: toolCallId, name: toolName } = call;
    const input = call.arguments ?? call.argumentsText;
    await this.ports.say({
      type: "tool-input-available",
      toolCallId,
      toolName,
      input,
      state: "completed",
    });
    const outcome = this.refusalOf(call) ?? (await this.ports.runTool(call, this.ports.bounds));
    if (outcome.cacheUse !== undefined) this.cacheUse = sumUse(this.cacheUse, [outcome.cacheUse]);
    if (outcome.kind === "backpressure")
      await this.ports.say({
        type: "tool-backpressure",
        toolName,
        reason: outcome.reason,
        retryable: true,
        retryAfterMs: outcome.retryAfterMs,
      });
    await this.ports.say({
      type: "tool-output-partially-available",
      toolCallId,
      toolName,
      output: asJson(outcome.text),
      degraded: outcome.kind === "result" ? outcome.degraded : true,
    });
    return outcome;
  }

  /** Calls that are answered without running anything. */
  private refusalOf({ name, arguments: args }: ToolCall): ToolOutcome | null {
    if (!isToolId(name)) return failed("There is no tool of this name.");
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

const failed = (text: string): ToolOutcome => ({ kind: "failed", text });

/** Tool results are JSON texts; what explains a failure is plain text. */
function asJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}
