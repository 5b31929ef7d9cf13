/**
 * The one path by which anything is asked of a provider: admission, attempts within a deadline and
 * a budget, one classification, settlement. Runs in actions; what is stored is the gate's.
 */
import { MIB } from "../core/bytes";
import { fullJitterMs } from "../core/backoff";
import { AppError, errorData, isContention } from "../errors/appError";
import type { ErrorCode } from "../errors/table";
import { log } from "../log/log";
import type { Env } from "../config/env";
import type { TextKnobName } from "../config/knobs";
import { ignoreGone, readBounded } from "./body";
import type { Io } from "./io";
import { type Json, asObject, parseJson } from "./json";
import { type Outcome, codeOutcome, retryAfterMs, upstreamError } from "./outcome";
import { readBaseUrl, readSecrets, readSetting } from "./settings";
import { type ProviderId, type ProviderRow, providerRow, statusVerdict } from "./table";

/** Whatever the gate wants back at settlement; opaque here. */
type Permit = unknown;

export type Admission =
  | { readonly ok: true; readonly permit: Permit }
  | { readonly ok: false; readonly code: ErrorCode; readonly retryAfterMs: number };

/** Admission to a provider: breaker, bulkhead and counts. Each method is at most one transaction. */
export interface Gate {
  admit(provider: ProviderId, options: { readonly deadlineAtMs: number }): Promise<Admission>;
  /**
   * Whether the provider's retry budget bears one more call; asked only when one is wanted.
   * `attempts` is how often it was asked under this permit so far.
   */
  mayRetry(permit: Permit, attempts: number): Promise<boolean>;
  settle(permit: Permit, outcome: Outcome): Promise<void>;
  /** Counts an admission that was lost to contention for good. */
  lost?(provider: ProviderId): Promise<void>;
}

export type CallIo = Io & {
  readonly env: Env;
  /** Aborts when nobody wants the answer any more. Blames nobody: the call counts as neutral. */
  readonly signal?: AbortSignal;
};

export interface ProviderRequest<T> {
  readonly provider: ProviderId;
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Which of the provider's addresses; the usual one where absent. */
  readonly baseUrlKnob?: TextKnobName;
  /** Below that address, starting with a slash; empty for the address itself. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /**
   * Whether twice has the effect of once; only then, or with a key, is anything tried again.
   * Default: as HTTP defines the method.
   */
  readonly idempotent?: boolean;
  /** Sent as `Idempotency-Key`. */
  readonly idempotencyKey?: string;
  /** The caller's own deadline; the provider's applies too. */
  readonly deadlineAtMs?: number;
  readonly responseBytesMax?: number;
  /** Statuses other than 2xx that the caller reads itself instead of getting an error. */
  readonly acceptStatuses?: readonly number[];
  /** Reads the answer; null means that it is not what the provider documents. */
  readonly parse: (response: ProviderResponse) => T | null;
}

interface ProviderResponse {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** The body as a JSON object; null where it is something else. */
  readonly json: Json | null;
}

export const RESPONSE_BYTES_MAX = MIB;

/** Methods that HTTP defines as idempotent (RFC 9110, section 9.2.2). */
const IDEMPOTENT_METHODS: readonly string[] = ["GET", "PUT", "DELETE"];

/**
 * Asks a provider and returns what `parse` made of the answer. Throws an `AppError`: of the
 * admission's code when refused, `misconfigured` before anything is asked when a key is missing,
 * else of the upstream codes. No error ever holds the provider's own words.
 */
export async function callProvider<T>(
  gate: Gate,
  request: ProviderRequest<T>,
  io: CallIo,
): Promise<T> {
  const row = providerRow(request.provider);
  readSecrets(io.env, row);
  const url = `${readBaseUrl(io.env, row, request.baseUrlKnob)}${request.path}`;
  const deadlineAtMs = Math.min(
    io.now() + readSetting(io.env, row.deadlineMs),
    request.deadlineAtMs ?? Infinity,
  );
  if (deadlineAtMs <= io.now()) throw outOfTime();
  if (io.signal?.aborted === true) throw unwanted();

  const admission = await admit(gate, request.provider, { deadlineAtMs, io });
  if (!admission.ok) throw new AppError(admission.code, { retryAfterMs: admission.retryAfterMs });

  const { permit } = admission;
  const done = await untilDone({ gate, permit, request, row, url, deadlineAtMs, io });
  await settle(gate, permit, done.outcome, request.provider);
  if (!done.ok) throw done.error;
  return done.value;
}

