/**
 * What a provider wants back with the tool results of its answer: reasoning in the form in which it
 * came, encrypted or signed. Without it some models refuse the next request of the turn.
 * Source: OpenRouter, "Reasoning Tokens", section "Preserving Reasoning".
 */
import { KIB } from "../core/bytes";
import type { ProviderState } from "./chat";
import { asArray, asObject, asText, type Json } from "./json";

/** Characters of all state of one answer as JSON. More is not kept at all: half of it is refused. */
export const STATE_CHARS_MAX = 256 * KIB;

/** Texts of a detail that come in pieces; everything else of a detail comes once. */
const IN_PIECES = ["text", "summary"] as const;

export class StateParts {
  private readonly details: Json[] = [];
  private readonly plain = { reasoning: "", reasoning_content: "" };
  private chars = 0;

  /** Takes what a delta brings of it. */
  push(delta: Json | null): void {
    for (const field of ["reasoning", "reasoning_content"] as const) {
      const piece = asText(delta?.[field]);
      if (piece === null) continue;
      this.chars += piece.length;
      if (this.fits()) this.plain[field] += piece;
    }
    for (const value of asArray(delta?.["reasoning_details"])) {
      const detail = asObject(value);
      if (detail === null) continue;
      this.chars += JSON.stringify(detail).length;
      if (this.fits()) this.addDetail(detail);
    }
  }

  /** All of it, in the fields in which it came; null where there is none or too much. */
  whole(): ProviderState | null {
    if (!this.fits()) return null;
    if (this.details.length > 0) return { reasoning_details: this.details };
    const { reasoning, reasoning_content: content } = this.plain;
    if (content !== "") return { reasoning_content: content };
    return reasoning === "" ? null : { reasoning };
  }

  private fits(): boolean {
    return this.chars <= STATE_CHARS_MAX;
  }

  /** Pieces of one text are joined, as the signature that follows covers the whole of it. */
  private addDetail(detail: Json): void {
    const last = this.details.at(-1);
    const field = IN_PIECES.find((name) => typeof detail[name] === "string");
    if (last === undefined || field === undefined || !isSameText(last, detail, field)) {
      this.details.push(detail);
      return;
    }
    const known = Object.entries(detail).filter(([, value]) => value !== null);
    const joined = `${asText(last[field]) ?? ""}${asText(detail[field]) ?? ""}`;
    this.details[this.details.length - 1] = {
      ...last,
      ...Object.fromEntries(known),
      [field]: joined,
    };
  }
}

/** Whether a piece goes on with the text of the detail before it. */
function isSameText(last: Json, next: Json, field: (typeof IN_PIECES)[number]): boolean {
  return (
    typeof last[field] === "string" &&
    last["type"] === next["type"] &&
    last["index"] === next["index"] &&
    // A signature closes a text: what follows begins another.
    asText(last["signature"]) === null
  );
}
