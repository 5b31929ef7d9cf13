import { isArray, untag, type Json, type JsonObject } from "./json";

/**
 * Order-preserving keys. A key is a string in which every character is one byte, so that
 * JavaScript's `<` on keys, the byte order of the store and Convex's value order all agree.
 */

const TAG = {
  undefined: "\x01",
  null: "\x02",
  integer: "\x03",
  float: "\x04",
  false: "\x05",
  true: "\x06",
  string: "\x07",
  bytes: "\x08",
  array: "\x09",
  object: "\x0a",
} as const;
const END = "\x00";
// A zero byte inside a string: the byte after it is above every tag, so "a" sorts before "a\0".
const ESCAPED_ZERO = "\x00\xff";
const MAX_INT64 = "\xff\xff\xff\xff\xff\xff\xff\xff";
const SIGN_BIT = 0x80;
const BYTE = 0xff;

const float = new Float64Array(1);
const floatBytes = new Uint8Array(float.buffer);
const plainAscii = /^[\x01-\x7f]*$/;

/** The key part of one value; `undefined` is a missing field, which sorts before all values. */
export function encodeValue(value: Json | undefined): string {
  if (value === undefined) return TAG.undefined;
  if (value === null) return TAG.null;
  if (typeof value === "boolean") return value ? TAG.true : TAG.false;
  if (typeof value === "number") return TAG.float + encodeFloat(value);
  if (typeof value === "string") return TAG.string + encodeText(value);
  return isArray(value) ? encodeArray(value) : encodeObject(value);
}

/** The key part of several values in a row; no such key is a prefix of another. */
export function encodeValues(values: readonly (Json | undefined)[]): string {
  let key = "";
  for (const value of values) key += encodeValue(value);
  return key;
}

/** The smallest key above every key that starts with `prefix`. */
export function afterPrefix(prefix: string): string {
  return `${prefix}\xff`;
}

/** The smallest key above `key` itself. */
export function afterKey(key: string): string {
  return key + END;
}

function encodeArray(items: readonly Json[]): string {
  let key: string = TAG.array;
  for (const item of items) key += encodeValue(item);
  return key + END;
}

function encodeObject(value: JsonObject): string {
  const tagged = untag(value);
  switch (tagged.kind) {
    case "undefined":
      return TAG.undefined;
    case "commitTs":
      // Until the commit gives it a value, a commit timestamp sorts after every other.
      return TAG.integer + MAX_INT64;
    case "integer":
      return TAG.integer + encodeInteger(tagged.base64);
    case "float":
      return TAG.float + encodeFloat(Buffer.from(tagged.base64, "base64").readDoubleLE());
    case "bytes":
      return TAG.bytes + escapeZeros(Buffer.from(tagged.base64, "base64").toString("latin1"));
    case "object":
      return encodeFields(tagged.fields);
  }
}

function encodeFields(fields: JsonObject): string {
  let key: string = TAG.object;
  for (const name of Object.keys(fields).sort()) {
    key += TAG.string + encodeText(name) + encodeValue(fields[name]);
  }
  return key + END;
}

function encodeText(text: string): string {
  if (plainAscii.test(text)) return text + END;
  return escapeZeros(Buffer.from(text, "utf8").toString("latin1"));
}

function escapeZeros(bytes: string): string {
  return bytes.replaceAll(END, ESCAPED_ZERO) + END;
}

function encodeInteger(base64: string): string {
  const bytes = Buffer.from(base64, "base64").reverse();
  bytes[0] = (bytes[0] ?? 0) ^ SIGN_BIT;
  return bytes.toString("latin1");
}

// Positive numbers get the sign bit set, negative ones are inverted whole, so that the bytes sort
// as the numbers do (negative zero below zero, NaN at the end its sign bit says).
function encodeFloat(value: number): string {
  float[0] = value;
  const bytes = Buffer.from(floatBytes).reverse();
  if (((bytes[0] ?? 0) & SIGN_BIT) === 0) {
    bytes[0] = (bytes[0] ?? 0) | SIGN_BIT;
  } else {
    for (let i = 0; i < bytes.length; i++) bytes[i] = (bytes[i] ?? 0) ^ BYTE;
  }
  return bytes.toString("latin1");
}
