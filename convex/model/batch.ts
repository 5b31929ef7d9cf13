import { getConvexSize, type Value } from "convex/values";
import { MIB } from "../../src/core/bytes";

/** Documents one transaction of a cleanup touches, well below the platform's limits. */
const BATCH_ROWS_MAX = 200;
/**
 * Bytes of the same: a few large documents are a batch as well. Deleting reads them once more, and
 * the last one may be a large one, as may be what came with it.
 */
const BATCH_BYTES_MAX = 1.7 * MIB;

/** What one transaction may still read. Shared by the queries of a cleanup, so that none adds up. */
export interface Batch {
  rowsLeft: number;
  bytesLeft: number;
  /** Whether something was left for the next one. */
  full: boolean;
}

/** A batch with the usual bounds, or fewer rows. */
export const newBatch = (rowsMax = BATCH_ROWS_MAX): Batch => ({
  rowsLeft: Math.min(BATCH_ROWS_MAX, rowsMax),
  bytesLeft: BATCH_BYTES_MAX,
  full: false,
});

/**
 * The first rows of a query, as far as the batch goes. Notes in it that there were more, or may have
 * been: after the last byte nothing more is read, as the next row could be a large one.
 */
export async function takeBatch<Row>(rows: AsyncIterable<Row>, batch: Batch): Promise<Row[]> {
  const taken: Row[] = [];
  if (isSpent(batch)) return taken;
  for await (const row of rows) {
    if (!hasRoom(batch)) break;
    taken.push(row);
    charge(batch, row);
    if (isSpent(batch)) break;
  }
  return taken;
}

/**
 * The first row of a query, or null: for rows that bring others with them, which are to be deleted
 * before the batch is spent on the next. Notes in it that there was one more, or may have been.
 */
export async function takeFirst<Row>(rows: AsyncIterable<Row>, batch: Batch): Promise<Row | null> {
  if (isSpent(batch)) return null;
  for await (const row of rows) {
    if (!hasRoom(batch)) break;
    charge(batch, row);
    return row;
  }
  return null;
}

/** Counts a row that was read besides those taken. */
export function charge(batch: Batch, row: unknown): void {
  batch.rowsLeft -= 1;
  // A document is a value; its type says so only for tables that are named.
  batch.bytesLeft -= getConvexSize(row as Value);
}

function hasRoom(batch: Batch): boolean {
  if (batch.rowsLeft > 0 && batch.bytesLeft > 0) return true;
  batch.full = true;
  return false;
}

function isSpent(batch: Batch): boolean {
  if (batch.bytesLeft > 0) return false;
  batch.full = true;
  return true;
}
