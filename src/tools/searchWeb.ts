import { searchSerper } from "../providers/serper";
import type { WebSearchArgs } from "./arguments";
import { type ToolDeps, type ToolResult, toolResult } from "./result";

/** Longest short answer passed on, in characters; one beyond that is no short answer. */
const ANSWER_CHARS_MAX = 4096;

/** Searches the web. Throws an `AppError` when the search failed. */
export async function runSearchWeb(args: WebSearchArgs, deps: ToolDeps): Promise<ToolResult> {
  const { answer, results } = await searchSerper(
    deps.gate,
    { ...args, ...deadlineOf(deps) },
    deps.io,
  );
  const shown = answer !== null && answer.length <= ANSWER_CHARS_MAX ? answer : null;
  return toolResult({
    head: { query: args.query, ...(shown === null ? {} : { answer: shown }) },
    results,
    missing: [],
    answered: shown !== null,
  });
}

function deadlineOf(deps: ToolDeps): { deadlineAtMs?: number } {
  return deps.deadlineAtMs === undefined ? {} : { deadlineAtMs: deps.deadlineAtMs };
}
