/**
 * Streaming chat through OpenRouter. The `openai` package makes the request; the body is read here,
 * because the package hides `[DONE]`, ends silently when aborted and bounds nothing.
 */
import OpenAI from "openai";
import type {
  ChatCompletionCreateParamsStreaming,
  ChatCompletionMessageParam,
  ChatCompletionTool,
} from "openai/resources/chat/completions";
import { MIB } from "../core/bytes";
import { AppError } from "../errors/appError";
import { ignoreGone, readBounded } from "./body";
import type { ChatDelta, ChatEnding, ChatMessage, ToolDefinition } from "./chat";
import { chatFrames, errorIn, inBandCode, type Stop } from "./chatFrames";
import { type Io, platformIo } from "./io";
import { asArray, asObject, parseJson } from "./json";
import { retryAfterMs, upstreamError } from "./outcome";

export interface ChatParams {
  readonly baseUrl: string;
  readonly apiKey: string;
  readonly model: string;
  readonly messages: readonly ChatMessage[];
  readonly tools?: readonly ToolDefinition[];
  /** `none` forbids calls while the tools stay described; the default lets the model choose. */
  readonly toolChoice?: "auto" | "none";
  readonly completionTokensMax?: number;
  /** Sent with the request, for tracing. */
  readonly headers?: Readonly<Record<string, string>>;
}

export interface ChatLimits {
  /** Ends the stream as `client_abort`. */
  readonly signal?: AbortSignal;
  /** Until the first byte of the body; past it nothing was answered and the call fails. */
  readonly firstByteTimeoutMs: number;
  /** Longest silence after that; comments of the provider are signs of life. */
  readonly idleTimeoutMs: number;
  /** Whole stream. */
  readonly totalTimeoutMs: number;
  readonly io?: StreamIo;
}

type StreamIo = Pick<Io, "now" | "sleep" | "fetch">;

/** Bytes of a whole streamed answer, beyond which it is cut as faulty. */
export const STREAM_BYTES_MAX = 16 * MIB;

/**
 * Streams one answer and returns how it ended: always exactly one of the eleven endings. Before the
 * first byte a failure is thrown as an `AppError` of the upstream codes instead, and another route
 * may be tried. Whatever happens, also when the caller stops iterating, the connection is closed.
 */
export async function* openChatStream(
  params: ChatParams,
  limits: ChatLimits,
): AsyncGenerator<ChatDelta, ChatEnding> {
  const io = limits.io ?? platformIo;
  const startedAtMs = io.now();
  const frames = chatFrames(params.tools?.map(({ function: { name } }) => name) ?? null);
  let firstTokenMs: number | null = null;
  const finish = (stop: Stop): ChatEnding => ({
    ...frames.end(stop),
    latencyMs: io.now() - startedAtMs,
    firstTokenMs,
  });
  const heard = (deltas: ChatDelta[]): ChatDelta[] => {
    if (deltas.some(({ kind }) => kind !== "usage")) firstTokenMs ??= io.now() - startedAtMs;
    return deltas;
  };
  const connection = connect(io, limits);
  try {
    let part = await connection.open(params);
    const decoder = new TextDecoder();
    while (part.kind === "bytes") {
      yield* heard(frames.push(decoder.decode(part.bytes, { stream: true })));
      if (frames.over) return finish("done");
      part = await connection.next();
    }
    if (part.stop !== "client_abort") yield* heard(frames.flush());
    return finish(part.stop);
  } finally {
    connection.close();
  }
}

type Part =
  | { readonly kind: "bytes"; readonly bytes: Uint8Array }
  | { readonly kind: "stop"; readonly stop: Stop };

/** Why a wait ended before what it waited for. */
type Interruption = "client_abort" | "total_timeout";

interface Connection {
  /** Sends the request and waits for the first part of the body. Throws an `AppError`. */
  open(params: ChatParams): Promise<Part>;
  next(): Promise<Part>;
  close(): void;
}

/** One request and its body, with every wait bounded. */
function connect(io: StreamIo, limits: ChatLimits): Connection {
  const upstream = new AbortController();
  const closed = new AbortController();
  const interrupted: Promise<Interruption> = Promise.race([
    clientAbort(limits.signal, closed.signal),
    io.sleep(limits.totalTimeoutMs, closed.signal).then((): Interruption => "total_timeout"),
  ]);
  let body: Body | null = null;

  /** Waits for the work, an interruption or the time, in this order of precedence. */
  async function within<T>(work: Promise<T>, timeoutMs: number): Promise<T | Interruption | null> {
    const timer = new AbortController();
    const timeout = io.sleep(timeoutMs, timer.signal).then(() => null);
    try {
      return await Promise.race([interrupted, work, timeout]);
    } finally {
      timer.abort();
    }
  }

  return {
    async open(params) {
      if (limits.signal?.aborted === true) return { kind: "stop", stop: "client_abort" };
      const first = request(params, io, upstream.signal).then(async (response) => {
        body = openBody(response);
        // The wait for this response was given up while it was on its way.
        if (closed.signal.aborted) body.cancel();
        return await body.read();
      });
      const part = await within(settled(first), limits.firstByteTimeoutMs);
      if (part === null || part === "total_timeout")
        throw new AppError("upstream_timeout", { detail: "The provider did not answer in time." });
      if (part === "client_abort") return { kind: "stop", stop: part };
      if (part.error !== null) throw part.error;
      return part.value;
    },
    async next() {
      if (body === null) return { kind: "stop", stop: "eof" };
      const part = await within(settled(body.read()), limits.idleTimeoutMs);
      if (part === null) return { kind: "stop", stop: "idle_timeout" };
      if (part === "client_abort" || part === "total_timeout") return { kind: "stop", stop: part };
      // A connection that breaks while the answer runs is an end of file that came too early.
      return part.error === null ? part.value : { kind: "stop", stop: "eof" };
    },
    close() {
      closed.abort();
      upstream.abort();
      body?.cancel();
    },
  };
}

