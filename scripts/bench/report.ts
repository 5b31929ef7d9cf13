import { table } from "../generate/markdown";
import { CONFIDENCE, type Counted, shareAtMost } from "./bound";
import type { Figure } from "./figures";
import { RATES, type ContentionLine, type Fared } from "./rows/contention";
import type { OperationLine } from "./rows/operations";

/** All that one run measured. */
export interface Results {
  readonly figures: readonly Figure[];
  readonly operations: readonly OperationLine[];
  readonly contention: readonly ContentionLine[];
}

const DIGITS = 3;

const round = (value: number | null): number | null =>
  value === null ? null : Number(value.toFixed(DIGITS));

/** A figure as it is printed; whether it passes was decided before. */
export function rounded({ id, what, ours, peer, limit, pass, counted }: Figure): Figure {
  const figure = { id, what, ours: round(ours), peer: round(peer), limit, pass };
  return counted === undefined ? figure : { ...figure, counted };
}

const number = (value: number | null): string =>
  value === null ? "–" : (round(value) ?? 0).toLocaleString("en-US");

export function figureTable(figures: readonly Figure[]): readonly string[] {
  return table(
    ["figure", "what", "ours", "best peer, same run", "at most", "holds"],
    figures.map(({ id, limit, ours, pass, peer, what }) => [
      id,
      what,
      ours === null ? "not measured" : number(ours),
      number(peer),
      number(limit),
      pass ? "yes" : "**no**",
    ]),
  );
}

/** How large a share may be of which few or none were seen. */
export function boundTable(figures: readonly Figure[]): readonly string[] {
  return table(
    ["figure", "counted", "seen", `share, with ${100 * CONFIDENCE} % confidence`],
    figures.flatMap(({ id, counted = [] }) =>
      counted.map((count) => [id, count.what, seen(count), bound(count)]),
    ),
  );
}

const seen = ({ events, trials }: Counted): string =>
  `${whole(events)} of ${trials.toLocaleString("en-US")}`;

const bound = (counted: Counted): string =>
  `at most ${(100 * shareAtMost(counted)).toPrecision(DIGITS)} %`;

export function operationTable(operations: readonly OperationLine[]): readonly string[] {
  return table(
    ["operation", "calls", "read", "written", "bytes read", "bytes written", "bytes"],
    operations.map((line) => [
      named(line),
      short(line.calls),
      short(line.documentsRead),
      short(line.documentsWritten),
      whole(line.bytesRead),
      whole(line.bytesWritten),
      whole(line.bytesRead + line.bytesWritten),
    ]),
  );
}

/** Attempts per operation, share given up, latency: one cell per rate. */
export function contentionTable(lines: readonly ContentionLine[]): readonly string[] {
  return table(
    ["function", ...RATES.map((perSecond) => `${perSecond}/s`)],
    lines.map((line) => [named(line), ...line.fared.map(fared)]),
  );
}

const named = ({ side, what }: { side: "ours" | "peer"; what: string }): string =>
  side === "ours" ? `**ours**: ${what}` : what;

function fared(how: Fared | null): string {
  if (how === null) return "–";
  const { attempts, p50, p99, terminalPct } = how;
  return `${attempts.toFixed(2)} / ${short(terminalPct)} % / ${whole(p50)} / ${whole(p99)}`;
}

const short = (value: number): string => String(Number(value.toFixed(2)));
const whole = (value: number): string => Math.round(value).toLocaleString("en-US");
