// Wire format: openrouter.ai/docs, "API Streaming", "Errors and Debugging" and "Usage Accounting".
import { callDeltas, missingState, wholeCalls } from "./callDeltas";
import { list, parseJson, record, text } from "./json";
import { decideTurn, tokensOf, type Turn } from "./model";
import {
  bearer,
  json,
  retryAfter,
  type Answer,
  type Call,
  type Provider,
  type ProviderSpec,
  type Step,
} from "./provider";
import { historyFault } from "./strictHistory";

const KEY = "sim-openrouter-key";
const PROVIDER_NAME = "Simulated";
/** Text frames of one answer; longer answers carry more words in each. */
const TEXT_FRAMES_MAX = 400;
/** Fewer would cost a load drill more than the app that it measures. */
const WORDS_PER_FRAME = 3;
const USD_PER_PROMPT_TOKEN = 0.0000005;
const USD_PER_COMPLETION_TOKEN = 0.0000015;

export const openRouterSpec: ProviderSpec = {
  id: "openrouter",
  title: "OpenRouter",
  keyNames: ["OPENROUTER_API_KEY"],
  env: (baseUrl) => ({
    OPENROUTER_BASE_URL: `${baseUrl}/api/v1`,
    OPENROUTER_API_KEY: KEY,
  }),
};

/** Chat completions, streamed and whole, and the list of models. */
export function createOpenRouter(): Provider {
  return { ...openRouterSpec, handle, refuse };
}

function handle(call: Call): Answer {
  const path = call.path.replace(/^\/api\/v1/, "");
  if (path === "/models" && call.method === "GET") return json(200, MODELS);
  if (path !== "/chat/completions") return fail(404, "Not Found");
  if (call.method !== "POST") return fail(405, "Method Not Allowed");
  const key = bearer(call);
  if (key === null) return fail(401, "No auth credentials found");
  if (key !== KEY) return fail(401, "User not found.");
  const body = parseJson(call.bytes);
  if (body === undefined) return fail(400, "Invalid JSON in request body");
  return complete(record(body));
}

function complete(body: Readonly<Record<string, unknown>>): Answer {
  const model = text(body["model"]);
  if (list(body["messages"]).length === 0)
    return fail(400, 'Input required: specify "prompt" or "messages"');
  if (!/^[a-z0-9~.-]+\/[A-Za-z0-9:._-]+$/.test(model))
    return fail(400, `${model || "(none)"} is not a valid model ID`);
  const messages = list(body["messages"]).map(record);
  const fault = historyFault(messages);
  if (fault !== null) return fail(400, fault);
  const turn = decideTurn(body);
  const lost = missingState(turn, answersOf(messages));
  if (lost !== null) return fail(400, lost);
  if (turn.ending.kind === "refused") return refuse(turn.ending.status, undefined);
  const head = headOf(turn, model, body["stream"] === true);
  const headers = { "x-generation-id": head.id };
  if (body["stream"] !== true) return whole(turn, head, headers);
  const wantsUsage =
    record(body["stream_options"])["include_usage"] === true ||
    record(body["usage"])["include"] === true;
  return {
    status: 200,
    headers: { "content-type": "text/event-stream", "cache-control": "no-cache", ...headers },
    body: {
      kind: "stream",
      steps: inManner(turn, streamSteps(turn, head, wantsUsage)),
      ...(turn.script.splitBytes === null ? {} : { splitBytes: turn.script.splitBytes }),
    },
  };
}

/** The answers with calls since the last user message: those of the turn at hand. */
function answersOf(messages: readonly Readonly<Record<string, unknown>>[]) {
  const lastUser = messages.findLastIndex((message) => message["role"] === "user");
  return messages.slice(lastUser + 1).filter((message) => list(message["tool_calls"]).length > 0);
}

/** The fields that every frame of one answer repeats. */
interface Head {
  readonly id: string;
  readonly provider: string;
  readonly model: string;
  readonly object: "chat.completion" | "chat.completion.chunk";
  readonly created: number;
}

function headOf(turn: Turn, model: string, streamed: boolean): Head {
  const created = 1_760_000_000 + turn.seed.int("created", 10_000_000);
  return {
    id: `gen-${created}-${turn.seed.id("generation", 20)}`,
    provider: PROVIDER_NAME,
    model,
    object: streamed ? "chat.completion.chunk" : "chat.completion",
    created,
  };
}

