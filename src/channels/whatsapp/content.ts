/**
 * What a message says, whatever its kind. Meta puts a kind's own data under the key that is the
 * word in `type`; kinds are added over the years and named nowhere here that they need not be.
 */
import type { MessageEvent } from "./event";
import { bounded, type Fields, firstOf, objectAt, textAt } from "./fields";
import { boundText } from "./text";

type Content = Pick<MessageEvent, "text" | "textTruncated" | "mediaId" | "contextId">;

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

/** Reduces a message of any kind to what columns hold of its content. */
export function contentOf(message: Fields): Content {
  const said = textOf(message);
  const { text, truncated } = boundText(said ?? "");
  return {
    text: said === undefined ? null : text,
    textTruncated: truncated,
    mediaId: bounded(mediaOf(message), ID_LENGTH_MAX),
    contextId: originalOf(message),
  };
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
