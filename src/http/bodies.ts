import { nestsDeeper } from "../core/jsonText";
import { AppError } from "../errors/appError";

// The grammar of RFC 9110, sections 5.6.2 to 5.6.6. Packages that parse this header hide what must be
// refused here: a parameter that is given twice, or a quoted value without its end.
const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
const QUOTED = '"((?:[\\t !#-\\[\\]-~\\x80-\\xff]|\\\\[\\t -~\\x80-\\xff])*)"';
/** One parameter with the semicolon before it. It may be empty: lists of them may end in one. */
const PARAMETER = new RegExp(`[ \\t]*;[ \\t]*(?:(${TOKEN})=(?:(${TOKEN})|${QUOTED}))?`, "y");
const JSON_TYPE = /^application\/json(?=[ \t;]|$)/i;
const MEDIA_TYPE_LENGTH_MAX = 256;

/**
 * Throws `unsupported_media_type` unless the body is plain JSON in UTF-8. The header is parsed, not
 * searched: `text/plain; note=application/json` is no JSON, and two headers are none either.
 */
export function requireJson(headers: Headers): void {
  const encoding = headers.get("content-encoding")?.trim().toLowerCase() ?? "identity";
  if (encoding !== "identity" || !isJson(headers.get("content-type")?.trim() ?? ""))
    throw new AppError("unsupported_media_type");
}

function isJson(contentType: string): boolean {
  if (contentType.length > MEDIA_TYPE_LENGTH_MAX) return false;
  const type = JSON_TYPE.exec(contentType)?.[0];
  if (type === undefined) return false;
  const parameters = parametersOf(contentType.slice(type.length));
  const charset = parameters?.get("charset") ?? "utf-8";
  return parameters !== null && /^utf-?8$/i.test(charset);
}

/** Parameters by their names in lower case; null where the text is none, or names one twice. */
function parametersOf(text: string): ReadonlyMap<string, string> | null {
  const parameters = new Map<string, string>();
  for (let at = 0; at < text.length;) {
    PARAMETER.lastIndex = at;
    const found = PARAMETER.exec(text);
    if (found === null) return null;
    const [whole, name, bare, quoted = ""] = found;
    at += whole.length;
    if (name === undefined) continue;
    if (parameters.has(name.toLowerCase())) return null;
    parameters.set(name.toLowerCase(), bare ?? quoted.replace(/\\(.)/g, "$1"));
  }
  return parameters;
}

/** Throws `payload_too_large` where the sender already says so, before a byte is read. */
export function requireDeclaredLength(headers: Headers, bytesMax: number): void {
  const declared = headers.get("content-length");
  if (declared !== null && /^\d+$/.test(declared) && Number(declared) > bytesMax)
    throw tooLarge(bytesMax);
}

/**
 * The body's bytes, exactly as sent. A body without a declared length is read no further than the
 * limit: throws `payload_too_large` at the first byte past it.
 */
export async function readBytes(
  body: ReadableStream<Uint8Array> | null,
  bytesMax: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  const reader = body?.getReader();
  for (;;) {
    const part = await nextChunk(reader);
    if (part === null) return joined(chunks, length);
    length += part.length;
    if (length > bytesMax) {
      // The answer does not wait for the sender to stop; a sender that fails now changes nothing.
      void reader?.cancel().catch(() => undefined);
      throw tooLarge(bytesMax);
    }
    chunks.push(part);
  }
}

async function nextChunk(
  reader: ReadableStreamDefaultReader<Uint8Array> | undefined,
): Promise<Uint8Array | null> {
  if (reader === undefined) return null;
  try {
    const { done, value } = await reader.read();
    return done ? null : value;
  } catch {
    throw new AppError("invalid_request", { detail: "The request body ended early." });
  }
}

function joined(chunks: readonly Uint8Array[], length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

const tooLarge = (bytesMax: number): AppError =>
  new AppError("payload_too_large", { detail: `The body may have at most ${bytesMax} bytes.` });

/** Nesting that no honest body of ours needs, and that every later step can walk. */
export const JSON_DEPTH_MAX = 32;

/**
 * The JSON value in the bytes. Throws `invalid_json` for what is not UTF-8, has a byte order mark,
 * does not parse, is nested too deep, or names `__proto__`.
 */
export function parseJson(bytes: Uint8Array): unknown {
  const text = decode(bytes);
  // Measured before parsing: parsers and validators recurse.
  if (nestsDeeper(text, JSON_DEPTH_MAX))
    throw invalidJson(`It is nested deeper than ${JSON_DEPTH_MAX} levels.`);
  const value = parseText(text);
  // The walk is only for texts that could hold the key, in clear or escaped.
  if (/__proto__|\\u005f/i.test(text) && namesPrototype(value))
    throw invalidJson("It names a key that is reserved.");
  return value;
}

function decode(bytes: Uint8Array): string {
  try {
    // Keeping the mark makes the parser refuse it.
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw invalidJson("It is not UTF-8.");
  }
}

function parseText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw invalidJson("It does not parse.");
  }
}

const invalidJson = (reason: string): AppError =>
  new AppError("invalid_json", { detail: `The request body is not valid JSON. ${reason}` });

/** Depth is bounded by then. */
function namesPrototype(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  if (Object.hasOwn(value, "__proto__")) return true;
  return Object.values(value).some(namesPrototype);
}