function* streamSteps(turn: Turn, head: Head, wantsUsage: boolean): Iterable<Step> {
  const frame = (fields: object): Step =>
    write(`data: ${JSON.stringify({ ...head, ...fields })}\n\n`);
  const delta = (fields: object): Step => frame({ choices: [choice(fields, null)] });
  yield write(": OPENROUTER PROCESSING\n\n");
  yield delta({ role: "assistant", content: "" });
  for (const part of pieces(turn.reasoning, 3)) yield delta(reasoningDelta(part));
  yield* wait(turn.script.waitMs);
  for (const part of pieces(turn.text, wordsPerFrame(turn.text))) {
    if (turn.script.slowMs > 0) yield { kind: "pause", pauseMs: turn.script.slowMs };
    yield delta({ role: "assistant", content: contentOf(turn, part) });
  }
  for (const fields of callDeltas(turn)) yield delta(fields);
  switch (turn.ending.kind) {
    case "eof":
      return;
    case "cut":
    case "hang":
      // Half a frame is on the wire when the provider dies.
      if (turn.ending.kind === "cut") yield write(`data: {"id":"${head.id}","choi`);
      yield { kind: turn.ending.kind };
      return;
    case "in_band":
      yield frame(inBandError(turn.ending));
      yield write("data: [DONE]\n\n");
      return;
    case "error_text":
      yield frame({ error: "Upstream closed", choices: [choice({ content: "" }, "stop")] });
      yield write("data: [DONE]\n\n");
      return;
    case "bad_json":
      yield write(`data: {"id":"${head.id}","choices":[{"index":0,"delta":{"cont\n\n`);
      break;
    case "stop":
    case "length":
    case "content_filter":
    case "empty":
    case "refused":
      break;
  }
  yield frame({ choices: [choice({ role: "assistant", content: "" }, finishReason(turn))] });
  if (wantsUsage) yield frame({ choices: [], usage: usageOf(turn) });
  yield write("data: [DONE]\n\n");
}

/** Between and behind the frames, what some providers and proxies do there. */
function* inManner(turn: Turn, steps: Iterable<Step>): Iterable<Step> {
  const { pings, unended } = turn.script;
  for (const step of steps) {
    const isLast = step.kind === "write" && step.text.startsWith("data: [DONE]");
    // Who leaves the last blank line out sends no end mark either.
    if (unended && isLast) return;
    if (unended && step.kind === "write" && step.text.includes('"finish_reason":"')) {
      yield write(step.text.trimEnd());
      return;
    }
    yield step;
    if (pings && step.kind === "write") yield* PINGS.map(write);
  }
}

const PINGS = ["data:\n\n", "event: ping\ndata: {}\n\n", "data: null\n\n", "data: keep-alive\n\n"];

const contentOf = (turn: Turn, part: string): unknown =>
  turn.script.parts ? [{ type: "text", text: part }] : part;

function whole(turn: Turn, head: Head, headers: Readonly<Record<string, string>>): Answer {
  switch (turn.ending.kind) {
    case "eof":
    case "cut":
      return stopped(headers, `{"id":"${head.id}","choices":[{`, "cut");
    case "hang":
      return stopped(headers, "", "hang");
    case "bad_json":
      return { status: 200, headers, body: { kind: "text", text: `{"id":"${head.id}","choi` } };
    case "stop":
    case "length":
    case "content_filter":
    case "empty":
    case "refused":
    case "error_text":
    case "in_band":
      break;
  }
  const failed = turn.ending.kind === "in_band";
  const message = {
    role: "assistant",
    content: turn.calls.length > 0 ? turn.text || null : turn.text,
    refusal: null,
    reasoning: turn.reasoning || null,
    ...(turn.calls.length > 0 ? { tool_calls: wholeCalls(turn) } : {}),
  };
  const finish = failed ? "error" : finishReason(turn);
  return json(
    200,
    {
      ...head,
      ...(turn.ending.kind === "in_band" ? { error: errorOf(turn.ending) } : {}),
      ...(turn.ending.kind === "error_text" ? { error: "Upstream closed" } : {}),
      system_fingerprint: null,
      choices: [
        { index: 0, logprobs: null, finish_reason: finish, native_finish_reason: finish, message },
      ],
      usage: usageOf(turn),
    },
    headers,
  );
}

function stopped(
  headers: Readonly<Record<string, string>>,
  start: string,
  kind: "cut" | "hang",
): Answer {
  return {
    status: 200,
    headers: { "content-type": "application/json", ...headers },
    body: { kind: "stream", steps: [write(start), { kind }] },
  };
}

function write(source: string): Step {
  return { kind: "write", text: source };
}

/** While a model is slow to start, OpenRouter keeps the connection alive with comments. */
function* wait(waitMs: number): Iterable<Step> {
  for (let leftMs = waitMs; leftMs > 0; leftMs -= COMMENT_EVERY_MS) {
    yield { kind: "pause", pauseMs: Math.min(leftMs, COMMENT_EVERY_MS) };
    yield write(": OPENROUTER PROCESSING\n\n");
  }
}

const COMMENT_EVERY_MS = 1_000;

function choice(delta: object, finish: string | null) {
  return { index: 0, delta, finish_reason: finish, native_finish_reason: finish, logprobs: null };
}

