import { wellFormed } from "../../core/wellFormed";
import { asText, type Json } from "../../providers/json";
import { parseArguments } from "../../providers/toolArguments";
import type { ChatEvent } from "./events";

/** What a call that did not run is answered with: to the frontend, and to the model's next turn. */
export const NOT_RUN = "This call did not run: the answer ended before it was complete.";

export interface ShownCall {
  readonly id: string;
  readonly name: string;
  /** As the model has written them so far. */
  readonly argumentsText: string;
}

/** The event that shows a call's arguments as a whole; a text that is no object is shown as it is. */
export const inputEvent = ({ argumentsText, id, name }: ShownCall): ChatEvent => ({
  type: "tool-input-available",
  toolCallId: id,
  toolName: name,
  input: parseArguments(argumentsText) ?? wellFormed(argumentsText),
  state: "completed",
});

/** The event that ends a call. Results are JSON texts; what explains a failure is plain text. */
export const outputEvent = (
  { id, name }: Pick<ShownCall, "id" | "name">,
  { degraded, text }: { readonly text: string; readonly degraded: boolean },
): ChatEvent => ({
  type: "tool-output-partially-available",
  toolCallId: id,
  toolName: name,
  output: asJson(text),
  degraded,
});

function asJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

/** What ends a call that is shown but will not run. */
export function notRunEvents(call: ShownCall, isInputShown: boolean): ChatEvent[] {
  const ended = outputEvent(call, { text: NOT_RUN, degraded: true });
  return isInputShown ? [ended] : [inputEvent(call), ended];
}

/** A call as its message stores it, with its result. */
interface EndedCall extends ShownCall {
  readonly result: string;
}

/** Follows the calls of a stream through its stored frames, for a stream whose worker died. */
export class StoredCalls {
  private readonly shown = new Map<string, ShownCall & { readonly isInputShown: boolean }>();
  private readonly ended: EndedCall[] = [];

  /** Takes the next event, as it was stored; all but those of calls say nothing here. */
  read(event: Json): void {
    const id = asText(event["toolCallId"]);
    if (id === null) return;
    const call = this.shown.get(id) ?? { id, name: "", argumentsText: "", isInputShown: false };
    switch (event["type"]) {
      case "tool-input-start":
        this.shown.set(id, { ...call, name: asText(event["toolName"]) ?? "" });
        return;
      case "tool-input-delta":
        this.shown.set(id, { ...call, argumentsText: asText(event["argsSnapshot"]) ?? "" });
        return;
      case "tool-input-available":
        this.shown.set(id, { ...call, isInputShown: true });
        return;
      case "tool-output-partially-available": {
        const { output } = event;
        this.end(call, typeof output === "string" ? output : JSON.stringify(output ?? null));
        return;
      }
    }
  }

  /** Ends the calls that are still open; returns the events that say so, and all calls. */
  close(): { readonly events: ChatEvent[]; readonly calls: readonly EndedCall[] } {
    const open = [...this.shown.values()];
    for (const call of open) this.end(call, NOT_RUN);
    const events = open.flatMap((call) => notRunEvents(call, call.isInputShown));
    return { events, calls: this.ended };
  }

  private end({ argumentsText, id, name }: ShownCall, result: string): void {
    this.shown.delete(id);
    this.ended.push({ id, name, argumentsText: wellFormed(argumentsText), result });
  }
}
