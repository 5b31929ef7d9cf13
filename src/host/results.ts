import { BudgetExceeded, type Budget } from "./limits";
import { afterKey } from "./keys";
import type { Operator, Query } from "./query";
import { Scan, type Row, type View } from "./scan";

const ROWS_READ_MAX = 32_000;
const BYTES_READ_MAX = 16 * 1_024 * 1_024;
// Past three quarters of a limit a page is better split.
const SOFT_RATIO = 3 / 4;
const PAGE_ROWS_SOFT_MAX = 8_192 * SOFT_RATIO;
const END_OF_QUERY = "end";

/** What one query gives, row by row: the scan with filters and limits applied in order. */
export class ResultStream {
  readonly #scan: Scan;
  readonly #operators: readonly Operator[];
  readonly #passed: number[];
  readonly #budget: Budget;
  readonly #counted: boolean;
  #finished = false;
  /** What was read so far, whether it passed the filters or not. */
  rowsRead = 0;
  bytesRead = 0;
  lastKey: string | null = null;

  constructor(view: View, query: Query, budget: Budget) {
    budget.countQuery();
    this.#operators = query.operators;
    this.#passed = query.operators.map(() => 0);
    this.#budget = budget;
    // System tables have a budget of their own on the platform, too large to matter here.
    this.#counted = !query.range.table.isSystem;
    const [first] = query.operators;
    this.#scan = new Scan(view, query.range, first?.kind === "limit" ? first.rows : undefined);
  }

  get finished(): boolean {
    return this.#finished;
  }

  /** The next row that passes, or null at the end. */
  next(): Row | null {
    for (;;) {
      const row = this.read();
      if (row === null || this.passes(row)) return row;
    }
  }

  /** The next row of the scan, counted; null when there is none or a limit is used up. */
  read(): Row | null {
    const row = this.#finished || this.#isLimited() ? null : this.#scan.next();
    if (row === null) {
      this.#finished = true;
      return null;
    }
    this.rowsRead += 1;
    this.bytesRead += row.bytes;
    if (this.#counted) this.#budget.countRead(row.bytes);
    this.lastKey = row.key;
    return row;
  }

  passes(row: Row): boolean {
    return this.#operators.every((operator, i) => {
      if (operator.kind === "filter") return operator.accepts(row.value());
      const passed = this.#passed[i] ?? 0;
      this.#passed[i] = passed + 1;
      return passed < operator.rows;
    });
  }

  #isLimited(): boolean {
    return this.#operators.some(
      (operator, i) => operator.kind === "limit" && (this.#passed[i] ?? 0) >= operator.rows,
    );
  }
}

export interface PageRequest {
  readonly cursor: string | null;
  readonly endCursor: string | null;
  readonly pageSize: number;
  readonly maximumRowsRead: number | null;
  readonly maximumBytesRead: number | null;
}

type PageStatus = "SplitRequired" | "SplitRecommended";

/**
 * One page as JSON text. With an end cursor the page is whatever lies between the cursors, so that
 * pages of one list keep meeting when rows come and go.
 */
export function readPage(view: View, query: Query, request: PageRequest, budget: Budget): string {
  checkRequest(request);
  const start = parseCursor(request.cursor, query);
  const end = parseCursor(request.endCursor, query);
  const stream = new ResultStream(view, between(query, start, end), budget);
  const page: string[] = [];
  const keys: string[] = [];
  let status: PageStatus | null = null;
  while (start !== END_OF_QUERY && (end !== null || page.length < request.pageSize)) {
    if (end === null && isOverRequested(stream, request)) {
      status = "SplitRequired";
      break;
    }
    const row = readWithinBudget(stream);
    if (row === "overrun") {
      status = "SplitRequired";
      break;
    }
    if (row === null) break;
    keys.push(row.key);
    if (stream.passes(row)) page.push(row.text);
  }
  if (status === null && isLarge(stream, request, page.length)) status = "SplitRecommended";
  const last = keys.at(-1);
  const reached = stream.finished || start === END_OF_QUERY || last === undefined;
  const position = end ?? (reached ? END_OF_QUERY : last);
  const middle = keys.length > 2 ? keys[keys.length >> 1] : undefined;
  const rest = JSON.stringify({
    isDone: position === END_OF_QUERY,
    continueCursor: toCursor(position, query),
    splitCursor: middle === undefined ? null : toCursor(middle, query),
    pageStatus: status,
  });
  return `{"page":[${page.join(",")}],${rest.slice(1)}`;
}