function reasoningDelta(part: string) {
  return {
    role: "assistant",
    content: "",
    reasoning: part,
    reasoning_details: [{ type: "reasoning.text", text: part, format: "unknown", index: 0 }],
  };
}

function finishReason(turn: Turn): string {
  if (turn.calls.length > 0) return turn.script.manners.has("cut") ? "length" : "tool_calls";
  return turn.ending.kind === "length" || turn.ending.kind === "content_filter"
    ? turn.ending.kind
    : "stop";
}

function wordsPerFrame(source: string): number {
  return Math.max(WORDS_PER_FRAME, Math.ceil(source.split(" ").length / TEXT_FRAMES_MAX));
}

/** The text in parts of `size` words, every part but the first beginning with its space. */
function* pieces(source: string, size: number): Iterable<string> {
  if (source === "") return;
  const parts = source.split(" ");
  for (let at = 0; at < parts.length; at += size)
    yield (at === 0 ? "" : " ") + parts.slice(at, at + size).join(" ");
}

function usageOf(turn: Turn) {
  const reasoningTokens = tokensOf(turn.reasoning);
  const callTokens = turn.calls.reduce(
    (sum, call) => sum + tokensOf(call.name) + tokensOf(call.argumentsText),
    0,
  );
  const completionTokens = tokensOf(turn.text) + reasoningTokens + callTokens;
  const cost = round(
    turn.promptTokens * USD_PER_PROMPT_TOKEN + completionTokens * USD_PER_COMPLETION_TOKEN,
  );
  return {
    prompt_tokens: turn.promptTokens,
    completion_tokens: completionTokens,
    total_tokens: turn.promptTokens + completionTokens,
    cost,
    is_byok: false,
    prompt_tokens_details: { cached_tokens: turn.cachedTokens, audio_tokens: 0, video_tokens: 0 },
    cost_details: { upstream_inference_cost: cost },
    completion_tokens_details: { reasoning_tokens: reasoningTokens, image_tokens: 0 },
  };
}

function round(dollars: number): number {
  return Math.round(dollars * 1e9) / 1e9;
}

function errorOf(ending: { readonly code: number | string }) {
  return {
    code: ending.code,
    message: "Provider disconnected unexpectedly",
    metadata: { error_type: "provider_unavailable", provider_name: PROVIDER_NAME },
  };
}

function inBandError(ending: { readonly code: number | string; readonly bare: boolean }) {
  return {
    error: errorOf(ending),
    choices: ending.bare ? [] : [choice({ content: "" }, "error")],
  };
}

const REASONS: Readonly<Record<number, string>> = {
  400: "Provider returned error",
  401: "User not found.",
  402: "Insufficient credits. Add more using https://openrouter.ai/settings/credits",
  403: "Input was flagged by moderation",
  408: "Request timed out",
  429: "Rate limit exceeded",
  500: "Internal Server Error",
  502: "Provider returned error",
  503: "No allowed providers are available for the selected model.",
};

function refuse(status: number, retryAfterSeconds: number | undefined): Answer {
  const headers = retryAfter(status, retryAfterSeconds);
  return fail(
    status,
    REASONS[status] ?? "Provider returned error",
    metadataOf(status, headers),
    headers,
  );
}

function metadataOf(status: number, headers: Readonly<Record<string, string>>) {
  const seconds = headers["retry-after"];
  if (status === 403)
    return {
      reasons: ["violence"],
      flagged_input: "…",
      provider_name: PROVIDER_NAME,
      model_slug: "simulated/model",
    };
  if (seconds === undefined) return { provider_name: PROVIDER_NAME };
  return {
    raw: "temporarily rate-limited upstream. Please retry shortly.",
    provider_name: PROVIDER_NAME,
    is_byok: false,
    retry_after_seconds: Number(seconds),
    headers: { "Retry-After": seconds },
  };
}

function fail(
  status: number,
  message: string,
  metadata?: object,
  headers: Readonly<Record<string, string>> = {},
): Answer {
  const error = { message, code: status, ...(metadata === undefined ? {} : { metadata }) };
  return json(status, { error }, headers);
}

const MODELS = {
  data: ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4", "google/gemini-2.5-flash"].map(
    (id) => ({
      id,
      canonical_slug: id,
      name: `${id} (simulated)`,
      created: 1_760_000_000,
      description: "A simulated model.",
      context_length: 128_000,
      architecture: {
        modality: "text->text",
        input_modalities: ["text"],
        output_modalities: ["text"],
        tokenizer: "Other",
        instruct_type: null,
      },
      pricing: {
        prompt: String(USD_PER_PROMPT_TOKEN),
        completion: String(USD_PER_COMPLETION_TOKEN),
        request: "0",
        image: "0",
      },
      top_provider: {
        context_length: 128_000,
        max_completion_tokens: 16_384,
        is_moderated: false,
      },
      per_request_limits: null,
      supported_parameters: ["max_tokens", "temperature", "tool_choice", "tools"],
    }),
  ),
};
