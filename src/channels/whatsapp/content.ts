/**
 * What a message says, whatever its kind. Meta puts a kind's own data under the key that is the
 * word in `type`; kinds are added over the years and named nowhere here that they need not be.
 */
import { boundData } from "./data";
import type { MessageEvent } from "./event";
import { boundText } from "./text";

/** A JSON object whose fields may have any form. */
export type Fields = Readonly<Record<string, unknown>>;

type Content = Pick<
  MessageEvent,
  "text" | "textTruncated" | "mediaId" | "contextId" | "dataJson" | "dataTruncated"
>;

/** Longest id that is used as it is; WhatsApp's are about 60 characters. */
export const ID_LENGTH_MAX = 256;

/** Kinds whose own data is a file's. */
const MEDIA_KINDS = ["image", "video", "audio", "document", "sticker"] as const;
/** Where a message that names no kind is looked for its own data. */
const KINDS_BY_FORM = [...MEDIA_KINDS, "text", "button", "interactive", "reaction"] as const;
/** Where kinds hold what a person wrote or chose, the most particular first. */
const SAID = ["body", "caption", "text", "emoji", "title"] as const;
/** Where kinds name another message, the most particular first. */
const ORIGINAL = ["original_message_id", "message_id"] as const;
/** Fields of a message that have columns of their own. */
const COLUMNS = new Set(["id", "from", "from_user_id", "timestamp", "type"]);

/** Reduces a message of any kind to what is stored of its content. */
export function contentOf(message: Fields): Content {
  const said = textOf(message);
  const { text, truncated } = boundText(said ?? "");
  const contextId = originalOf(message);
  return {
    text: said === undefined ? null : text,
    textTruncated: truncated,
    mediaId: bounded(mediaOf(message), ID_LENGTH_MAX),
    contextId,
    ...dataOf(message, contextId),
  };
}

/** The text at a key; undefined for anything else. Keys of an object's prototype are no fields. */
export function textAt(fields: Fields | undefined, key: string): string | undefined {
  const value = valueAt(fields, key);
  return typeof value === "string" ? value : undefined;
}

/** The object at a key; undefined for anything else, a list included. */
function objectAt(fields: Fields | undefined, key: string): Fields | undefined {
  const value = valueAt(fields, key);
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
  return isObject ? (value as Fields) : undefined;
}

const valueAt = (fields: Fields | undefined, key: string): unknown =>
  fields !== undefined && Object.hasOwn(fields, key) ? fields[key] : undefined;

/** A non-empty text within its bound, else null: a cut identifier would identify another. */
export function bounded(text: string | undefined, lengthMax: number): string | null {
  if (text === undefined || text === "" || text.length > lengthMax) return null;
  return boundText(text).text;
}

function ownOf(message: Fields): Fields | undefined {
  const named = objectAt(message, textAt(message, "type") ?? "");
  return named ?? firstOf(KINDS_BY_FORM, (kind) => objectAt(message, kind));
}

/** Within its own data a kind may have kinds again, told in the same way. */
const chosenOf = (own: Fields | undefined): Fields | undefined =>
  objectAt(own, textAt(own, "type") ?? "") ??
  firstOf(["button_reply", "list_reply", "nfm_reply"], (kind) => objectAt(own, kind));

function textOf(message: Fields): string | undefined {
  const own = ownOf(message);
  // An edit holds the message as it is now. Bodies are bounded in depth, and so is this.
  const now = objectAt(own, "message");
  const inner = now === undefined ? undefined : textOf(now);
  const said = inner ?? saidIn(chosenOf(own)) ?? saidIn(own);
  // Meta leaves the emoji out, or empty, when a reaction is removed.
  const removed = own !== undefined && textAt(message, "type") === "reaction";
  return said ?? (removed ? "" : undefined);
}

const saidIn = (fields: Fields | undefined): string | undefined =>
  firstOf(SAID, (key) => textAt(fields, key));

function mediaOf(message: Fields): string | undefined {
  const own = ownOf(message);
  const now = objectAt(own, "message");
  const file =
    firstOf(MEDIA_KINDS, (kind) => objectAt(message, kind)) ??
    (textAt(own, "mime_type") === undefined ? undefined : own);
  return textAt(file, "id") ?? (now === undefined ? undefined : mediaOf(now));
}

/**
 * The message that this one is about. What the kind itself names comes first: an edit of a reply
 * is about the reply, not about what the reply answered.
 */
function originalOf(message: Fields): string | null {
  const own = ownOf(message);
  const context = objectAt(message, "context");
  const named = [
    ...namedIn(own),
    ...namedIn(chosenOf(own)),
    textAt(context, "id"),
    ...namedIn(context),
  ];
  return named.map((id) => bounded(id, ID_LENGTH_MAX)).find((id) => id !== null) ?? null;
}

/** The ids of messages among the fields, known names first, then whatever is called like one. */
function namedIn(fields: Fields | undefined): (string | undefined)[] {
  if (fields === undefined) return [];
  const alike = Object.keys(fields).filter((key) => key.endsWith("_message_id"));
  return [...ORIGINAL, ...alike].map((key) => textAt(fields, key));
}

/** What no column holds, by key: the kind's own data, and what stands beside it. */
function dataOf(message: Fields, contextId: string | null) {
  const rest = Object.entries(message).filter(
    ([key, value]) => !COLUMNS.has(key) && !isTold(key, { value, contextId }),
  );
  if (rest.length === 0) return {};
  const { json, truncated } = boundData(Object.fromEntries(rest));
  return {
    ...(json === null ? {} : { dataJson: json }),
    ...(truncated ? { dataTruncated: true } : {}),
  };
}

/** Whether columns tell all of it: a plain text, and a plain answer to the message they name. */
function isTold(
  key: string,
  { contextId, value }: { readonly value: unknown; readonly contextId: string | null },
): boolean {
  const fields = objectAt({ value }, "value");
  if (fields === undefined) return false;
  const keys = Object.keys(fields);
  if (key === "text") return keys.every((name) => name === "body");
  const plain = keys.every((name) => name === "id" || name === "from");
  return key === "context" && plain && textAt(fields, "id") === contextId;
}

function firstOf<Key, Found>(
  keys: readonly Key[],
  find: (key: Key) => Found | undefined,
): Found | undefined {
  for (const key of keys) {
    const found = find(key);
    if (found !== undefined) return found;
  }
  return undefined;
}
