// Wire format: develop.sentry.dev, "Envelopes", "Authentication" and "Rate limiting".
import { gunzipSync, inflateSync } from "node:zlib";
import { parseJson, record, text } from "./json";
import {
  json,
  retryAfter,
  type Answer,
  type Call,
  type Provider,
  type ProviderSpec,
} from "./provider";

const PUBLIC_KEY = "51c0ffee51c0ffee51c0ffee51c0ffee";
const PROJECT = "1";
/** Envelopes kept; the oldest go first. */
const ENVELOPES_MAX = 500;

export const sentrySpec: ProviderSpec = {
  id: "sentry",
  title: "Sentry",
  keyNames: ["SENTRY_DSN"],
  env: (baseUrl) => ({ SENTRY_DSN: `${baseUrl.replace("://", `://${PUBLIC_KEY}@`)}/${PROJECT}` }),
};

interface EnvelopeItem {
  readonly header: Readonly<Record<string, unknown>>;
  /** Parsed JSON, or the text when it is none. */
  readonly payload: unknown;
}

interface Envelope {
  readonly header: Readonly<Record<string, unknown>>;
  readonly items: readonly EnvelopeItem[];
}

/** Event ingest that keeps what it got, so that a test can read it. */
export interface Sentry extends Provider {
  envelopes(): readonly Envelope[];
}

/** The ingest endpoint of one project. */
export function createSentry(): Sentry {
  let kept: Envelope[] = [];
  return {
    ...sentrySpec,
    handle: (call) => {
      const envelope = accept(call);
      if (!("items" in envelope)) return envelope;
      kept = [...kept, envelope].slice(-ENVELOPES_MAX);
      return json(200, { id: text(envelope.header["event_id"]) });
    },
    refuse,
    reset: () => {
      kept = [];
    },
    envelopes: () => kept,
  };
}

function accept(call: Call): Envelope | Answer {
  const project = /^\/api\/(\w+)\/envelope\/?$/.exec(call.path)?.[1];
  if (project === undefined || call.method !== "POST") return json(404, { detail: "not found" });
  const key = keyOf(call);
  if (key === null) return json(401, { detail: "missing authorization information" });
  if (project !== PROJECT || key !== PUBLIC_KEY) return refuse(403, undefined);
  const envelope = parseEnvelope(plainBytes(call));
  return (
    envelope ?? json(400, { detail: "invalid event envelope", causes: ["missing envelope header"] })
  );
}

function keyOf(call: Call): string | null {
  const header = call.headers["x-sentry-auth"];
  const inHeader = /\bsentry_key=([0-9a-f]+)/.exec(typeof header === "string" ? header : "")?.[1];
  return inHeader ?? call.query.get("sentry_key");
}

function plainBytes(call: Call): Buffer {
  const bytes = Buffer.from(call.bytes);
  switch (call.headers["content-encoding"] ?? "identity") {
    case "gzip":
      return gunzipSync(bytes);
    case "deflate":
      return inflateSync(bytes);
    default:
      return bytes;
  }
}

/** A header line, then items: a header line each, and a payload of its `length` or up to the line's end. */
function parseEnvelope(bytes: Buffer): Envelope | null {
  let at = 0;
  const take = (length: number | undefined): string => {
    const newline = bytes.indexOf(0x0a, at);
    const end = length === undefined ? (newline < 0 ? bytes.length : newline) : at + length;
    const taken = bytes.subarray(at, end).toString("utf8");
    at = end + 1;
    return taken;
  };
  const header = parseJson(take(undefined));
  if (header === undefined) return null;
  const items: EnvelopeItem[] = [];
  while (at < bytes.length) {
    const line = take(undefined);
    if (line === "") continue;
    const itemHeader = record(parseJson(line));
    const length = itemHeader["length"];
    const payload = take(typeof length === "number" ? length : undefined);
    items.push({ header: itemHeader, payload: parseJson(payload) ?? payload });
  }
  return { header: record(header), items };
}

function refuse(status: number, retryAfterSeconds: number | undefined): Answer {
  const headers = retryAfter(status, retryAfterSeconds);
  if (status === 429)
    return json(
      429,
      { detail: "event submission rejected with_reason: RateLimited" },
      { ...headers, "x-sentry-rate-limits": `${headers["retry-after"] ?? "1"}:error:organization` },
    );
  const detail =
    status >= 500 ? "internal server error" : "event submission rejected with_reason: ProjectId";
  return json(status, { detail }, headers);
}
