import { createParser, type EventSourceMessage } from "eventsource-parser";

/** One event of a chat stream, as documented in docs/api.md; `type` tells which. */
export interface ChatStreamEvent {
  readonly type: string;
  readonly [field: string]: unknown;
}

/** One frame as it arrived. */
export interface ChatFrame {
  /** Set on frames that are stored: everything up to here can be had again. */
  readonly id: string | null;
  readonly event: ChatStreamEvent;
}

export interface ChatClientOptions {
  /** The deployment's HTTP actions URL, without a slash at its end. */
  readonly siteUrl: string;
  /** Called before each request, so that a fresh token can be had. */
  readonly token: () => string | Promise<string>;
  readonly fetch?: typeof fetch;
  /** Reconnections without progress before giving up. Default 5. */
  readonly reconnectsMax?: number;
  /** Wait before the first reconnection, in milliseconds; doubles each time. Default 500. */
  readonly reconnectBaseMs?: number;
}

export interface ChatRequest {
  readonly threadId?: string;
  readonly message?: { readonly content: string; readonly clientMessageId?: string };
  readonly modelId?: string;
  readonly webSearch?: boolean;
}

/** A refusal before the stream began: an RFC 9457 problem. */
export class ChatProblem extends Error {
  readonly status: number;
  readonly code: string;
  readonly retryAfterSeconds: number | null;

  constructor(status: number, code: string, retryAfterSeconds: number | null) {
    super(`${status} ${code}`);
    this.name = "ChatProblem";
    this.status = status;
    this.code = code;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

const RECONNECTS_MAX = 5;
const RECONNECT_BASE_MS = 500;
const TERMINAL: readonly string[] = ["done", "error", "aborted"];

/**
 * Sends a message and yields the answer's events until the terminal one. When the connection
 * breaks, the stream is resumed behind the last frame that had an id; `rollback` says how much of
 * what was yielded since then is going to be yielded again.
 */
export class ChatClient {
  private readonly options: ChatClientOptions;
  private readonly fetch: typeof fetch;

  constructor(options: ChatClientOptions) {
    this.options = options;
    this.fetch = options.fetch ?? fetch;
  }

  /** Streams one turn. The idempotency key makes the request safe to repeat. */
  async *send(
    request: ChatRequest,
    turn: { readonly idempotencyKey?: string; readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<ChatFrame | Rollback, void> {
    const response = await this.call("/api/chat", {
      method: "POST",
      body: JSON.stringify(request),
      headers: {
        "content-type": "application/json",
        ...(turn.idempotencyKey === undefined ? {} : { "idempotency-key": turn.idempotencyKey }),
      },
      ...(turn.signal === undefined ? {} : { signal: turn.signal }),
    });
    yield* this.follow(response, null, turn.signal);
  }

  /** Continues a stream behind `lastEventId`, or from its start. */
  async *resume(
    streamId: string,
    lastEventId: string | null = null,
    signal?: AbortSignal,
  ): AsyncGenerator<ChatFrame | Rollback, void> {
    const response = await this.open(streamId, lastEventId, signal);
    yield* this.follow(response, { streamId, lastEventId }, signal);
  }

  /** Asks for the end of an answer; the stream then ends with `aborted`. */
  async abort(threadId: string, messageId: string): Promise<void> {
    await this.call("/api/chat/abort", {
      method: "POST",
      body: JSON.stringify({ threadId, messageId }),
      headers: { "content-type": "application/json" },
    });
  }

  private async *follow(
    first: Response,
    from: { readonly streamId: string; readonly lastEventId: string | null } | null,
    signal?: AbortSignal,
  ): AsyncGenerator<ChatFrame | Rollback, void> {
    let response: Response | null = first;
    let streamId = from?.streamId ?? null;
    let lastEventId = from?.lastEventId ?? null;
    let failures = 0;
    for (;;) {
      let unstored = 0;
      if (response !== null)
        for await (const frame of framesOf(response)) {
          failures = 0;
          if (frame.event.type === "start") streamId = String(frame.event["streamId"]);
          unstored = frame.id === null ? unstored + 1 : 0;
          lastEventId = frame.id ?? lastEventId;
          yield frame;
          if (TERMINAL.includes(frame.event.type)) return;
        }
      if (response?.status === 204 || streamId === null) return;
      if (unstored > 0) yield { rollback: unstored };
      failures += 1;
      if (failures > (this.options.reconnectsMax ?? RECONNECTS_MAX))
        throw new Error("the chat stream broke off and could not be resumed");
      const baseMs = this.options.reconnectBaseMs ?? RECONNECT_BASE_MS;
      await new Promise((resolve) => setTimeout(resolve, baseMs * 2 ** (failures - 1)));
      response = await this.open(streamId, lastEventId, signal).catch(rethrowProblem);
    }
  }

  private async open(
    streamId: string,
    lastEventId: string | null,
    signal?: AbortSignal,
  ): Promise<Response> {
    return await this.call(`/api/chat/stream?streamId=${encodeURIComponent(streamId)}`, {
      headers: lastEventId === null ? {} : { "last-event-id": lastEventId },
      ...(signal === undefined ? {} : { signal }),
    });
  }

  private async call(path: string, init: RequestInit): Promise<Response> {
    const headers = new Headers(init.headers);
    headers.set("authorization", `Bearer ${await this.options.token()}`);
    const response = await this.fetch(`${this.options.siteUrl}${path}`, { ...init, headers });
    if (!response.ok) {
      await response.body?.cancel();
      const retryAfter = Number(response.headers.get("retry-after") ?? "NaN");
      throw new ChatProblem(
        response.status,
        response.headers.get("x-error-code") ?? "unknown",
        Number.isNaN(retryAfter) ? null : retryAfter,
      );
    }
    return response;
  }
}

/** The last `rollback` frames were not stored: drop them, they come again. */
export interface Rollback {
  readonly rollback: number;
}

/** Only a broken connection is tried again; a refusal is final. */
function rethrowProblem(error: unknown): null {
  if (error instanceof ChatProblem) throw error;
  return null;
}

async function* framesOf(response: Response): AsyncGenerator<ChatFrame, void> {
  if (response.body === null) return;
  const messages: EventSourceMessage[] = [];
  const parser = createParser({ onEvent: (message) => messages.push(message) });
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  try {
    for (;;) {
      // A connection that breaks ends the frames; whoever follows the stream resumes it.
      const part = await reader.read().catch(() => ({ done: true as const, value: undefined }));
      if (part.done) return;
      parser.feed(decoder.decode(part.value, { stream: true }));
      for (const { id, data } of messages.splice(0))
        yield { id: id ?? null, event: JSON.parse(data) as ChatStreamEvent };
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
