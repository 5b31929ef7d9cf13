import { type KnobRow, TEXT_BYTES_MAX } from "./rows";

/** What a knob can hold; null is a secret that is unset. */
export type Value = number | string | readonly string[] | null;

export type Parsed =
  | { readonly ok: true; readonly value: Value }
  /** The problem never repeats the value: it may be a secret in the wrong place. */
  | { readonly ok: false; readonly problem: string };

const LIST_ENTRIES_MAX = 100;

/** Reads a value that is not empty, as its row says. */
export function parseValue(row: KnobRow, raw: string): Parsed {
  if (new TextEncoder().encode(raw).length > TEXT_BYTES_MAX)
    return refuse(`is longer than ${TEXT_BYTES_MAX} bytes`);
  switch (row.kind) {
    case "int":
      return parseInteger(raw, row.min, row.max);
    case "enum":
      return row.options.includes(raw) ? accept(raw) : refuse(`is not ${oneOf(row.options)}`);
    case "url":
      return isBaseUrl(raw) ? accept(raw) : refuse("is not an http or https address");
    case "list":
      return parseList(raw, new RegExp(row.pattern));
    case "text":
    case "secret":
      return row.pattern === null || new RegExp(row.pattern).test(raw)
        ? accept(raw)
        : refuse("does not have the required form");
  }
}

const accept = (value: Value): Parsed => ({ ok: true, value });
const refuse = (problem: string): Parsed => ({ ok: false, problem });
const oneOf = (options: readonly string[]): string => options.join(" or ");

function parseInteger(raw: string, min: number, max: number): Parsed {
  const value = /^-?[0-9]{1,15}$/.test(raw) ? Number(raw) : Number.NaN;
  return value >= min && value <= max
    ? accept(value)
    : refuse(`is not a whole number from ${min} to ${max}`);
}

/** A base: paths are appended to it, so a query, a fragment or a password in it is a mistake. */
function isBaseUrl(raw: string): boolean {
  if (!/^https?:\/\/[^\s?#]+$/.test(raw)) return false;
  try {
    const { username, password, hostname } = new URL(raw);
    return username === "" && password === "" && hostname !== "";
  } catch {
    return false;
  }
}

function parseList(raw: string, pattern: RegExp): Parsed {
  const entries = raw
    .split(",")
    .map((entry) => entry.trim())
    .filter((entry) => entry !== "");
  if (entries.length === 0) return refuse("has no entry");
  if (entries.length > LIST_ENTRIES_MAX) return refuse(`has more than ${LIST_ENTRIES_MAX} entries`);
  const wrong = entries.findIndex((entry) => !pattern.test(entry));
  return wrong === -1 ? accept(entries) : refuse(`has an entry out of form, number ${wrong + 1}`);
}
