import { expect, test } from "vitest";
import type { Io } from "../main";
import { main as benchHost } from "./host";
import { main } from "./index";
import { asksFor, readOptions, ROWS } from "./options";
import { PARTS, unmeasured } from "./rows";

const asked = (wanted: string, ids: readonly string[]): string[] =>
  ids.filter((id) => asksFor(wanted, { id }));

function heard() {
  const out: string[] = [];
  const errors: string[] = [];
  const io = {
    projectDir: process.cwd(),
    print: (text: string) => out.push(text),
    printError: (text: string) => errors.push(text),
  } as unknown as Io;
  return { errors, io, out };
}

test("a row asks for all of its figures, a figure for itself", () => {
  const ids = [
    "T1.calls",
    "T10.failed",
    "T10b.failed",
    "T10b.full.failed",
    "T5.p50@10",
    "T5.p50@100",
  ];
  expect(asked("T1", ids)).toEqual(["T1.calls"]);
  expect(asked("T10", ids)).toEqual(["T10.failed", "T10b.failed", "T10b.full.failed"]);
  expect(asked("T10b", ids)).toEqual(["T10b.failed", "T10b.full.failed"]);
  expect(asked("T10b.full", ids)).toEqual(["T10b.full.failed"]);
  expect(asked("T5.p50", ids)).toEqual(["T5.p50@10", "T5.p50@100"]);
  expect(asked("T5.p50@10", ids)).toEqual(["T5.p50@10"]);
});

test("every row of the table of bars is measured by some part", () => {
  const measured = new Set(PARTS.flatMap(({ rows }) => rows));
  expect([...measured].sort()).toEqual([...ROWS].sort());
});

test("flags have their defaults and their bounds", () => {
  expect(readOptions([])).toMatchObject({ only: null, seed: 1, seeds: 10, json: false });
  expect(readOptions(["--seed=7", "--only", "T1, T6.calls", "--json"])).toMatchObject({
    only: ["T1", "T6.calls"],
    seed: 7,
    json: true,
  });
  for (const seed of [0, 2 ** 31 - 1, 2 ** 31])
    expect(readOptions(["--seed", String(seed)])).toMatchObject({ seed });
});

test.each([
  [["--only", "T20"], /knows no "T20": the rows are T1, .*T10b, .*T19/],
  [["--only", "T1,"], /knows no ""/],
  [["--only"], /--only/],
  [["--seed", "x"], /^--seed x is no whole number from 0 to 2147483648\.$/],
  [["--seed", "2147483649"], /^--seed 2147483649 is no whole number from 0 to 2147483648\.$/],
  [["--seed", "1e3"], /^--seed 1e3 is no whole number from 0 to 2147483648\.$/],
  [["--seeds", "0"], /^--seeds 0 is no whole number from 1 to/],
  [["--write", "--only", "T1"], /--write writes a whole run.*[^.]\.$/],
  [["--ony", "T1"], /Unknown option '--ony'.*[^.]\.$/],
  [["--only", "T13.writs"], /asks for T13.writs; the figures there are T13.reads, T13.writes/],
])("%j is a mistake that one line tells of, and nothing is printed", async (argv, line) => {
  const { errors, io, out } = heard();
  expect(await main(["--json", ...argv], io)).toBe(2);
  expect(out).toEqual([]);
  expect(errors).toEqual([expect.stringMatching(line)]);
});

test("rows that one part could not measure are misses with ids of their own", () => {
  const ids = (id: string, rows: string[]) =>
    unmeasured({ id, rows }, "why").figures.map((figure) => [figure.id, figure.pass]);
  expect(ids("T3", ["T3"])).toEqual([["T3", false]]);
  expect(ids("queue at 10/s", ["T5", "T7"])).toEqual([
    ["T5.unmeasured@queue-at-10-s", false],
    ["T7.unmeasured@queue-at-10-s", false],
  ]);
});

test.each([
  [["--documents", "999"], "--documents 999 is no whole number from 1000 to 1000000."],
  [["--documents=many"], "--documents many is no whole number from 1000 to 1000000."],
  [["--seed", "1"], "Unknown option '--seed'. See npm run bench:host -- --help."],
])("%j is a mistake to the benchmark of the host as well", async (argv, line) => {
  const { errors, io, out } = heard();
  expect(await benchHost(argv, io)).toBe(2);
  expect([out, errors]).toEqual([[], [line]]);
});
