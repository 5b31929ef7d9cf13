/** Readers of untrusted JSON: a missing or differently typed value is empty, never an exception. */

/** The value as a record; anything else is an empty one. */
export function record(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};
}

/** The value as a list; anything else is an empty one. */
export function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** The value as a string; anything else is empty. */
export function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/** The value as a finite number, or undefined. */
export function number(value: unknown): number | undefined {
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}

/** Parsed JSON, or undefined when the text is not JSON. */
export function parseJson(source: string | Uint8Array): unknown {
  try {
    return JSON.parse(typeof source === "string" ? source : new TextDecoder().decode(source));
  } catch {
    // The caller answers in the provider's own words.
    return undefined;
  }
}
