import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { readBaseline } from "../../src/slo/baselineFile";
import type { SloBaseline } from "../../src/slo/objectives";
import { UsageError } from "../usage";

const BASELINE_FILE = "scripts/reliability/slo-baseline.json";

/** Thresholds with the hash by which an artifact names them. */
export interface LoadedBaseline {
  readonly baseline: SloBaseline;
  readonly hash: string;
}

/** Reads the project's baseline, or another. Throws `UsageError` with everything wrong with it. */
export async function loadBaseline(
  projectDir: string,
  file: string = BASELINE_FILE,
): Promise<LoadedBaseline> {
  const text = await readFile(path.resolve(projectDir, file), "utf8").catch(() => null);
  if (text === null) throw new UsageError(`There is no baseline ${file}.`);
  const found = readBaseline(text);
  if (!found.ok) throw new UsageError(`${file} is no baseline. ${found.problems.join("; ")}.`);
  return { baseline: found.baseline, hash: createHash("sha256").update(text).digest("hex") };
}