type Settled<T> =
  { readonly error: null; readonly value: T } | { readonly error: AppError; readonly value: null };

/** The result as a value: a promise that lost a race must not reject with nobody listening. */
async function settled<T>(work: Promise<T>): Promise<Settled<T>> {
  try {
    return { error: null, value: await work };
  } catch (error) {
    // What is no refusal is a connection that broke, before the first byte or after it.
    return { error: error instanceof AppError ? error : unreachable(), value: null };
  }
}

interface Body {
  read(): Promise<Part>;
  cancel(): void;
}

function openBody(response: Response): Body {
  const reader = response.body?.getReader();
  let bytesRead = 0;
  return {
    async read() {
      const part = await reader?.read();
      if (part?.value === undefined) return { kind: "stop", stop: "eof" };
      bytesRead += part.value.byteLength;
      if (bytesRead > STREAM_BYTES_MAX) return { kind: "stop", stop: "eof" };
      return { kind: "bytes", bytes: part.value };
    },
    cancel() {
      reader?.cancel().catch(ignoreGone);
    },
  };
}

async function request(params: ChatParams, io: StreamIo, signal: AbortSignal): Promise<Response> {
  let refusal: AppError | null = null;
  const client = new OpenAI({
    apiKey: params.apiKey,
    baseURL: params.baseUrl,
    // Given so that the package does not look into the environment for another vendor's settings.
    adminAPIKey: null,
    organization: null,
    project: null,
    webhookSecret: null,
    maxRetries: 0,
    // At any other level it would log what users wrote.
    logLevel: "off",
    fetch: async (resource, init) => {
      const response = await io.fetch(urlOf(resource), { ...init, redirect: "manual" });
      if (response.ok) return response;
      refusal = upstreamError(response.status, retryAfterMs(response.headers, io.now()));
      return withoutBody(response);
    },
  });
  try {
    const response = await client.chat.completions
      .create(requestBody(params), { signal, headers: { ...params.headers } })
      .asResponse();
    if (!isJson(response)) return response;
    const answer = await unstreamed(response);
    if (answer instanceof Response) return answer;
    refusal = answer;
    throw refusal;
  } catch {
    throw refusal ?? unreachable();
  }
}

function unreachable(): AppError {
  return new AppError("upstream_unavailable", { detail: "The provider could not be reached." });
}

function isJson(response: Response): boolean {
  return response.headers.get("content-type")?.includes("application/json") === true;
}

function requestBody(params: ChatParams): ChatCompletionCreateParamsStreaming {
  const { tools = [], completionTokensMax } = params;
  return {
    model: params.model,
    messages: params.messages as ChatCompletionMessageParam[],
    stream: true,
    stream_options: { include_usage: true },
    ...(tools.length === 0
      ? {}
      : { tools: tools as ChatCompletionTool[], tool_choice: params.toolChoice ?? "auto" }),
    ...(completionTokensMax === undefined ? {} : { max_completion_tokens: completionTokensMax }),
  };
}

function urlOf(resource: string | URL | Request): string {
  return typeof resource === "object" && "url" in resource ? resource.url : String(resource);
}

/**
 * An error's body is not read: nobody may see it, it has no bound, and the package would wait for
 * all of it. The status says what we need.
 */
function withoutBody(response: Response): Response {
  response.body?.cancel().catch(ignoreGone);
  return new Response(null, { status: response.status });
}

/** Longest answer in JSON where a stream was asked for, in bytes. */
const UNSTREAMED_BYTES_MAX = MIB;

/**
 * An answer in JSON where a stream was asked for: an error that came with status 200, or the whole
 * answer of a provider that does not stream, read as a stream of one frame.
 */
async function unstreamed(response: Response): Promise<Response | AppError> {
  const text = await readBounded(response, UNSTREAMED_BYTES_MAX);
  const answer = asObject(parseJson(text ?? ""));
  const error = answer === null ? null : errorIn(answer);
  if (error === null && asArray(answer?.["choices"]).length > 0)
    return new Response(`data: ${JSON.stringify(answer)}\n\ndata: [DONE]\n\n`);
  return new AppError(inBandCode(error), {
    detail: "The provider did not stream an answer.",
  });
}

async function clientAbort(
  signal: AbortSignal | undefined,
  closed: AbortSignal,
): Promise<Interruption> {
  return await new Promise((resolve) => {
    const onAbort = (): void => {
      resolve("client_abort");
    };
    signal?.addEventListener("abort", onAbort);
    closed.addEventListener("abort", () => signal?.removeEventListener("abort", onAbort));
  });
}