interface AdmitOptions {
  readonly deadlineAtMs: number;
  readonly io: Pick<Io, "sleep" | "random">;
}

const ADMISSION_RETRY_BASE_MS = 50;

/**
 * An admission lost to contention is tried once more, after a moment. It is our fault and nothing
 * was asked: the error says so and no provider is blamed.
 */
export async function admit(
  gate: Pick<Gate, "admit" | "lost">,
  provider: ProviderId,
  options: AdmitOptions,
): Promise<Admission> {
  const { deadlineAtMs, io } = options;
  try {
    return await gate.admit(provider, { deadlineAtMs });
  } catch (error) {
    if (!isContention(errorData(error))) throw error;
    const backoff = { attempt: 1, baseMs: ADMISSION_RETRY_BASE_MS, capMs: ADMISSION_RETRY_BASE_MS };
    await io.sleep(fullJitterMs({ ...backoff, random: io.random }));
    try {
      return await gate.admit(provider, { deadlineAtMs });
    } catch (again) {
      if (isContention(errorData(again))) await countLost(gate, provider);
      throw again;
    }
  }
}

/** The refusal stands, whether or not it could be counted. */
async function countLost(gate: Pick<Gate, "lost">, provider: ProviderId): Promise<void> {
  try {
    await gate.lost?.(provider);
  } catch (error) {
    log.event("contention_uncounted", { provider, code: errorData(error).code });
  }
}

/** The answer is already here: what fails now costs accounting, and a lease ends by itself. */
async function settle(
  gate: Gate,
  permit: Permit,
  outcome: Outcome,
  provider: ProviderId,
): Promise<void> {
  try {
    await gate.settle(permit, outcome);
  } catch (error) {
    log.event("provider_settle_failed", { provider, code: errorData(error).code });
  }
}

interface Run<T> {
  readonly gate: Gate;
  readonly permit: Permit;
  readonly request: ProviderRequest<T>;
  readonly row: ProviderRow;
  readonly url: string;
  readonly deadlineAtMs: number;
  readonly io: CallIo;
}

type Done<T> = { readonly outcome: Outcome } & (
  { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: unknown }
);

/** Attempts until one settles the matter. Never throws: whatever happens must be settled. */
async function untilDone<T>(run: Run<T>): Promise<Done<T>> {
  const { io, row } = run;
  let last: Done<T> = {
    ok: false,
    error: outOfTime(),
    // The admission ate the time: nothing was asked, nobody but us is to blame.
    outcome: { kind: "infrastructure", code: "upstream_timeout", latencyMs: 0, attempts: 0 },
  };
  for (let attempt = 1; ; attempt++) {
    const startedAtMs = io.now();
    const timeoutMs = attemptTimeoutMs(run, startedAtMs);
    if (timeoutMs <= 0) return last;
    const result = await ask(run, timeoutMs);
    const timing = { latencyMs: io.now() - startedAtMs, attempts: attempt };
    const { kind } = result;
    if (result.ok)
      return { ok: true, value: result.value, outcome: { kind, code: null, ...timing } };
    const { error } = result;
    last = { ok: false, error, outcome: { kind, code: errorData(error).code, ...timing } };
    const { baseMs, capMs } = row.retry;
    const jitterMs = fullJitterMs({ attempt, baseMs, capMs, random: io.random });
    // Jitter comes on top: everyone who was told to wait must not come back at the same moment.
    const delayMs = (errorData(error).retryAfterMs ?? 0) + jitterMs;
    if (!result.transient || !(await mayRetry(run, attempt, delayMs))) return last;
    await io.sleep(delayMs, io.signal);
    if (io.signal?.aborted === true) return last;
  }
}

function attemptTimeoutMs<T>(run: Run<T>, nowMs: number): number {
  const remainingMs = run.deadlineAtMs - nowMs;
  // What is asked only once may take all the time there is.
  return isRepeatable(run.request) ? Math.min(run.row.attemptMs, remainingMs) : remainingMs;
}

function isRepeatable<T>(request: ProviderRequest<T>): boolean {
  return (
    request.idempotencyKey !== undefined ||
    (request.idempotent ?? IDEMPOTENT_METHODS.includes(request.method))
  );
}

async function mayRetry<T>(run: Run<T>, attempt: number, delayMs: number): Promise<boolean> {
  const { gate, io, permit, request, row } = run;
  if (!isRepeatable(request) || attempt > readSetting(io.env, row.retry.retries)) return false;
  if (io.now() + delayMs >= run.deadlineAtMs) return false;
  try {
    return await gate.mayRetry(permit, attempt);
  } catch {
    // A budget that cannot be read grants nothing: retries are an extra, never a need.
    return false;
  }
}

