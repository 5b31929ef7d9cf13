/** Reads fields of JSON whose form is not certain: what has another form than expected is absent. */

/** A JSON object whose fields may have any form. */
export type Fields = Readonly<Record<string, unknown>>;

/** The value at a key. Keys of an object's prototype are no fields. */
export const valueAt = (fields: Fields | undefined, key: string): unknown =>
  fields !== undefined && Object.hasOwn(fields, key) ? fields[key] : undefined;

/** The value if it is an object, not null and no list. */
export function asObject(value: unknown): Fields | undefined {
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
  return isObject ? (value as Fields) : undefined;
}

export const objectAt = (fields: Fields | undefined, key: string): Fields | undefined =>
  asObject(valueAt(fields, key));

export function listAt(fields: Fields | undefined, key: string): readonly unknown[] | undefined {
  const value = valueAt(fields, key);
  return Array.isArray(value) ? value : undefined;
}

export function textAt(fields: Fields | undefined, key: string): string | undefined {
  const value = valueAt(fields, key);
  return typeof value === "string" ? value : undefined;
}

/** A phone number or user id. A number is one as well: its digits. */
export function asParty(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  return Number.isSafeInteger(value) && Number(value) >= 0 ? String(value) : undefined;
}

export const partyAt = (fields: Fields | undefined, key: string): string | undefined =>
  asParty(valueAt(fields, key));

/**
 * A non-empty identifier within its bound, else null: a cut one would identify another, and so
 * would one in which half of a surrogate pair, which the database does not store, was mended.
 */
export function bounded(text: string | undefined, lengthMax: number): string | null {
  if (text === undefined || text === "" || text.length > lengthMax) return null;
  return /\p{Surrogate}/u.test(text) ? null : text;
}

export function firstOf<Key, Found>(
  keys: readonly Key[],
  find: (key: Key) => Found | undefined,
): Found | undefined {
  for (const key of keys) {
    const found = find(key);
    if (found !== undefined) return found;
  }
  return undefined;
}
