import { afterKey } from "./keys";

/** A half-open range of keys of one index; it grows while a query scans on. */
export interface Interval {
  lower: string;
  upper: string;
}

interface IndexReads {
  readonly points: Set<string>;
  readonly ranges: Interval[];
  /** Sorted, merged copy of `ranges` for lookups; null when ranges were added or may have grown. */
  merged: readonly Interval[] | null;
}

/**
 * What a transaction read, as key ranges per index. An empty range counts as much as a full one:
 * an insert into it would have changed the answer.
 */
export class ReadSet {
  readonly #byIndex = new Map<number, IndexReads>();

  /** Records a lookup of one key. */
  addPoint(indexNumber: number, key: string): void {
    this.#reads(indexNumber).points.add(key);
  }

  /** Records a scan; the caller widens the interval it gets back as the scan advances. */
  addRange(indexNumber: number, interval: Interval): Interval {
    const reads = this.#reads(indexNumber);
    reads.ranges.push(interval);
    reads.merged = null;
    return interval;
  }

  /** The indexes that were read; asking for them makes `covers` see how far each scan has come. */
  *indexNumbers(): Generator<number> {
    for (const [index, reads] of this.#byIndex) {
      reads.merged = null;
      yield index;
    }
  }

  /** Whether a document with this key in this index, before or after a write, was in view. */
  covers(indexNumber: number, key: string): boolean {
    const reads = this.#byIndex.get(indexNumber);
    if (reads === undefined) return false;
    if (reads.points.has(key)) return true;
    const ranges = (reads.merged ??= merge(reads.ranges));
    let low = 0;
    let high = ranges.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((ranges[middle]?.lower ?? "") <= key) low = middle + 1;
      else high = middle;
    }
    const candidate = ranges[low - 1];
    return candidate !== undefined && key < candidate.upper;
  }

  #reads(indexNumber: number): IndexReads {
    let reads = this.#byIndex.get(indexNumber);
    if (reads === undefined) {
      reads = { points: new Set(), ranges: [], merged: null };
      this.#byIndex.set(indexNumber, reads);
    }
    return reads;
  }
}

/** The part of `full` that a scan has covered once it stands at `key`. */
export function scannedUpTo(
  interval: Interval,
  full: Readonly<Interval>,
  key: string,
  descending: boolean,
): void {
  interval.lower = descending ? key : full.lower;
  interval.upper = descending ? full.upper : afterKey(key);
}

function merge(ranges: readonly Interval[]): Interval[] {
  const sorted = ranges
    .filter(({ lower, upper }) => lower < upper)
    .sort((a, b) => (a.lower < b.lower ? -1 : 1));
  const merged: Interval[] = [];
  for (const { lower, upper } of sorted) {
    const last = merged.at(-1);
    if (last === undefined || lower > last.upper) merged.push({ lower, upper });
    else if (upper > last.upper) last.upper = upper;
  }
  return merged;
}
