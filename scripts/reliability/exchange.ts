import { request as overHttp } from "node:http";
import { request as overHttps } from "node:https";
import { TLSSocket } from "node:tls";

export interface Sent {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | null;
  /** Sends the body without saying before how long it is. */
  readonly chunked?: boolean;
}

export interface Answer {
  readonly status: number;
  /** Names in lower case; several of one name are joined by a comma. */
  readonly headers: Readonly<Record<string, string>>;
  /** At most `TEXT_BYTES_MAX` of it. */
  readonly text: string;
  /** Until its last byte. */
  readonly latencyMs: number;
  /** When the certificate of the connection ends; null where there is none. */
  readonly certificateEndsAt: string | null;
}

const TEXT_BYTES_MAX = 1024 * 1024;
const CHUNK_BYTES = 16 * 1024;

/**
 * One request exactly as written, on a connection of its own: odd methods, no content type and
 * bodies of unknown length, which `fetch` tidies up or refuses. Rejects where no answer came.
 */
export async function exchange(base: string, sent: Sent, signal: AbortSignal): Promise<Answer> {
  const url = new URL(base + sent.path);
  const send = url.protocol === "https:" ? overHttps : overHttp;
  const startedAtMs = performance.now();
  return await new Promise((resolve, reject) => {
    let certificateEndsAt: string | null = null;
    const outgoing = send(url, { method: sent.method, agent: false, signal }, (response) => {
      const parts: Buffer[] = [];
      let length = 0;
      const answered = (): void => {
        resolve({
          status: response.statusCode ?? 0,
          headers: Object.fromEntries(
            Object.entries(response.headersDistinct).map(([name, values = []]) => [
              name,
              values.join(", "),
            ]),
          ),
          text: Buffer.concat(parts).toString().slice(0, TEXT_BYTES_MAX),
          latencyMs: Number((performance.now() - startedAtMs).toFixed(1)),
          certificateEndsAt,
        });
      };
      response.on("data", (part: Buffer) => {
        parts.push(part);
        length += part.length;
        if (length <= TEXT_BYTES_MAX) return;
        answered();
        response.destroy();
      });
      response.on("error", reject);
      response.on("end", answered);
    });
    outgoing.on("socket", (socket) => {
      socket.on("secureConnect", () => {
        if (socket instanceof TLSSocket) certificateEndsAt = socket.getPeerCertificate().valid_to;
      });
    });
    // One that comes after the answer changes nothing: a large body is refused while it is sent.
    outgoing.on("error", reject);
    for (const [name, value] of Object.entries(sent.headers)) outgoing.setHeader(name, value);
    write(outgoing, sent);
    outgoing.end();
  });
}

function write(
  outgoing: ReturnType<typeof overHttp>,
  { body, chunked = false }: Pick<Sent, "body" | "chunked">,
): void {
  if (body === null) return;
  const bytes = Buffer.from(body);
  if (!chunked) outgoing.setHeader("content-length", bytes.length);
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES)
    outgoing.write(bytes.subarray(at, at + CHUNK_BYTES));
}
