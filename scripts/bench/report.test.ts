import { expect, test } from "vitest";
import { atMost } from "./figures";
import { boundTable, rounded } from "./report";

const counted = [
  { what: "calls lost", events: 0, trials: 20_000 },
  { what: "attempts lost", events: 1, trials: 20_001 },
];
const figures = [
  atMost("T1.calls", "calls", { ours: 2, limit: 3 }),
  atMost("T10.failed", "lost, %", { ours: 0, limit: 0, counted }),
];

test("a figure that was counted is stated with how much it may be all the same", () => {
  expect(boundTable(figures).slice(2)).toEqual([
    "| T10.failed | calls lost | 0 of 20,000 | at most 0.0150 % |",
    "| T10.failed | attempts lost | 1 of 20,001 | at most 0.0237 % |",
  ]);
});

test("a figure is printed with its counts where it has any", () => {
  const rest = { what: "calls", peer: null, pass: true };
  expect(figures.map(rounded)).toEqual([
    { id: "T1.calls", ours: 2, limit: 3, ...rest },
    { id: "T10.failed", ours: 0, limit: 0, counted, ...rest, what: "lost, %" },
  ]);
});
