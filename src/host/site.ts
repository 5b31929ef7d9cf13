import type { IncomingMessage, ServerResponse } from "node:http";
import type { Authenticator } from "./auth";
import { FunctionError, PlatformError } from "./errors";
import type { HttpCall, Runtime } from "./functions";
import type { Caller, Identity, Invocation } from "./invocation";
import { within } from "./invocation";
import { requestInfo } from "./wire";

export interface SiteOptions {
  readonly runtime: Runtime;
  readonly authenticator: Authenticator;
  readonly trustedProxies: readonly string[];
  readonly siteUrl: () => string;
  readonly print: (line: string) => void;
}

const RESPONSE_BYTES_MAX = 20 * 1024 * 1024;
const REQUEST_BUFFER_BYTES = 256 * 1024;
/** An answer given before the body has arrived is lost if the connection is cut at once. */
const LEFTOVER_BYTES_MAX = 4 * 1024 * 1024;
const LEFTOVER_MS_MAX = 2_000;
const METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
const WITHOUT_BODY = ["GET", "HEAD", "OPTIONS"];
/** The connection is the host's business. */
const HOP_BY_HOP = new Set(["connection", "keep-alive", "transfer-encoding", "set-cookie"]);

/** Answers the site port: the app's HTTP actions, streamed in both directions. */
export function siteHandler(
  options: SiteOptions,
): (request: IncomingMessage, response: ServerResponse) => Promise<void> {
  return async (request, response) => {
    try {
      await serve(options, request, response);
    } catch (error) {
      options.print(
        `Internal error on ${request.url ?? ""}: ${error instanceof Error ? (error.stack ?? "") : String(error)}`,
      );
      response.destroy();
    }
  };
}

async function serve(
  options: SiteOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const gone = new AbortController();
  let invocation: Invocation | null = null;
  response.once("close", () => {
    if (response.writableFinished) return;
    // Listeners that the function added must find their own run.
    if (invocation === null) gone.abort();
    else
      within(invocation, () => {
        gone.abort();
      });
  });
  // A response error is a client that has left; the run goes on.
  response.on("error", () => undefined);
  request.on("error", () => undefined);
  const info = requestInfo(request, options.trustedProxies);
  try {
    const incoming = toRequest(options, request, gone.signal);
    const caller: Caller = {
      identity: await identify(options, request.headers.authorization),
      request: info,
    };
    const call = await options.runtime.http(incoming, caller, (started) => {
      invocation = started;
    });
    await answer(options, call, { request, response });
  } catch (error) {
    sendFailure(options, response, error, info.requestId);
  }
  drainLeftover(request);
}

/** A bad token does not stop an HTTP action: it may be no concern of Convex at all. */
async function identify(options: SiteOptions, header: string | undefined): Promise<Identity> {
  const token = /^bearer\s+(.+)$/i.exec(header ?? "")?.[1];
  if (token === undefined) return { kind: "none" };
  try {
    return await options.authenticator.verify(token.trim());
  } catch (error) {
    if (error instanceof PlatformError) return { kind: "invalid", error };
    throw error;
  }
}

function toRequest(options: SiteOptions, request: IncomingMessage, signal: AbortSignal): Request {
  const method = request.method ?? "GET";
  if (!METHODS.includes(method))
    throw new PlatformError(405, "MethodNotAllowed", `${method} is not supported.`);
  const host = request.headers.host;
  const origin = host === undefined ? options.siteUrl() : `http://${host}`;
  const headers = new Headers();
  const { rawHeaders } = request;
  try {
    for (let at = 0; at + 1 < rawHeaders.length; at += 2)
      headers.append(rawHeaders[at] ?? "", rawHeaders[at + 1] ?? "");
    const url = new URL(request.url ?? "/", origin);
    if (WITHOUT_BODY.includes(method)) return new Request(url, { method, headers, signal });
    return new Request(url, {
      method,
      headers,
      signal,
      body: bodyOf(request),
      duplex: "half",
    } as RequestInit);
  } catch {
    throw new PlatformError(400, "BadRequest", "The request is not valid HTTP.");
  }
}

