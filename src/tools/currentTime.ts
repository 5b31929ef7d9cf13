import type { CurrentTimeArgs } from "./arguments";
import type { ToolResult } from "./result";

/** The time in a zone, in ISO form and in words; `nowMs` is the moment. */
export function runCurrentTime({ timeZone }: CurrentTimeArgs, nowMs: number): ToolResult {
  const now = new Date(nowMs);
  const words = new Intl.DateTimeFormat("en-US", {
    timeZone,
    dateStyle: "full",
    timeStyle: "long",
  });
  const value = { timeZone, local: words.format(now), utc: now.toISOString() };
  return { kind: "complete", value: JSON.stringify(value), missing: [] };
}
