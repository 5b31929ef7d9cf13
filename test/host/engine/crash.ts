import { spawn } from "node:child_process";
import path from "node:path";
import { createInterface } from "node:readline";
import { build } from "esbuild";
import { expect } from "vitest";
import { openDatabase } from "../../../src/host/engine";
import { partsOf } from "./crashSets";
import { scratchDir } from "./harness";

const LINES_BEFORE_KILL_MAX = 300;

/**
 * Kills a writing process at random moments, again and again on the same directory. After each kill
 * every set whose commit had resolved must be there whole, and none may be there in part.
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
      for (const set of await writeUntilKilled(program, { dir, next, lines })) {
        acknowledged.add(set);
      }
      const parts = await storedParts(dir);
      const lost = [...acknowledged].filter((set) => parts.get(set) !== partsOf(set));
      const torn = [...parts].filter(([set, count]) => count !== partsOf(set));
      expect({ round, lost, torn }).toEqual({ round, lost: [], torn: [] });
      next = Math.max(next, ...parts.keys()) + 1;
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
  const sets: number[] = [];
  let seen = 0;
  for await (const line of createInterface({ input: child.stdout })) {
    if (line === "ready") continue;
    sets.push(Number(line));
    seen += 1;
    // What was printed before the kill arrives still counts as acknowledged.
    if (seen === lines + 1) child.kill("SIGKILL");
  }
  return sets;
}

async function storedParts(dir: string): Promise<Map<number, number>> {
  const database = await openDatabase({ dir: path.join(dir, "store") });
  const query = {
    source: { type: "FullTableScan", tableName: "parts", order: null },
    operators: [],
  };
  const parts = new Map<number, number>();
  try {
    // One budget would not do for all documents, so each page has a transaction of its own.
    let cursor: string | null = null;
    for (;;) {
      const page = database.begin("query");
      const request = { query, cursor, endCursor: null, pageSize: 10_000 };
      const text = await page.asyncSyscall("1.0/queryPage", JSON.stringify(request));
      page.end();
      const result = JSON.parse(text) as {
        page: { set: number }[];
        isDone: boolean;
        continueCursor: string;
      };
      for (const { set } of result.page) parts.set(set, (parts.get(set) ?? 0) + 1);
      if (result.isDone) return parts;
      cursor = result.continueCursor;
    }
  } finally {
    await database.close();
  }
}
