/** Tool ids bound to their work. A tool without an executor does not compile. */
import type { ToolArgs } from "./arguments";
import { runCurrentTime } from "./currentTime";
import type { ToolDeps, ToolResult } from "./result";
import { runSearchGlobal } from "./searchGlobal";
import { runSearchProducts } from "./searchProducts";
import { runSearchWeb } from "./searchWeb";
import type { ToolId } from "./table";

type Executor<Id extends ToolId> = (args: ToolArgs[Id], deps: ToolDeps) => Promise<ToolResult>;

const EXECUTORS: { readonly [Id in ToolId]: Executor<Id> } = {
  search_web: runSearchWeb,
  search_products: runSearchProducts,
  search_global: runSearchGlobal,
  get_current_time: async (args, { io }) => runCurrentTime(args, io.now()),
};

/**
 * Runs a tool with normal arguments. Throws an `AppError` when every source failed; the model is
 * then told the row's `degraded` text.
 */
export async function runTool<Id extends ToolId>(
  id: Id,
  args: ToolArgs[Id],
  deps: ToolDeps,
): Promise<ToolResult> {
  return await EXECUTORS[id](args, deps);
}
