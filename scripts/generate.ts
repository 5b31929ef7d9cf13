import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { format, resolveConfig } from "prettier";
import { sloBaselineSchema } from "../src/slo/baselineFile";
import { apiPage } from "./generate/api";
import { configurationPage } from "./generate/configuration";
import { envExample } from "./generate/envExample";
import { simulatorsPage } from "./generate/simulators";
import { surfaceMatrix } from "./generate/surfaceMatrix";
import type { Main } from "./main";
import { ARTIFACT_SCHEMAS } from "./reliability/artifacts";

/** Every file that is made from the tables, and how. */
export const GENERATED_FILES: Readonly<Record<string, () => string>> = {
  ".env.example": envExample,
  "docs/configuration.md": configurationPage,
  "docs/api.md": apiPage,
  "docs/simulators.md": simulatorsPage,
  "scripts/reliability/phase-2-surface-matrix.md": surfaceMatrix,
  "scripts/reliability/slo-baseline.schema.json": sloBaselineSchema,
  ...ARTIFACT_SCHEMAS,
};

/**
 * `npm run generate`: writes what is derived from the tables; with `--check` it names each file
 * that is stale and exits 1.
 */
export const main: Main = async (argv, io) => {
  const unknown = argv.filter((flag) => flag !== "--check");
  if (unknown.length > 0) {
    io.printError(`Unknown argument ${unknown.join(", ")}. Usage: npm run generate -- [--check]`);
    return 2;
  }
  const check = argv.includes("--check");
  let stale = 0;
  for (const name of Object.keys(GENERATED_FILES)) {
    const file = path.join(io.projectDir, name);
    const fresh = await render(name, file);
    if ((await readFile(file, "utf8").catch(() => null)) === fresh) continue;
    stale += 1;
    if (check) io.printError(`${name} is stale; run npm run generate.`);
    else {
      await mkdir(path.dirname(file), { recursive: true });
      await writeFile(file, fresh);
      io.print(`Wrote ${name}.`);
    }
  }
  if (stale === 0) io.print("All generated files are up to date.");
  return check && stale > 0 ? 1 : 0;
};

/** Pages leave here as the formatter wants them, so that its check and ours agree. */
async function render(name: string, file: string): Promise<string> {
  const text = GENERATED_FILES[name]?.() ?? "";
  if (!/\.(?:md|json)$/.test(name)) return text;
  return await format(text, { ...(await resolveConfig(file)), filepath: file });
}
