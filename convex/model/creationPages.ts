import { AppError } from "../../src/errors/appError";

export const PAGE_ROWS_MAX = 500;
const PAGE_ROWS_DEFAULT = 100;
/** Rows of one creation time that a page can continue among; a transaction gives each its own. */
const SAME_TIME_ROWS_MAX = 1_000;

export interface PageRequest {
  readonly limit?: number | undefined;
  readonly cursor?: string | null | undefined;
}

interface Listed {
  readonly _id: string;
  readonly _creationTime: number;
}

interface RowSource<Row> {
  readonly createdAt: (time: number, count: number) => Promise<Row[]>;
  readonly createdAfter: (time: number, count: number) => Promise<Row[]>;
}

export interface Page<Row> {
  readonly rows: readonly Row[];
  /** Null when nothing follows now. */
  readonly cursor: string | null;
}

/**
 * One page of a table in order of creation. Rows are never listed twice unless the row that the
 * cursor names has died. Throws `invalid_request` for a cursor that is not ours and for a limit
 * outside 1 to 500.
 */
export async function pageOf<Row extends Listed>(
  { limit = PAGE_ROWS_DEFAULT, cursor = null }: PageRequest,
  source: RowSource<Row>,
): Promise<Page<Row>> {
  if (!Number.isInteger(limit) || limit < 1 || limit > PAGE_ROWS_MAX)
    throw refuse("limit", `Expected a whole number from 1 to ${PAGE_ROWS_MAX}`);
  const found = await rowsAfter(cursor === null ? null : decode(cursor), limit + 1, source);
  const rows = found.slice(0, limit);
  const last = rows.at(-1);
  return { rows, cursor: found.length > limit && last !== undefined ? encode(last) : null };
}

interface Position {
  readonly time: number;
  readonly id: string;
}

async function rowsAfter<Row extends Listed>(
  position: Position | null,
  count: number,
  source: RowSource<Row>,
): Promise<Row[]> {
  if (position === null) return await source.createdAfter(0, count);
  const same = await source.createdAt(position.time, SAME_TIME_ROWS_MAX);
  // When the row itself has died this is -1 and its contemporaries come again: twice beats never.
  const rest = same.slice(same.findIndex(({ _id }) => _id === position.id) + 1);
  if (rest.length >= count) return rest;
  return [...rest, ...(await source.createdAfter(position.time, count - rest.length))];
}

const encode = ({ _creationTime, _id }: Listed): string => btoa(`${_creationTime}:${_id}`);

function decode(cursor: string): Position {
  const [, time = "", id = ""] = /^([0-9.]{1,30}):(.{1,64})$/.exec(decoded(cursor)) ?? [];
  if (id === "" || !Number.isFinite(Number(time)))
    throw refuse("cursor", "Expected a cursor of an earlier page");
  return { time: Number(time), id };
}

function decoded(cursor: string): string {
  try {
    return atob(cursor);
  } catch {
    return "";
  }
}

const refuse = (path: string, message: string): AppError =>
  new AppError("invalid_request", { issues: [{ path, message }] });
