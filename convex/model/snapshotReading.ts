/**
 * What one snapshot may read. However full the tables and whatever the knobs say, all sections
 * together stay below 500 documents and 256 KiB: each takes from what is left, and who is cut short
 * says so.
 */
import { KIB } from "../../src/core/bytes";
import { type Batch, takeBatch } from "./batch";

/** Of all sections; the rest, up to 500, are the rows that end a query cut short. */
const DOCUMENTS_MAX = 460;
/** The same of bytes: a row that ends a query may be as large as a webhook event. */
const BYTES_MAX = 176 * KIB;

/** What every section is told, and what they share. */
export interface Reading {
  readonly nowMs: number;
  readonly minutes: number;
  /** Rows a list of the snapshot shows at most. */
  readonly limit: number;
  /** What may still be read. */
  readonly left: Batch;
  /** Sections whose figures are lower bounds. */
  readonly truncated: Set<string>;
}

export const newReading = (window: Pick<Reading, "nowMs" | "minutes" | "limit">): Reading => ({
  ...window,
  left: { rowsLeft: DOCUMENTS_MAX, bytesLeft: BYTES_MAX, full: false },
  truncated: new Set(),
});

export interface Share {
  /** Named in `truncated` where its rows did not all fit. */
  readonly section: string;
  readonly rowsMax: number;
  /** Bytes of rows that can be large. Default what is left. */
  readonly bytesMax?: number;
}

/** The first rows of a query, as far as the section's share and the whole allow. */
export async function takeRows<Row>(
  { left, truncated }: Reading,
  rows: AsyncIterable<Row>,
  { bytesMax = left.bytesLeft, rowsMax, section }: Share,
): Promise<Row[]> {
  const share: Batch = {
    rowsLeft: Math.min(rowsMax, left.rowsLeft),
    bytesLeft: Math.min(bytesMax, left.bytesLeft),
    full: false,
  };
  if (share.rowsLeft <= 0 || share.bytesLeft <= 0) {
    truncated.add(section);
    return [];
  }
  const before = { ...share };
  const taken = await takeBatch(rows, share);
  left.rowsLeft -= before.rowsLeft - share.rowsLeft + (share.full ? 1 : 0);
  left.bytesLeft -= before.bytesLeft - share.bytesLeft;
  if (share.full) truncated.add(section);
  return taken;
}

/** As `takeRows`, for a list that shows the newest rows and promises no more than `rowsMax`. */
export async function takeNewest<Row>(
  reading: Reading,
  rows: AsyncIterable<Row>,
  { rowsMax, ...share }: Share,
): Promise<Row[]> {
  // Its own end is none that has to be told; only the whole's is.
  const own = { ...reading, truncated: new Set<string>() };
  const taken = await takeRows(own, rows, { ...share, rowsMax });
  if (taken.length < rowsMax && own.truncated.size > 0) reading.truncated.add(share.section);
  return taken;
}

/**
 * Takes narrow rows off the whole that another module is about to read, and says how many it may
 * and has to stop at.
 */
export function reserve({ left }: Reading, rowsMax: number): number {
  const rows = Math.max(0, Math.min(rowsMax, left.rowsLeft));
  left.rowsLeft -= rows;
  left.bytesLeft -= rows * NARROW_ROW_BYTES;
  return rows;
}

/** What a row of counters takes. */
const NARROW_ROW_BYTES = 160;

/** Name of what could not be named: it is not one of ours, and may hold anything. */
const OTHER = "other";

/**
 * A stored name as operators may see it. Names of ours are words and underscores; what is not could
 * be an address, a number or a text of somebody's, wherever it was stored.
 */
export const shownName = (name: string): string =>
  /^[a-z][a-z0-9_]{0,63}$/.test(name) ? name : OTHER;