type Result<T> =
  | { readonly ok: true; readonly value: T; readonly kind: Outcome["kind"] }
  | {
      readonly ok: false;
      readonly error: unknown;
      readonly kind: Outcome["kind"];
      /** Whether the same request may fare better: never once an answer was read. */
      readonly transient: boolean;
    };

/** One attempt, bounded in time from the request to the last byte of the body. */
async function ask<T>(run: Run<T>, timeoutMs: number): Promise<Result<T>> {
  const { io, request } = run;
  const over = new AbortController();
  const timeout = io.sleep(timeoutMs, over.signal).then(() => "timeout" as const);
  const given = onAbort(io.signal);
  try {
    const answer = await Promise.race([exchange(run, over.signal), timeout, given.up]);
    if (answer === "given_up")
      return { ok: false, error: unwanted(), kind: "neutral", transient: false };
    if (answer === "timeout") return failed(outOfTime(), true);
    if (answer === "unreachable") return failed(unreachable(), true);
    if (!isExpected(answer.status, request)) return refused(answer, io.now());
    if (answer.text === null) return failed(unreadable("was too large"), false);
    const { status, headers, text } = answer;
    const value = request.parse({ status, headers, text, json: asObject(parseJson(text)) });
    if (value === null) return failed(unreadable("was not understood"), false);
    return { ok: true, value, kind: statusVerdict(status) };
  } catch (error) {
    // What `parse` throws on purpose is its verdict; what it throws by mistake is our bug.
    return { ok: false, error, kind: codeOutcome(errorData(error).code), transient: false };
  } finally {
    given.ignore();
    over.abort();
  }
}

/** Resolves when the signal aborts, which may be never. */
function onAbort(signal: AbortSignal | undefined): {
  readonly up: Promise<"given_up">;
  readonly ignore: () => void;
} {
  let end = (): void => undefined;
  const up = new Promise<"given_up">((resolve) => {
    end = () => {
      resolve("given_up");
    };
  });
  signal?.addEventListener("abort", end);
  return {
    up,
    ignore: () => {
      signal?.removeEventListener("abort", end);
    },
  };
}

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  /** Null when it was larger than allowed; empty when nobody is to read it. */
  readonly text: string | null;
}

/** Request and body. Never rejects, because nobody listens any more once the time is over. */
async function exchange<T>(run: Run<T>, signal: AbortSignal): Promise<Answer | "unreachable"> {
  const { io, request, url } = run;
  try {
    const response = await io.fetch(url, {
      method: request.method,
      headers: { ...request.headers, ...idempotencyHeader(request) },
      // A redirect would carry our keys to wherever it points.
      redirect: "manual",
      signal,
      ...(request.body === undefined ? {} : { body: request.body }),
    });
    const { status, headers } = response;
    if (isExpected(status, request) && !signal.aborted)
      return { status, headers, text: await readBounded(response, bytesMax(request)) };
    // An error's body is for nobody: it may hold keys, prompts or account names.
    response.body?.cancel().catch(ignoreGone);
    return { status, headers, text: "" };
  } catch {
    return "unreachable";
  }
}

function bytesMax<T>(request: ProviderRequest<T>): number {
  return request.responseBytesMax ?? RESPONSE_BYTES_MAX;
}

function idempotencyHeader<T>(request: ProviderRequest<T>): Record<string, string> {
  return request.idempotencyKey === undefined ? {} : { "Idempotency-Key": request.idempotencyKey };
}

function isExpected<T>(status: number, request: ProviderRequest<T>): boolean {
  return (status >= 200 && status < 300) || (request.acceptStatuses?.includes(status) ?? false);
}

function refused<T>(answer: Answer, nowMs: number): Result<T> {
  const kind = statusVerdict(answer.status);
  const error = upstreamError(answer.status, retryAfterMs(answer.headers, nowMs));
  return { ok: false, error, kind, transient: kind === "failure" };
}

function failed<T>(error: AppError, transient: boolean): Result<T> {
  return { ok: false, error, kind: "failure", transient };
}

function outOfTime(): AppError {
  return new AppError("upstream_timeout", { detail: "The provider did not answer in time." });
}

function unwanted(): AppError {
  return new AppError("upstream_timeout", { detail: "The answer was no longer wanted." });
}

function unreachable(): AppError {
  return new AppError("upstream_unavailable", { detail: "The provider could not be reached." });
}

function unreadable(how: string): AppError {
  return new AppError("upstream_error", { detail: `The provider's answer ${how}.` });
}
