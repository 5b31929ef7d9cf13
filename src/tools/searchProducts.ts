import { AppError, errorData } from "../errors/appError";
import { searchEbay } from "../providers/ebay";
import type { Product } from "../providers/products";
import { searchShops } from "../providers/serpapi";
import { type ProviderId, providerRow } from "../providers/table";
import type { ProductSearchArgs } from "./arguments";
import { type ToolDeps, type ToolResult, toolResult } from "./result";
import { TOOLS } from "./table";

/**
 * Searches eBay and shops worldwide at once. One source that fails makes a partial result that
 * names it; when both fail this throws: silence of the sources is not an empty market.
 */
export async function runSearchProducts(
  args: ProductSearchArgs,
  deps: ToolDeps,
): Promise<ToolResult> {
  const { deadlineAtMs, gate, io } = deps;
  const search = deadlineAtMs === undefined ? args : { ...args, deadlineAtMs };
  const SOURCES: Record<Source, () => Promise<readonly Product[]>> = {
    ebay_search: async () => await searchEbay(search, deps),
    global_search: async () => await searchShops(gate, { ...search, country: args.location }, io),
  };
  const answers = await Promise.all(
    TOOLS.search_products.providers.map(async (id) => await answerOf(id, SOURCES[id])),
  );
  const failed = answers.filter((answer) => answer.products === null);
  if (failed.length === answers.length) throw worst(failed.map((answer) => answer.error));
  const found = answers.map((answer) => answer.products ?? []);
  return toolResult({
    head: { query: args.query },
    results: interleave(found).slice(0, args.limit),
    missing: failed.map(({ id }) => ({ id, title: providerRow(id).title })),
  });
}

type Source = (typeof TOOLS.search_products.providers)[number];

interface SourceAnswer {
  readonly id: ProviderId;
  /** Null when the source failed. */
  readonly products: readonly Product[] | null;
  readonly error: unknown;
}

async function answerOf(
  id: ProviderId,
  search: () => Promise<readonly Product[]>,
): Promise<SourceAnswer> {
  try {
    return { id, products: await search(), error: null };
  } catch (error) {
    return { id, products: null, error };
  }
}

/** The error worth a retry if there is one: a missing key must not hide a source that is down. */
function worst(errors: readonly unknown[]): AppError {
  const all = errors.map(errorData);
  const { code } = all.find((data) => data.code !== "misconfigured") ?? { code: "misconfigured" };
  const waits = all.flatMap((data) => data.retryAfterMs ?? []);
  return new AppError(code, {
    detail: "No source of product search answered.",
    ...(waits.length === 0 ? {} : { retryAfterMs: Math.min(...waits) }),
  });
}

/** Turn by turn, so that a limit cuts no source off entirely. */
function interleave(lists: readonly (readonly Product[])[]): Product[] {
  const longest = Math.max(0, ...lists.map((list) => list.length));
  return Array.from({ length: longest }, (_, i) => lists.flatMap((list) => list[i] ?? [])).flat();
}
