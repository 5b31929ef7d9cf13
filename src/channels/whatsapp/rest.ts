/** What of a message no column holds. */
import { boundData } from "./data";
import type { MessageEvent } from "./event";
import { asObject, asParty, type Fields, textAt } from "./fields";
import { boundText } from "./text";

type Columns = Omit<MessageEvent, "dataJson" | "dataTruncated">;
type Data = Pick<MessageEvent, "dataJson" | "dataTruncated">;

/** Longer texts are no ids or words of a kind: what equals the column's text is a copy of it. */
const COPY_LENGTH_MIN = 257;

/** By the key of a message, whether its columns hold exactly this value. */
const TOLD = new Map<string, (value: unknown, columns: Columns) => boolean>([
  ["id", (id, { messageId, contextId }) => id === messageId || id === contextId],
  ["from", (from, columns) => asParty(from) === columns.from],
  ["from_user_id", (id, { fromUserId }) => asParty(id) === fromUserId],
  ["timestamp", (seconds, { sentAtMs }) => Number(seconds) * 1000 === sentAtMs],
  ["type", (type, { kind }) => type === kind],
  ["text", (text, columns) => isTextOf(asObject(text), columns)],
  ["context", (context, { contextId }) => isOnly(asObject(context), "id", contextId)],
]);

/** The kind's own data under the kind's name, and what stands beside it, as bounded JSON. */
export function dataOf(message: Fields, columns: Columns): Data {
  const rest = Object.entries(message).filter(([key, value]) => !isTold(key, value, columns));
  if (rest.length === 0) return {};
  const fields = Object.fromEntries(rest);
  const first = boundData(fields);
  const { json, truncated } = first.truncated ? boundData(withoutCopies(fields, columns)) : first;
  return {
    ...(json === null ? {} : { dataJson: json }),
    ...(truncated ? { dataTruncated: true } : {}),
  };
}

/** Null says nothing that could be lost. */
const isTold = (key: string, value: unknown, columns: Columns): boolean =>
  value === null || (TOLD.get(key)?.(value, columns) ?? false);

/** A text beyond its bound is told as well: its own column says that it was cut. */
function isTextOf(text: Fields | undefined, columns: Columns): boolean {
  const body = textAt(text, "body");
  return body !== undefined && isOnly(text, "body", body) && boundText(body).text === columns.text;
}

function isOnly(fields: Fields | undefined, key: string, value: string | null): boolean {
  if (fields === undefined) return false;
  return Object.keys(fields).every((name) => name === key) && textAt(fields, key) === value;
}

/** The fields without what is a copy of the text that its column holds whole, as an edit has one. */
function withoutCopies(fields: Fields, { text, textTruncated }: Columns): Fields {
  const isCopy = (value: unknown): boolean => value === text && !textTruncated;
  if (text === null || text.length < COPY_LENGTH_MIN) return fields;
  return withoutValues(fields, isCopy);
}

/** Bodies are bounded in depth, and so is this. Lists stay as they are. */
const withoutValues = (fields: Fields, isLeftOut: (value: unknown) => boolean): Fields =>
  Object.fromEntries(
    Object.entries(fields)
      .filter(([, value]) => !isLeftOut(value))
      .map(([key, value]) => {
        const object = asObject(value);
        return [key, object === undefined ? value : withoutValues(object, isLeftOut)];
      }),
  );
