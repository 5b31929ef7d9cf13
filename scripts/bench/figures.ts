import type { Counted } from "./bound";
import type { Definition } from "./engine/app";

/** One figure of the table of bars. */
export interface Figure {
  readonly id: string;
  readonly what: string;
  /** Null where it could not be measured, which is a miss. */
  readonly ours: number | null;
  /** The best of the peers, measured in the same run; null where none has it. */
  readonly peer: number | null;
  readonly limit: number;
  readonly pass: boolean;
  /** What was counted, where the figure says that little or nothing of it went wrong. */
  readonly counted?: readonly Count[];
}

interface Count extends Counted {
  readonly what: string;
}

/** What every row of the table measures with. */
export interface Bench {
  readonly ours: Definition;
  readonly peers: Definition;
  /** A simulation is run once with each; its figure is the mean. */
  readonly seeds: readonly number[];
  /** Measures only once what several rows need. */
  once<T>(name: string, work: () => Promise<T>): Promise<T>;
  /** Tells a person where something came from. */
  note(line: string): void;
}

const SEED_STEP = 1_000;
const BETWEEN_SEEDS = 10;

/** The seeds of one run's histories; those of no other run are among them. */
export const seedsOf = ({ seed, seeds }: { seed: number; seeds: number }): readonly number[] =>
  Array.from({ length: seeds }, (_, i) => seed * SEED_STEP + i * BETWEEN_SEEDS);

export interface Row {
  readonly id: string;
  /** The rows it has figures of, where that is not the one it is named after. */
  readonly rows?: readonly string[];
  measure(bench: Bench): Promise<readonly Figure[]>;
}

/** A figure that must not be above its limit. */
export function atMost(
  id: string,
  what: string,
  measured: {
    ours: number | null;
    peer?: number | null;
    limit: number;
    counted?: readonly Count[];
  },
): Figure {
  const { counted, limit, ours, peer = null } = measured;
  const pass = ours !== null && !Number.isNaN(ours) && ours <= limit;
  return { id, what, ours, peer, limit, pass, ...(counted === undefined ? {} : { counted }) };
}

export const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

/** The smallest value that at least a share of all do not exceed; 0 where there are none. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
}
