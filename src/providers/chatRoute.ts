/** A chat stream on one route: address, key, times and retries as the provider's row says. */
import type { Env } from "../config/env";
import { fullJitterMs } from "../core/backoff";
import { AppError, type ErrorData, errorData } from "../errors/appError";
import type { ChatDelta, ChatEnding, ChatMessage, ToolDefinition } from "./chat";
import type { Io } from "./io";
import { type ChatLimits, type ChatParams, openChatStream } from "./openrouter";
import { codeOutcome } from "./outcome";
import { readBaseUrl, readSecrets, readSetting } from "./settings";
import { type ProviderId, type ProviderRow, providerRow } from "./table";

export interface ChatRequest {
  readonly provider: ProviderId;
  readonly model: string;
  readonly messages: readonly ChatMessage[];
  readonly tools?: readonly ToolDefinition[];
  readonly toolChoice?: "auto" | "none";
  /** Ends the stream as `client_abort`. */
  readonly signal: AbortSignal;
  /** Whole stream; the row's own limit applies too. */
  readonly totalTimeoutMs?: number;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface ChatDeps {
  readonly env: Env;
  readonly io: Io;
  /**
   * Whether the provider's retry budget bears one more call after so many attempts. Asked only when
   * one is wanted and nothing else speaks against it: what it grants is sent.
   */
  readonly mayRetry: (attempts: number) => Promise<boolean>;
}

/**
 * Streams one answer as `openChatStream` does, and tries again what failed before anything of it was
 * heard, in band or not, as often as the route's knob allows and within its deadline. After that
 * there is no second attempt: the answer would begin anew.
 */
export async function* openChatRoute(
  request: ChatRequest,
  deps: ChatDeps,
): AsyncGenerator<ChatDelta, ChatEnding> {
  const { env, io } = deps;
  const row = providerRow(request.provider);
  const params = paramsOf(request, row, env);
  if (row.stream === undefined) throw new AppError("internal_error");
  const idleTimeoutMs = readSetting(env, row.stream.idleMs);
  const totalAtMs =
    io.now() + Math.min(readSetting(env, row.stream.totalMs), request.totalTimeoutMs ?? Infinity);
  const deadlineAtMs = Math.min(totalAtMs, io.now() + readSetting(env, row.deadlineMs));
  for (let attempt = 1; ; attempt++) {
    const remainingMs = deadlineAtMs - io.now();
    // The last attempt there is may take all the time there is.
    const isLast = attempt > readSetting(env, row.retry.retries);
    const firstByteTimeoutMs = isLast ? remainingMs : Math.min(row.attemptMs, remainingMs);
    const totalTimeoutMs = totalAtMs - io.now();
    const limits = {
      signal: request.signal,
      firstByteTimeoutMs,
      idleTimeoutMs,
      totalTimeoutMs,
      io,
    };
    const tried = yield* tryOnce(params, limits);
    const failure = failureOf(tried);
    const delayMs =
      failure === null ? null : await retryDelayMs(failure, attempt, { row, deadlineAtMs, deps });
    if (delayMs === null) {
      if ("error" in tried) throw tried.error;
      return tried.ending;
    }
    await io.sleep(delayMs, request.signal);
  }
}

type Tried = { readonly ending: ChatEnding } | { readonly error: unknown };

async function* tryOnce(params: ChatParams, limits: ChatLimits): AsyncGenerator<ChatDelta, Tried> {
  try {
    return { ending: yield* openChatStream(params, limits) };
  } catch (error) {
    return { error };
  }
}

type Failure = Pick<ErrorData, "code" | "retryAfterMs">;

/** What may be tried again; null for an answer, or for one of which anything was heard. */
function failureOf(tried: Tried): Failure | null {
  if ("error" in tried) return errorData(tried.error);
  const { code, firstTokenMs, usage } = tried.ending;
  return code === null || firstTokenMs !== null || usage !== null ? null : { code };
}

function paramsOf(request: ChatRequest, row: ProviderRow, env: Env): ChatParams {
  const [apiKey] = readSecrets(env, row);
  if (apiKey === undefined) throw new AppError("internal_error");
  const { headers, messages, model, toolChoice, tools } = request;
  return {
    baseUrl: readBaseUrl(env, row),
    apiKey,
    model,
    messages,
    ...(tools === undefined ? {} : { tools }),
    ...(toolChoice === undefined ? {} : { toolChoice }),
    ...(headers === undefined ? {} : { headers }),
  };
}

interface RetryFrame {
  readonly row: ProviderRow;
  readonly deadlineAtMs: number;
  readonly deps: ChatDeps;
}

/** How long to wait before the next attempt; null when there is none. */
async function retryDelayMs(
  { code, retryAfterMs = 0 }: Failure,
  attempt: number,
  { row, deadlineAtMs, deps }: RetryFrame,
): Promise<number | null> {
  const { baseMs, capMs, retries } = row.retry;
  if (codeOutcome(code) !== "failure" || attempt > readSetting(deps.env, retries)) return null;
  // Never earlier than the provider asked for; the jitter comes on top.
  const delayMs = retryAfterMs + fullJitterMs({ attempt, baseMs, capMs, random: deps.io.random });
  if (deps.io.now() + delayMs >= deadlineAtMs) return null;
  return (await isGranted(deps, attempt)) ? delayMs : null;
}

/** A budget that cannot be asked grants nothing; the failure stays the provider's. */
async function isGranted({ mayRetry }: ChatDeps, attempts: number): Promise<boolean> {
  try {
    return await mayRetry(attempts);
  } catch {
    return false;
  }
}
