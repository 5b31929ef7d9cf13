/** What callers of the job queue may ask for. */
import { DAY } from "../../src/core/time";
import { AppError } from "../../src/errors/appError";
import { queueOf, type ToolQueue } from "./toolJobRows";

/** Largest arguments of a job, in characters. */
const ARGS_CHARS_MAX = 16 * 1024;
const WORK_KEY_CHARS_MAX = 1_024;
/** How long a dead letter may be put off. */
const DEFER_MAX_MS = 365 * DAY;

const refuse = (detail: string): AppError => new AppError("invalid_request", { detail });

interface Wanted {
  readonly argsJson: string;
  readonly workKey?: string;
}

/** The queue of a tool. Throws `invalid_request` where it, or what it is to do, is none. */
export function queueFor(
  toolName: string,
  jobs: readonly Wanted[],
  deadlineMs: number | undefined,
): ToolQueue {
  const queue = queueOf(toolName);
  if (queue === null) throw refuse("This tool does not queue.");
  for (const job of jobs) checkJob(job);
  if (deadlineMs !== undefined && !(deadlineMs > 0 && Number.isFinite(deadlineMs)))
    throw refuse("The deadline has passed.");
  return queue;
}

function checkJob({ argsJson, workKey }: Wanted): void {
  if (argsJson.length > ARGS_CHARS_MAX) throw refuse("The arguments are too large.");
  if (!isJson(argsJson)) throw refuse("The arguments are not JSON.");
  if (workKey !== undefined && (workKey === "" || workKey.length > WORK_KEY_CHARS_MAX))
    throw refuse(`A work key has 1 to ${WORK_KEY_CHARS_MAX} characters.`);
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** Until when a dead letter is put off. Throws `invalid_request` without a time or a reason. */
export function deferredUntil(
  wanted: { readonly untilMs?: number; readonly delayMs?: number; readonly reason: string },
  nowMs: number,
): number {
  const { delayMs = Number.NaN, reason, untilMs = nowMs + delayMs } = wanted;
  if (Number.isNaN(untilMs)) throw refuse("Give untilMs or delayMs.");
  if (untilMs - nowMs > DEFER_MAX_MS) throw refuse("That is more than a year away.");
  if (reason.trim() === "") throw refuse("Give a reason.");
  return Math.max(nowMs, untilMs);
}

/** Throws `invalid_request` for what is no number of things. */
export function checkCount(count: number): void {
  if (!Number.isInteger(count) || count < 1) throw refuse("The limit is a whole number from 1 on.");
}
