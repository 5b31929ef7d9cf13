import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { PlatformError, UserMistake } from "./errors";
import type { RequestInfo } from "./invocation";

const CLOSE_GRACE_MS = 3_000;

/** A listening server and how to stop it. */
export interface Listener {
  readonly port: number;
  close(): Promise<void>;
}

/** Opens a port on loopback; 0 takes any. A port in use is one clear line. */
export async function listen(
  port: number,
  handle: (request: IncomingMessage, response: ServerResponse) => Promise<void>,
): Promise<Listener> {
  const server = createServer((request, response) => {
    // Small frames of a stream must not wait for an acknowledgement.
    request.socket.setNoDelay(true);
    void handle(request, response);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const taken = error.code === "EADDRINUSE";
      reject(
        taken
          ? new UserMistake(`Port ${port} is in use; choose another with --port and --site-port.`)
          : error,
      );
    });
    server.listen(port, "127.0.0.1", resolve);
  });
  return { port: (server.address() as AddressInfo).port, close: () => closeServer(server) };
}

/** Answers in flight get a few seconds; then their connections are cut. */
async function closeServer(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    server.close(() => {
      resolve();
    });
  });
  server.closeIdleConnections();
  const cut = setTimeout(() => {
    server.closeAllConnections();
  }, CLOSE_GRACE_MS);
  await closed;
  clearTimeout(cut);
}

/**
 * Who asked. A forwarded address is believed only when the connection comes from a configured
 * proxy; like the platform, the first one in the list is taken.
 */
export function requestInfo(
  request: IncomingMessage,
  trustedProxies: readonly string[],
): RequestInfo {
  const direct = request.socket.remoteAddress?.replace(/^::ffff:/, "") ?? null;
  const header = [request.headers["x-forwarded-for"] ?? []].flat().join(",");
  const first = header.split(",")[0]?.trim();
  const trusted =
    direct !== null && trustedProxies.includes(direct) && first !== undefined && first !== "";
  return {
    requestId: randomUUID().replaceAll("-", "").slice(0, 16),
    ip: trusted ? first : direct,
    userAgent: request.headers["user-agent"] ?? null,
    scheduledFunctionId: null,
  };
}

/** The body as text; stops at the limit instead of buffering what it will refuse. */
export async function readText(request: IncomingMessage, bytesMax: number): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > bytesMax)
      throw new PlatformError(413, "PayloadTooLarge", "The request body is too large.");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** One JSON answer with permissive cross-origin headers. */
export function sendJson(response: ServerResponse, status: number, json: string): void {
  response.writeHead(status, {
    "content-type": "application/json",
    "access-control-allow-origin": "*",
    vary: "Origin",
  });
  response.end(json);
}
