import { spawn } from "node:child_process";
import path from "node:path";
import { createInterface } from "node:readline";
import { build } from "esbuild";
import { expect } from "vitest";
import { openDatabase } from "../../../src/host/engine";
import { scratchDir } from "./harness";

const LINES_BEFORE_KILL_MAX = 400;

/**
 * Kills a writing process at random moments, again and again on the same directory. After each kill
 * every pair whose commit had resolved must be there whole, and no half pair may be.
 */
export async function surviveKills(rounds: number): Promise<void> {
  const { dir, remove } = scratchDir();
  try {
    const program = path.join(dir, "child.mjs");
    await build({
      entryPoints: ["test/host/engine/crashChild.ts"],
      outfile: program,
      bundle: true,
      platform: "node",
      format: "esm",
      packages: "external",
      logLevel: "error",
    });
    const acknowledged = new Set<number>();
    let next = 0;
    for (let round = 0; round < rounds; round++) {
      const lines = Math.floor(Math.random() * LINES_BEFORE_KILL_MAX);
      for (const pair of await writeUntilKilled(program, { dir, next, lines })) {
        acknowledged.add(pair);
      }
      const halves = await storedHalves(dir);
      const lost = [...acknowledged].filter((pair) => halves.get(pair) !== 2);
      const torn = [...halves].filter(([, count]) => count !== 2);
      expect({ round, lost, torn }).toEqual({ round, lost: [], torn: [] });
      next = Math.max(next, ...halves.keys()) + 1;
    }
    expect(acknowledged.size).toBeGreaterThan(rounds);
  } finally {
    remove();
  }
}

/** Kills the child in the middle of its work; gives the numbers it had acknowledged. */
async function writeUntilKilled(
  program: string,
  { dir, next, lines }: { dir: string; next: number; lines: number },
): Promise<number[]> {
  const child = spawn(process.execPath, [program, path.join(dir, "store"), String(next)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const pairs: number[] = [];
  let seen = 0;
  for await (const line of createInterface({ input: child.stdout })) {
    if (line === "ready") continue;
    pairs.push(Number(line));
    seen += 1;
    // What was printed before the kill arrives still counts as acknowledged.
    if (seen === lines + 1) child.kill("SIGKILL");
  }
  return pairs;
}

async function storedHalves(dir: string): Promise<Map<number, number>> {
  const database = await openDatabase({ dir: path.join(dir, "store") });
  const query = {
    source: { type: "FullTableScan", tableName: "halves", order: null },
    operators: [],
  };
  const halves = new Map<number, number>();
  try {
    // One budget would not do for all documents, so each page has a transaction of its own.
    let cursor: string | null = null;
    for (;;) {
      const page = database.begin("query");
      const request = { query, cursor, endCursor: null, pageSize: 10_000 };
      const text = await page.asyncSyscall("1.0/queryPage", JSON.stringify(request));
      page.end();
      const result = JSON.parse(text) as {
        page: { pair: number }[];
        isDone: boolean;
        continueCursor: string;
      };
      for (const { pair } of result.page) halves.set(pair, (halves.get(pair) ?? 0) + 1);
      if (result.isDone) return halves;
      cursor = result.continueCursor;
    }
  } finally {
    await database.close();
  }
}
