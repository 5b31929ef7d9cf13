import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { control, type Controlled } from "./control";
import { Faults, type Fault } from "./faults";
import { json, type Answer, type Call, type Provider } from "./provider";
import { createProviders } from "./providers";
import { never, respond } from "./respond";
import { Traffic } from "./traffic";

const BODY_BYTES_MAX = 16 * 1024 * 1024;
const LOOPBACK = "127.0.0.1";

export interface RunningServer {
  readonly url: string;
  readonly controlled: Controlled;
  close(): Promise<void>;
}

/** Serves every provider and the control endpoint on one loopback port; 0 takes a free one. */
export async function serve(options: {
  readonly port: number;
  readonly now: () => number;
}): Promise<RunningServer> {
  const controlled = {
    providers: createProviders(),
    faults: new Faults(),
    traffic: new Traffic(),
  };
  const closing = new AbortController();
  const server = createServer((request, response) => {
    void exchange({ request, response, controlled, now: options.now, closing: closing.signal });
  });
  server.listen(options.port, LOOPBACK);
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://${LOOPBACK}:${port}`,
    controlled,
    close: () => shutDown(server, closing),
  };
}

async function shutDown(server: Server, closing: AbortController): Promise<void> {
  closing.abort();
  const closed = once(server, "close");
  server.close();
  server.closeAllConnections();
  await closed;
}

interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly controlled: Controlled;
  readonly now: () => number;
  readonly closing: AbortSignal;
}

async function exchange(one: Exchange): Promise<void> {
  const { request, response } = one;
  const gone = new AbortController();
  response.on("close", () => {
    gone.abort();
  });
  const signal = AbortSignal.any([gone.signal, one.closing]);
  try {
    await route(one, signal);
  } catch (error) {
    if (signal.aborted) return;
    // A bug of the simulator must look like one, not like a fault of a provider.
    const detail = error instanceof Error ? error.message : String(error);
    if (response.headersSent) response.destroy();
    else await respond(response, json(500, { simulator: detail }), { fault: null, signal });
  } finally {
    // What was not read would otherwise keep the connection from being used again.
    request.resume();
  }
}

async function route(one: Exchange, signal: AbortSignal): Promise<void> {
  const { request, response, controlled } = one;
  const url = new URL(request.url ?? "/", `http://${LOOPBACK}`);
  const [, prefix = "", rest = ""] = /^\/([^/]*)(\/.*)?$/.exec(url.pathname) ?? [];
  const bytes = await readBody(request);
  const baseUrl = `http://${request.headers.host ?? LOOPBACK}/${prefix}`;
  const call: Call = {
    method: request.method ?? "GET",
    path: rest,
    query: url.searchParams,
    headers: request.headers,
    bytes: bytes ?? new Uint8Array(),
    baseUrl,
    nowMs: one.now(),
  };
  if (bytes === null) {
    await respond(response, json(413, { simulator: "body too large" }), { fault: null, signal });
    return;
  }
  if (prefix === "control") {
    await respond(response, control(controlled, call), { fault: null, signal });
    return;
  }
  const provider = providerOf(controlled, prefix, rest);
  if (provider === null) {
    await respond(response, json(404, { simulator: "no such provider" }), { fault: null, signal });
    return;
  }
  const fault = controlled.faults.take(provider.id, rest);
  const seen = controlled.traffic.begin({
    provider: provider.id,
    method: call.method,
    url,
    atMs: call.nowMs,
  });
  response.on("close", () => {
    seen.aborted = !response.writableFinished;
  });
  await answerWith({ provider, call, fault, response, signal, seen });
}

interface Answering {
  readonly provider: Provider;
  readonly call: Call;
  readonly fault: Fault | null;
  readonly response: ServerResponse;
  readonly signal: AbortSignal;
  readonly seen: { status: number | null };
}

async function answerWith(one: Answering): Promise<void> {
  const { provider, call, fault, response, signal } = one;
  if (fault?.latencyMs !== undefined) await sleep(fault.latencyMs, undefined, { signal });
  if (fault?.hang === true) {
    await never(signal);
    return;
  }
  if (fault?.disconnect === true) {
    response.destroy();
    return;
  }
  const answer = await faulty(provider, call, fault);
  one.seen.status = answer.status;
  await respond(response, answer, { fault, signal });
}

async function faulty(provider: Provider, call: Call, fault: Fault | null): Promise<Answer> {
  const answer =
    fault?.status === undefined
      ? await provider.handle(call)
      : provider.refuse(fault.status, fault.retryAfterSeconds);
  if (fault?.body === undefined) return answer;
  return typeof fault.body === "string"
    ? { ...answer, body: { kind: "text", text: fault.body } }
    : { ...answer, body: { kind: "json", value: fault.body } };
}

function providerOf(controlled: Controlled, prefix: string, rest: string): Provider | null {
  const providers: Readonly<Record<string, Provider>> = controlled.providers;
  // Google's token endpoint and the Gmail API fail apart, also where one base URL serves both.
  const id = prefix === "google" && rest.startsWith("/gmail/") ? "gmail" : prefix;
  return Object.hasOwn(providers, id) ? (providers[id] ?? null) : null;
}

/** Null when the body is longer than any provider takes. */
async function readBody(request: IncomingMessage): Promise<Uint8Array | null> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request) {
    const bytes = chunk as Buffer;
    size += bytes.length;
    if (size > BODY_BYTES_MAX) return null;
    chunks.push(bytes);
  }
  return Buffer.concat(chunks);
}
