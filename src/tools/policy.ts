/** The policies of the tool table with an environment's values. */
import type { Env } from "../config/env";
import { readKnob } from "../config/read";
import type { StaleWindows } from "../core/freshness";
import { QOS_WEIGHT_KNOBS, type QosClass, type ToolId, toolRow } from "./table";

export interface CachePolicy {
  /** Such as `search_web_v1`. */
  readonly namespace: string;
  readonly ttlMs: number;
}

export interface QueuePolicy {
  readonly qos: QosClass;
  readonly weight: number;
  readonly runMax: number;
  readonly queueMax: number;
}

/** Where and how long a tool's results are kept; null for a tool that keeps none. */
export function cachePolicy(env: Env, id: ToolId): CachePolicy | null {
  const { cache } = toolRow(id);
  if (cache === null) return null;
  const version =
    "value" in cache.version ? cache.version.value : readKnob(env, cache.version.knob);
  return { namespace: `${cache.prefix}_${version}`, ttlMs: readKnob(env, cache.ttlKnob) };
}

/** How long results are good for something after they were fresh. */
export function cacheWindows(env: Env): StaleWindows {
  return {
    revalidateMs: readKnob(env, "TOOL_CACHE_REVALIDATE_MS"),
    onErrorMs: readKnob(env, "TOOL_CACHE_STALE_ON_ERROR_MS"),
  };
}

/** How a tool's jobs queue; null for a tool that runs in place. */
export function queuePolicy(env: Env, id: ToolId): QueuePolicy | null {
  const { queue } = toolRow(id);
  if (queue === null) return null;
  return {
    qos: queue.qos,
    weight: readKnob(env, QOS_WEIGHT_KNOBS[queue.qos]),
    runMax: readKnob(env, queue.runMaxKnob),
    queueMax: readKnob(env, queue.queueMaxKnob),
  };
}
