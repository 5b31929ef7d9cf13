import { request as httpRequest } from "node:http";
import { hub256 } from "../../src/sim/deliveries";

export interface WireAnswer {
  readonly status: number;
  /** As received, names in lower case; several of one name are joined by a comma. */
  readonly headers: Readonly<Record<string, string>>;
  readonly text: string;
}

export interface WireRequest {
  readonly method?: string;
  /** A list sends the header once for each value. */
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  readonly body?: string | Uint8Array;
  /** Sends the body in chunks of this many bytes, without a declared length. */
  readonly chunkBytes?: number;
}

/**
 * One request exactly as written: doubled headers, chunked bodies and odd methods, which `fetch`
 * tidies up or refuses.
 */
export async function send(url: string, request: WireRequest = {}): Promise<WireAnswer> {
  const { method = "GET", headers = {}, body, chunkBytes } = request;
  const bytes = Buffer.from(body ?? "");
  return await new Promise((resolve, reject) => {
    const outgoing = httpRequest(url, { method, agent: false }, (response) => {
      const parts: Buffer[] = [];
      response.on("data", (part: Buffer) => parts.push(part));
      response.on("error", reject);
      response.on("end", () => {
        resolve({
          status: response.statusCode ?? 0,
          headers: Object.fromEntries(
            Object.entries(response.headersDistinct).map(([name, values = []]) => [
              name,
              values.join(", "),
            ]),
          ),
          text: Buffer.concat(parts).toString(),
        });
      });
    });
    outgoing.on("error", reject);
    for (const [name, value] of Object.entries(headers)) outgoing.setHeader(name, value);
    if (body !== undefined && chunkBytes === undefined)
      outgoing.setHeader("content-length", bytes.length);
    if (chunkBytes !== undefined)
      for (let at = 0; at < bytes.length; at += chunkBytes)
        outgoing.write(bytes.subarray(at, at + chunkBytes));
    else if (body !== undefined) outgoing.write(bytes);
    outgoing.end();
  });
}

export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: string;
  readonly requestId: string;
  readonly retryable: boolean;
  readonly issues?: readonly { readonly path: string; readonly message: string }[];
}

/** The problem in a refusal; throws where the answer is none, or its parts disagree. */
export function problemOf({ status, headers, text }: WireAnswer): Problem {
  if (headers["content-type"] !== "application/problem+json")
    throw new Error(`no problem: ${status} ${headers["content-type"] ?? ""} ${text}`);
  const problem = JSON.parse(text) as Problem;
  const agree =
    problem.status === status &&
    headers["x-error-code"] === problem.code &&
    headers["x-request-id"] === problem.requestId &&
    problem.type === `urn:ballast:error:${problem.code}` &&
    problem.title !== "" &&
    problem.detail !== "" &&
    headers["cache-control"] === "no-store";
  if (!agree) throw new Error(`parts disagree: ${JSON.stringify({ status, headers, problem })}`);
  return problem;
}

/** Status and code, for short comparisons. */
export const refusal = (answer: WireAnswer): readonly [number, string] => [
  answer.status,
  problemOf(answer).code,
];

/** A WhatsApp delivery as Meta signs it. */
export async function deliver(siteUrl: string, body: unknown, secret: string): Promise<WireAnswer> {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return await send(`${siteUrl}/api/whatsapp/webhook`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-hub-signature-256": hub256(secret, text) },
    body: text,
  });
}
