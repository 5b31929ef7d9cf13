/** What a tool gives back to the model, and how much of it. */
import { KIB, utf8Bytes } from "../core/bytes";
import { DAY, HOUR, MINUTE } from "../core/time";
import type { CallIo, Gate } from "../providers/call";
import type { TokenStore } from "../providers/ebay";
import { asObject, asText, parseJson } from "../providers/json";

export interface ToolDeps {
  readonly gate: Gate;
  readonly io: CallIo;
  readonly tokens: TokenStore;
  /** The turn's or the job's own deadline; each provider's applies too. */
  readonly deadlineAtMs?: number;
}

export interface ToolResult {
  /** Only `complete` may be cached: the others may be better a moment later. */
  readonly kind: "complete" | "partial" | "empty";
  /** JSON text for the model, at most `TOOL_RESULT_BYTES_MAX` bytes of UTF-8. */
  readonly value: string;
  /** Sources that failed, as ids of the provider table. */
  readonly missing: readonly string[];
}

export const TOOL_RESULT_BYTES_MAX = 64 * KIB;

interface Parts {
  /** Fields before the results, such as the query. */
  readonly head: Readonly<Record<string, unknown>>;
  readonly results: readonly unknown[];
  readonly missing: readonly { readonly id: string; readonly title: string }[];
  /** Whether there is something to tell although `results` is empty. */
  readonly answered?: boolean;
}

/** Puts a result together. What does not fit is left out item by item, never cut, and said so. */
export function toolResult({ answered = false, head, missing, results }: Parts): ToolResult {
  const found = results.length > 0 || answered;
  let kept = results.length;
  let value = compose({ head, missing, results, kept, found });
  while (kept > 0 && utf8Bytes(value) > TOOL_RESULT_BYTES_MAX) {
    kept--;
    value = compose({ head, missing, results, kept, found });
  }
  return {
    kind: missing.length > 0 ? "partial" : found ? "complete" : "empty",
    value,
    missing: missing.map((source) => source.id),
  };
}

/** Whether a result may be stored for others to read. */
export function isCacheable(result: ToolResult): boolean {
  return result.kind === "complete";
}

/**
 * A stored result that stands in for one that could not be had, with a note of its age for the
 * model. The note is not counted in the bytes of a result.
 */
export function asOld(value: string, ageMs: number): string {
  const note = `The search could not be repeated just now. These results are from ${ago(ageMs)}; say so.`;
  const result = asObject(parseJson(value));
  if (result === null) return `${value}\n${note}`;
  const known = asText(result["note"]);
  return JSON.stringify({ ...result, note: known === null ? note : `${known} ${note}` });
}

function ago(ageMs: number): string {
  for (const [unitMs, name] of [
    [DAY, "day"],
    [HOUR, "hour"],
    [MINUTE, "minute"],
  ] as const) {
    const count = Math.floor(ageMs / unitMs);
    if (count >= 1) return `${count} ${name}${count === 1 ? "" : "s"} ago`;
  }
  return "less than a minute ago";
}

function compose(parts: Parts & { readonly kept: number; readonly found: boolean }): string {
  const { found, head, kept, missing, results } = parts;
  const notes = missing.map(
    (source) => `${source.title} failed, so its results are missing; this is not all there is.`,
  );
  if (kept < results.length) notes.push(`${results.length - kept} more results were left out.`);
  if (!found && missing.length === 0) notes.push("The search worked and found nothing.");
  return JSON.stringify({
    ...head,
    results: results.slice(0, kept),
    ...(missing.length === 0 ? {} : { missing: missing.map((source) => source.title) }),
    ...(notes.length === 0 ? {} : { note: notes.join(" ") }),
  });
}
