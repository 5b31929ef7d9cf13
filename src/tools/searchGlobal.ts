import { searchShops } from "../providers/serpapi";
import type { GlobalSearchArgs } from "./arguments";
import { type ToolDeps, type ToolResult, toolResult } from "./result";

/** Searches shops worldwide. Throws an `AppError` when the search failed. */
export async function runSearchGlobal(args: GlobalSearchArgs, deps: ToolDeps): Promise<ToolResult> {
  const { deadlineAtMs, gate, io } = deps;
  const search = deadlineAtMs === undefined ? args : { ...args, deadlineAtMs };
  const results = await searchShops(gate, search, io);
  return toolResult({ head: { query: args.query }, results, missing: [] });
}