function checkRequest({ pageSize, maximumRowsRead, maximumBytesRead }: PageRequest): void {
  if (pageSize === 0) throw new Error("Must request at least 1 document while paginating");
  if (pageSize > ROWS_READ_MAX) throw new Error(`Requested too many items: ${pageSize}`);
  if (maximumRowsRead === 0 || maximumBytesRead === 0) {
    throw new Error("maximumRowsRead and maximumBytesRead must be greater than 0");
  }
}

// Asked before each row, so that a page always gets on by one.
function isOverRequested(stream: ResultStream, request: PageRequest): boolean {
  const { maximumRowsRead, maximumBytesRead } = request;
  return (
    (maximumRowsRead !== null && stream.rowsRead >= maximumRowsRead) ||
    (maximumBytesRead !== null && stream.bytesRead >= maximumBytesRead)
  );
}

function isLarge(stream: ResultStream, request: PageRequest, rows: number): boolean {
  const rowsMax = Math.min(request.maximumRowsRead ?? ROWS_READ_MAX, ROWS_READ_MAX);
  const bytesMax = Math.min(request.maximumBytesRead ?? BYTES_READ_MAX, BYTES_READ_MAX);
  return (
    stream.rowsRead > Math.floor(rowsMax * SOFT_RATIO) ||
    stream.bytesRead > Math.floor(bytesMax * SOFT_RATIO) ||
    rows > PAGE_ROWS_SOFT_MAX
  );
}

/** A page that runs out of budget ends early, unless it has nothing yet. */
function readWithinBudget(stream: ResultStream): Row | null | "overrun" {
  const before = stream.lastKey;
  try {
    return stream.read();
  } catch (error) {
    if (error instanceof BudgetExceeded && before !== null) return "overrun";
    throw error;
  }
}

/** The query between two cursors: behind the first, up to the second and with it. */
function between(query: Query, start: string | null, end: string | null): Query {
  const { descending } = query.range;
  let { lower, upper } = query.range.interval;
  const isKey = (position: string | null) => position !== null && position !== END_OF_QUERY;
  if (isKey(start) && start !== null) {
    if (descending) upper = start < upper ? start : upper;
    else lower = afterKey(start) > lower ? afterKey(start) : lower;
  }
  if (isKey(end) && end !== null) {
    if (descending) lower = end > lower ? end : lower;
    else upper = afterKey(end) < upper ? afterKey(end) : upper;
  }
  if (lower > upper) upper = lower;
  return { ...query, range: { ...query.range, interval: { lower, upper } } };
}

function toCursor(position: string, { fingerprint }: Query): string {
  const place =
    position === END_OF_QUERY
      ? END_OF_QUERY
      : `.${Buffer.from(position, "latin1").toString("base64url")}`;
  return `${fingerprint()}.${place}`;
}

/** The key a cursor stands behind, or `END_OF_QUERY`, which is no key: keys begin with a tag. */
function parseCursor(cursor: string | null, { fingerprint }: Query): string | null {
  if (cursor === null) return null;
  const [owner, place = "", key] = cursor.split(".");
  if (owner !== fingerprint() || (key === undefined && place !== END_OF_QUERY)) {
    throw new Error(
      "InvalidCursor: Tried to run a query starting from a cursor, but it looks like this cursor is from a different query.",
    );
  }
  return key === undefined ? END_OF_QUERY : Buffer.from(key, "base64url").toString("latin1");
}