/** The body as it comes in, with backpressure. Cancelling it leaves the connection usable. */
function bodyOf(request: IncomingMessage): ReadableStream<Uint8Array> {
  let open = true;
  return new ReadableStream<Uint8Array>(
    {
      start: (controller) => {
        request.on("data", (chunk: Buffer) => {
          if (!open) return;
          controller.enqueue(new Uint8Array(chunk));
          if ((controller.desiredSize ?? 0) <= 0) request.pause();
        });
        request.once("end", () => {
          if (open) controller.close();
          open = false;
        });
        request.once("close", () => {
          if (open && !request.complete)
            controller.error(new Error("The client closed the connection."));
          open = false;
        });
        request.pause();
      },
      pull: () => {
        request.resume();
      },
      cancel: () => {
        open = false;
      },
    },
    { highWaterMark: REQUEST_BUFFER_BYTES, size: (chunk) => chunk.byteLength },
  );
}

interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

async function answer(
  options: SiteOptions,
  call: HttpCall,
  { request, response }: Exchange,
): Promise<void> {
  const { invocation, response: result } = call;
  try {
    if (!(result instanceof Response))
      throw new FunctionError("Uncaught TypeError: an HTTP action must return a Response.");
    // Otherwise Node cuts the connection of a client that still sends, and the answer with it.
    if (!request.complete) response.shouldKeepAlive = true;
    for (const [name, value] of headersOf(result.headers)) response.setHeader(name, value);
    response.writeHead(result.status);
    response.flushHeaders();
    const { body } = result;
    if (body !== null) await within(invocation, () => pump(options, body, { request, response }));
    response.end();
  } finally {
    invocation.end();
  }
}

/**
 * Reads the body to its end whatever becomes of the client: it is what keeps the run alive, so a
 * client that is slow or gone must neither stop it nor slow it down.
 */
async function pump(
  options: SiteOptions,
  body: ReadableStream<Uint8Array>,
  { request, response }: Exchange,
): Promise<void> {
  const reader = body.getReader();
  let bytes = 0;
  for (;;) {
    let part: ReadableStreamReadResult<Uint8Array>;
    try {
      part = await reader.read();
    } catch (error) {
      options.print(
        `The response body of ${request.method ?? ""} ${request.url ?? ""} failed: ${String(error)}`,
      );
      response.destroy();
      return;
    }
    if (part.done) return;
    bytes += part.value.byteLength;
    if (bytes > RESPONSE_BYTES_MAX) {
      options.print(
        `The response of ${request.method ?? ""} ${request.url ?? ""} is larger than 20 MiB and was cut.`,
      );
      response.destroy();
      return;
    }
    if (request.method !== "HEAD" && !response.destroyed) response.write(part.value);
  }
}

function headersOf(headers: Headers): [string, string | string[]][] {
  const rows: [string, string | string[]][] = [];
  for (const [name, value] of headers) if (!HOP_BY_HOP.has(name)) rows.push([name, value]);
  const cookies = headers.getSetCookie();
  if (cookies.length > 0) rows.push(["set-cookie", cookies]);
  return rows;
}

function sendFailure(
  options: SiteOptions,
  response: ServerResponse,
  error: unknown,
  requestId: string,
): void {
  const [status, body] = failureOf(error, requestId);
  if (!(error instanceof PlatformError))
    options.print(error instanceof Error ? error.message : String(error));
  if (response.headersSent) {
    response.destroy();
    return;
  }
  response.shouldKeepAlive = true;
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

function failureOf(error: unknown, requestId: string): [number, object] {
  if (error instanceof PlatformError)
    return [error.status, { code: error.code, message: error.message }];
  const trace = error instanceof Error ? error.message : String(error);
  const [head = ""] = trace.split("\n");
  const data =
    error instanceof FunctionError && error.dataJson !== undefined
      ? { data: JSON.parse(error.dataJson) as unknown }
      : {};
  return [500, { code: `[Request ID: ${requestId}] Server Error: ${head}`, trace, ...data }];
}

/** Reads on for a moment after an early answer, so that the client gets to see it, then closes. */
function drainLeftover(request: IncomingMessage): void {
  if (request.complete || request.destroyed) return;
  let bytes = 0;
  const { socket } = request;
  const close = () => {
    clearTimeout(timer);
    socket.destroySoon();
  };
  const timer = setTimeout(close, LEFTOVER_MS_MAX);
  request.removeAllListeners("data");
  const count = (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes <= LEFTOVER_BYTES_MAX) return;
    request.off("data", count);
    close();
  };
  request.on("data", count);
  request.once("close", () => {
    clearTimeout(timer);
  });
  request.once("end", () => {
    clearTimeout(timer);
  });
  request.resume();
}
