/**
 * What a provider wants back with the tool results of its answer: reasoning in the form in which it
 * came, encrypted or signed. Without it some models refuse the next request of the turn.
 * Source: OpenRouter, "Reasoning Tokens", section "Preserving Reasoning".
 */
import { KIB } from "../core/bytes";
import { deepWellFormed } from "../core/wellFormed";
import type { ProviderState } from "./chat";
import { asArray, asObject, asText, type Json } from "./json";

/** Characters of all state of one answer as JSON. More is not kept at all: half of it is refused. */
export const STATE_CHARS_MAX = 256 * KIB;

/** Texts of a detail that come in pieces; everything else of a detail comes once. */
const IN_PIECES = ["text", "summary"] as const;

export class StateParts {
  private readonly details: Json[] = [];
  private readonly plain = { reasoning: "", reasoning_content: "" };
  /** Characters of the details as they are now, joined. */
  private chars = 0;

  /** Takes what a delta brings of it. */
  push(delta: Json | null): void {
    for (const field of ["reasoning", "reasoning_content"] as const)
      // One more than the bound says that there was more, whatever follows.
      if (this.plain[field].length <= STATE_CHARS_MAX)
        this.plain[field] += asText(delta?.[field]) ?? "";
    const details = delta?.["reasoning_details"];
    const single = asObject(details);
    for (const value of single === null ? asArray(details) : [single]) {
      const detail = asObject(value);
      if (detail !== null && this.chars <= STATE_CHARS_MAX) this.take(detail);
    }
  }

  /** All of it, in the fields in which it came; null where there is none or too much. */
  whole(): ProviderState | null {
    if (this.details.length > 0)
      return this.chars > STATE_CHARS_MAX
        ? null
        : deepWellFormed({ reasoning_details: this.details });
    const { reasoning, reasoning_content: content } = this.plain;
    const text = content === "" ? reasoning : content;
    if (text === "" || text.length > STATE_CHARS_MAX) return null;
    return deepWellFormed(content === "" ? { reasoning } : { reasoning_content: content });
  }

  /** Pieces of one text are joined, as the signature that follows covers the whole of it. */
  private take(detail: Json): void {
    const at = this.details.findLastIndex((known) => known["index"] === detail["index"]);
    const known = this.details[at];
    if (known === undefined || !continues(known, detail)) {
      this.chars += JSON.stringify(detail).length;
      this.details.push(detail);
      return;
    }
    const said = Object.fromEntries(Object.entries(detail).filter(([, value]) => value !== null));
    const joined = { ...known, ...said };
    for (const field of IN_PIECES)
      if (typeof known[field] === "string" || typeof detail[field] === "string")
        joined[field] = `${asText(known[field]) ?? ""}${asText(detail[field]) ?? ""}`;
    this.chars += lengthOf(detail) + newFields(known, said);
    this.details[at] = joined;
  }
}

/** Whether a detail goes on with the text of one before it, or signs it. */
function continues(known: Json, next: Json): boolean {
  const isText = IN_PIECES.some((field) => typeof known[field] === "string");
  const type = asText(next["type"]);
  const ids = [asText(known["id"]), asText(next["id"])];
  return (
    isText &&
    // A signature closes a text: what follows begins another.
    asText(known["signature"]) === null &&
    next["data"] === undefined &&
    (type === null || type === known["type"]) &&
    (ids[0] === null || ids[1] === null || ids[0] === ids[1])
  );
}

const lengthOf = (detail: Json): number =>
  IN_PIECES.reduce((sum, field) => sum + (asText(detail[field])?.length ?? 0), 0);

/** Characters of the fields that a piece adds or changes, beside its text. */
function newFields(known: Json, said: Json): number {
  const added = Object.entries(said).filter(
    ([field, value]) => !IN_PIECES.some((one) => one === field) && known[field] !== value,
  );
  return added.length === 0 ? 0 : JSON.stringify(Object.fromEntries(added)).length;
}
