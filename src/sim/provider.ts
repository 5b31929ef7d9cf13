import type { IncomingHttpHeaders } from "node:http";

/** One request as a provider sees it, with the simulator's own prefix already taken off the path. */
export interface Call {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
  readonly bytes: Uint8Array;
  /** Where this provider is served, for links in its answers. */
  readonly baseUrl: string;
  readonly nowMs: number;
}

/** A step of a streamed body: text to write, or what happens between two writes. */
export type Step =
  | { readonly kind: "write"; readonly text: string }
  | { readonly kind: "pause"; readonly pauseMs: number }
  | { readonly kind: "hang" }
  | { readonly kind: "cut" };

export interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body:
    | { readonly kind: "json"; readonly value: unknown }
    | { readonly kind: "text"; readonly text: string }
    | { readonly kind: "bytes"; readonly bytes: Uint8Array }
    | { readonly kind: "stream"; readonly steps: Iterable<Step>; readonly splitBytes?: number };
}

/** What is known of a provider before any simulator runs. */
export interface ProviderSpec {
  /** First path segment and the name in faults and counts. */
  readonly id: string;
  /** The provider whose address this one uses, where it has none of its own. */
  readonly servedBy?: string;
  readonly title: string;
  /** Variables whose presence means the real provider is to be used. */
  readonly keyNames: readonly string[];
  /** Variables that point the app at the simulator, given the provider's address on it. */
  readonly env: (baseUrl: string) => Readonly<Record<string, string>>;
}

export interface Provider extends ProviderSpec {
  handle(call: Call): Answer | Promise<Answer>;
  /** An error of this status in the provider's own shape, as a fault would cause it. */
  refuse(status: number, retryAfterSeconds: number | undefined): Answer;
  /** Forgets what requests left behind. */
  reset?(): void;
}

/** A JSON answer. */
export function json(
  status: number,
  value: unknown,
  headers: Readonly<Record<string, string>> = {},
): Answer {
  return { status, headers, body: { kind: "json", value } };
}

/** The `Retry-After` header that a provider sends with this status, if any. */
export function retryAfter(
  status: number,
  retryAfterSeconds: number | undefined,
): Record<string, string> {
  const seconds = retryAfterSeconds ?? (status === 429 || status === 503 ? 1 : undefined);
  return seconds === undefined ? {} : { "retry-after": String(seconds) };
}

/** The token of an `Authorization: Bearer` header; null when there is none. */
export function bearer(call: Call): string | null {
  return /^Bearer\s+(\S+)$/i.exec(call.headers.authorization ?? "")?.[1] ?? null;
}
