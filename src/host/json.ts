/** A Convex value in the JSON form that system calls carry (`$integer`, `$float`, `$bytes`, …). */
export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [field: string]: Json;
}

/** What a JSON object stands for: a wrapped scalar of Convex, or a plain object. */
export type Tagged =
  | { readonly kind: "integer"; readonly base64: string }
  | { readonly kind: "float"; readonly base64: string }
  | { readonly kind: "bytes"; readonly base64: string }
  | { readonly kind: "commitTs" }
  | { readonly kind: "undefined" }
  | { readonly kind: "object"; readonly fields: JsonObject };

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function isArray(value: Json): value is readonly Json[] {
  return Array.isArray(value);
}

/** Tells wrapped scalars from objects: a user's field can not start with `$`. */
export function untag(value: JsonObject): Tagged {
  for (const key in value) {
    if (!key.startsWith("$")) break;
    const inner = value[key];
    if (key === "$commitTs") return { kind: "commitTs" };
    if (key === "$undefined") return { kind: "undefined" };
    if (typeof inner !== "string") break;
    if (key === "$integer") return { kind: "integer", base64: inner };
    if (key === "$float") return { kind: "float", base64: inner };
    if (key === "$bytes") return { kind: "bytes", base64: inner };
    break;
  }
  return { kind: "object", fields: value };
}

/** The value at a dotted path, `undefined` when any step is missing or is not an object. */
export function fieldAt(document: JsonObject, path: readonly string[]): Json | undefined {
  let current: Json | undefined = document;
  for (const part of path) {
    if (!isObject(current) || !Object.hasOwn(current, part)) return undefined;
    current = current[part];
  }
  return current;
}

function int64(value: bigint): JsonObject {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64LE(value);
  return { $integer: bytes.toString("base64") };
}

const PLACEHOLDER = "$commitTs";

/** Whether the text may hold a commit timestamp that is not known yet. */
export function mayHoldPlaceholder(text: string): boolean {
  return text.includes(PLACEHOLDER);
}

/** Puts the commit timestamp, in nanoseconds, in place of every placeholder. */
export function resolvePlaceholders(value: Json, timestampNs: bigint): Json {
  if (isArray(value)) return value.map((item) => resolvePlaceholders(item, timestampNs));
  if (!isObject(value)) return value;
  if (untag(value).kind === "commitTs") return int64(timestampNs);
  const out: Record<string, Json> = {};
  for (const [key, inner] of Object.entries(value)) {
    out[key] = resolvePlaceholders(inner, timestampNs);
  }
  return out;
}
