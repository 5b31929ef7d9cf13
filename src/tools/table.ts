/**
 * The tools a model may call: one row each, data only, so that queries and mutations may import
 * it. Arguments are in definitions.ts, the work in a file per tool.
 */
import type { NumberKnob, TextKnobName } from "../config/knobs";
import type { ProviderId } from "../providers/table";

/** From the most favoured to the least; none ever starves. */
export type QosClass = "realtime" | "interactive" | "batch";

/** Lottery weight of each class when a slot is handed over. */
export const QOS_WEIGHT_KNOBS = {
  realtime: "TOOL_JOB_RUNMAX_QOS_REALTIME",
  interactive: "TOOL_JOB_RUNMAX_QOS_INTERACTIVE",
  batch: "TOOL_JOB_RUNMAX_QOS_BATCH",
} as const satisfies Record<QosClass, NumberKnob>;

interface ToolCachePolicy {
  /** Namespace is prefix and version; a new version leaves the old entries to expire unread. */
  readonly prefix: string;
  readonly version: { readonly knob: TextKnobName } | { readonly value: string };
  readonly ttlKnob: NumberKnob;
}

interface ToolQueuePolicy {
  readonly qos: QosClass;
  /** Most jobs of this tool that run at once. */
  readonly runMaxKnob: NumberKnob;
  /** Most jobs of this tool that wait. */
  readonly queueMaxKnob: NumberKnob;
}

export interface ToolRow {
  readonly title: string;
  /** Offered always, or only in turns that ask for web search. */
  readonly offered: "always" | "with_web_search";
  /** Calls in one turn; past it the model is told to answer with what it has. */
  readonly turnMax: number;
  /** Sources asked, in the order in which their results come; none for a local tool. */
  readonly providers: readonly ProviderId[];
  readonly cache: ToolCachePolicy | null;
  readonly queue: ToolQueuePolicy | null;
  /** What the model reads instead of a result when every source failed or the queue is full. */
  readonly degraded: string;
}

export const TOOLS = {
  search_web: {
    title: "Web search",
    offered: "with_web_search",
    turnMax: 2,
    providers: ["serper_search"],
    cache: {
      prefix: "search_web",
      version: { knob: "TOOL_CACHE_WEB_SEARCH_NAMESPACE_VERSION" },
      ttlKnob: "TOOL_CACHE_WEB_SEARCH_TTL_MS",
    },
    queue: {
      qos: "realtime",
      runMaxKnob: "TOOL_JOB_RUNMAX_WEB",
      queueMaxKnob: "TOOL_JOB_QMAX_WEB",
    },
    degraded:
      "Web search is unavailable right now, so nothing was searched. Say so, and answer from what you know, without presenting it as current.",
  },
  search_products: {
    title: "Product search",
    offered: "always",
    turnMax: 2,
    providers: ["ebay_search", "global_search"],
    cache: {
      prefix: "search_products",
      version: { knob: "TOOL_CACHE_PRODUCTS_NS_VER" },
      ttlKnob: "TOOL_CACHE_PRODUCT_SEARCH_TTL_MS",
    },
    queue: {
      qos: "interactive",
      runMaxKnob: "TOOL_JOB_RUNMAX_PROD",
      queueMaxKnob: "TOOL_JOB_QMAX_PROD",
    },
    degraded:
      "Product search is unavailable right now, so nothing was searched. Say so, and do not invent products or prices.",
  },
  search_global: {
    title: "Search of shops worldwide",
    offered: "always",
    turnMax: 2,
    providers: ["global_search"],
    cache: {
      prefix: "search_global",
      version: { value: "v1" },
      ttlKnob: "TOOL_CACHE_PRODUCT_SEARCH_TTL_MS",
    },
    queue: {
      qos: "batch",
      runMaxKnob: "TOOL_JOB_RUNMAX_GLOB",
      queueMaxKnob: "TOOL_JOB_QMAX_GLOB",
    },
    degraded:
      "The search of shops worldwide is unavailable right now, so nothing was searched. Say so, and do not invent products or prices.",
  },
  get_current_time: {
    title: "Current time",
    offered: "always",
    turnMax: 1,
    providers: [],
    cache: null,
    queue: null,
    degraded: "The current time is unavailable. Say so.",
  },
} as const satisfies Record<string, ToolRow>;

export type ToolId = keyof typeof TOOLS;

/** Tools whose work goes through the cache and the job queue. */
export type QueuedToolId = {
  [Id in ToolId]: (typeof TOOLS)[Id]["queue"] extends null ? never : Id;
}[ToolId];

export const TOOL_IDS = Object.keys(TOOLS) as readonly ToolId[];

/** The row of a tool, typed as any row. */
export function toolRow(id: ToolId): ToolRow {
  return TOOLS[id];
}

/** The tools that a turn offers: some only where it asks for web search. */
export function offeredToolIds(turn: { readonly webSearch: boolean }): readonly ToolId[] {
  return TOOL_IDS.filter((id) => turn.webSearch || toolRow(id).offered === "always");
}

/** Whether a name, such as a model may invent, is a tool of ours. */
export function isToolId(name: string): name is ToolId {
  return Object.hasOwn(TOOLS, name);
}
