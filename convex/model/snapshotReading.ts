/**
 * What one snapshot may read. However full the tables and whatever the knobs say, all sections
 * together stay below 500 documents and 256 KiB: each takes from what is left, and who is cut short
 * says so.
 */
import { getConvexSize, type Value } from "convex/values";
import { KIB } from "../../src/core/bytes";
import { type Batch, takeBatch } from "./batch";

/** Of all sections. */
const DOCUMENTS_MAX = 490;
/** The same of bytes. The rest, up to 256 KiB, are the rows that end a query: some hold an event. */
const BYTES_MAX = 180 * KIB;

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

/** A part of the whole for somebody who reads by batch; `close` takes off what was read. */
export function shareOf(
  { left }: Reading,
  { bytesMax = left.bytesLeft, rowsMax }: Omit<Share, "section">,
): { readonly batch: Batch; readonly close: () => void } {
  const batch: Batch = {
    rowsLeft: Math.max(0, Math.min(rowsMax, left.rowsLeft)),
    bytesLeft: Math.max(0, Math.min(bytesMax, left.bytesLeft)),
    full: false,
  };
  const given = { ...batch };
  const close = (): void => {
    left.rowsLeft -= given.rowsLeft - batch.rowsLeft;
    left.bytesLeft -= given.bytesLeft - batch.bytesLeft;
  };
  return { batch, close };
}

/** The first rows of a query, as far as the section's share and the whole allow. */
export async function takeRows<Row>(
  reading: Reading,
  rows: AsyncIterable<Row>,
  { section, ...bounds }: Share,
): Promise<Row[]> {
  const { batch, close } = shareOf(reading, bounds);
  if (batch.rowsLeft === 0 || batch.bytesLeft === 0) {
    reading.truncated.add(section);
    return [];
  }
  const taken = await takeBatch(rows, batch);
  // The row that ended it was read as well, and is like the one before.
  if (batch.full) {
    batch.rowsLeft -= 1;
    batch.bytesLeft -= sizeOf(taken.at(-1));
    reading.truncated.add(section);
  }
  close();
  return taken;
}

// A document is a value; its type says so only for tables that are named.
const sizeOf = (row: unknown): number => getConvexSize(row as Value | undefined);

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

/** The same for a key made of names, such as `provider:serper_search`. */
export const shownKey = (key: string): string => key.split(":").map(shownName).join(":");
