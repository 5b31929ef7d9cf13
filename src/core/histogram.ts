/**
 * Latencies in buckets that grow by a fixed ratio, so that a percentile read from them is off by at
 * most 5 % at any scale. Buckets in use are counted, the others cost nothing: a minute of ordinary
 * traffic is a few dozen bytes, and histograms of any minutes and places add up exactly.
 */
export type Histogram = ReadonlyMap<number, number>;

/** Largest distance between a percentile and the latency it stands for, as a share of that. */
export const RELATIVE_ERROR = 0.05;

/** Latencies above an hour count as an hour. */
const LATENCY_MS_MAX = 3_600_000;

const RATIO = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR);
const LOG_RATIO = Math.log(RATIO);

/** Bucket i holds latencies from above RATIO^(i-1) to RATIO^i ms; those up to 1 ms are in 0. */
const bucketOf = (latencyMs: number): number =>
  latencyMs > 1 ? Math.ceil(Math.log(Math.min(latencyMs, LATENCY_MS_MAX)) / LOG_RATIO) : 0;

/** The value as far from the bucket's lower end as from its upper one, relatively. */
const valueOf = (bucket: number): number => (2 * RATIO ** bucket) / (1 + RATIO);

export const EMPTY: Histogram = new Map();

/** The histogram with one more latency in it. One below 0, or no number, counts as 0. */
export function add(histogram: Histogram, latencyMs: number): Histogram {
  const bucket = bucketOf(latencyMs);
  return new Map(histogram).set(bucket, (histogram.get(bucket) ?? 0) + 1);
}

/** What all of them hold together. */
export function merge(histograms: readonly Histogram[]): Histogram {
  const sum = new Map<number, number>();
  for (const histogram of histograms)
    for (const [bucket, count] of histogram) sum.set(bucket, (sum.get(bucket) ?? 0) + count);
  return sum;
}

/** How many latencies it holds. */
export function total(histogram: Histogram): number {
  let sum = 0;
  for (const count of histogram.values()) sum += count;
  return sum;
}

/**
 * The latency in ms that a share of all (0 to 1) did not exceed, within `RELATIVE_ERROR` or 1 ms;
 * null for none.
 */
export function quantileMs(histogram: Histogram, share: number): number | null {
  const rank = share * (total(histogram) - 1);
  let seen = 0;
  for (const bucket of [...histogram.keys()].sort((a, b) => a - b)) {
    seen += histogram.get(bucket) ?? 0;
    if (seen > rank) return valueOf(bucket);
  }
  return null;
}

/** Stored form: for each bucket in use its distance from the last one and its count, as varints. */
export function encode(histogram: Histogram): ArrayBuffer {
  const bytes: number[] = [];
  let next = 0;
  for (const [bucket, count] of [...histogram].sort(([a], [b]) => a - b)) {
    pushVarint(bytes, bucket - next);
    pushVarint(bytes, count);
    next = bucket + 1;
  }
  return new Uint8Array(bytes).buffer;
}

/** Reads what `encode` wrote. Throws for anything else. */
export function decode(stored: ArrayBuffer): Histogram {
  const bytes = new Uint8Array(stored);
  const histogram = new Map<number, number>();
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      if (byte === undefined) throw new Error("a stored histogram ends within a number");
      value += (byte % 128) * scale;
      if (byte < 128) return value;
    }
  };
  let next = 0;
  while (at < bytes.length) {
    const bucket = next + varint();
    histogram.set(bucket, varint());
    next = bucket + 1;
  }
  return histogram;
}

function pushVarint(bytes: number[], value: number): void {
  let rest = value;
  // Not by shifting: counts of hours may pass 32 bits.
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128);
  bytes.push(rest);
}
