import { describe, expect, test } from "vitest";
import { KIB } from "./bytes";
import * as Histograms from "./histogram";
import { addCalls, type Calls, fewestCalls } from "./rollup";

/** As large as a histogram gets: every bucket in use, and often. */
const latency = Histograms.encode(new Map(Array.from({ length: 150 }, (_, i) => [i, 1_000_000])));

const calls = (count: number): Calls[] =>
  Array.from({ length: count }, (_, i) => ({
    key: `route:${String(i).padStart(58, "k")}`,
    counts: { success: 1 + (i % 7), failure: i % 3 },
    latency,
  }));

const sum = (all: readonly Calls[], name: "success" | "failure"): number =>
  all.reduce((total, { counts }) => total + (counts[name] ?? 0), 0);

const bytes = (all: readonly Calls[]): number =>
  all.reduce((total, one) => total + one.key.length + one.latency.byteLength + 100, 0);

describe("calls of more keys than one document holds", () => {
  // An array has 8,192 places and a document 1 MiB.
  const all = calls(9_000);
  const fewest = fewestCalls(all);

  test("are those of the keys that have most, and of the others together", () => {
    expect(fewest).toHaveLength(100);
    expect(bytes(fewest)).toBeLessThan(128 * KIB);
    for (const name of ["success", "failure"] as const)
      expect(sum(fewest, name)).toBe(sum(all, name));
    const timed = (some: readonly Calls[]): number =>
      some.reduce((total, one) => total + Histograms.total(Histograms.decode(one.latency)), 0);
    expect(timed(fewest)).toBe(timed(all));
  });

  test("stay as few when more are added, with the same total", () => {
    const more = fewestCalls(addCalls([...fewest, ...calls(500)]));
    expect(more.length).toBeLessThanOrEqual(100);
    expect(sum(more, "success")).toBe(sum(all, "success") + sum(calls(500), "success"));
    expect(more.filter(({ key }) => key === "other")).toHaveLength(1);
  });

  test("are left alone where they are few", () => {
    expect(fewestCalls(calls(100))).toEqual(calls(100));
  });
});
