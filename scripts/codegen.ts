import { spawn } from "node:child_process";
import { cp, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Io, Main } from "./main";

const GENERATED = "convex/_generated";

/**
 * `npm run codegen`: refreshes `convex/_generated` without a deployment or a network; with
 * `--check` it only says whether that would change anything. The Convex command line runs on a copy
 * inside the project, with a home directory there, so that it leaves nothing elsewhere.
 */
export const main: Main = async (argv, io) => {
  const scratch = path.join(io.projectDir, ".output", "tmp", `codegen-${process.pid}`);
  try {
    await rm(scratch, { recursive: true, force: true });
    await mkdir(path.join(scratch, "home"), { recursive: true });
    for (const name of ["convex", "package.json", "tsconfig.json"])
      await cp(path.join(io.projectDir, name), path.join(scratch, name), { recursive: true });
    await rm(path.join(scratch, GENERATED), { recursive: true, force: true });
    const failure = await generate(scratch, io);
    if (failure !== null) {
      io.printError(`Codegen failed: ${failure}`);
      return 1;
    }
    const fresh = await readAll(path.join(scratch, GENERATED));
    const committed = await readAll(path.join(io.projectDir, GENERATED));
    const stale = [...new Set([...fresh.keys(), ...committed.keys()])].filter(
      (name) => fresh.get(name) !== committed.get(name),
    );
    if (argv.includes("--check")) return report(stale, io);
    for (const name of stale)
      await replace(path.join(io.projectDir, GENERATED), name, fresh.get(name));
    io.print(
      stale.length === 0
        ? `${GENERATED} is up to date.`
        : `Refreshed ${stale.join(", ")} in ${GENERATED}.`,
    );
    return 0;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
};

function report(stale: readonly string[], io: Io): number {
  if (stale.length === 0) return 0;
  io.printError(`${GENERATED} is stale (${stale.join(", ")}); run npm run codegen.`);
  return 1;
}

/** The hidden flag is what makes it work offline; `convex` is pinned to an exact version for that. */
async function generate(scratch: string, io: Io): Promise<string | null> {
  const bin = path.join(io.projectDir, "node_modules", "convex", "bin", "main.js");
  const home = path.join(scratch, "home");
  const child = spawn(
    process.execPath,
    [bin, "codegen", "--system-udfs", "--typecheck", "disable"],
    {
      cwd: scratch,
      env: {
        PATH: io.processEnvironment["PATH"] ?? "",
        HOME: home,
        USERPROFILE: home,
        XDG_CONFIG_HOME: home,
        TMPDIR: home,
        CI: "1",
      },
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  let said = "";
  child.stdout.on("data", (text: Buffer) => (said += text.toString()));
  child.stderr.on("data", (text: Buffer) => (said += text.toString()));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  return code === 0 ? null : said.trim();
}

async function readAll(dir: string): Promise<Map<string, string>> {
  const names = await readdir(dir).catch(() => []);
  return new Map(
    await Promise.all(
      names.map(async (name) => [name, await readFile(path.join(dir, name), "utf8")] as const),
    ),
  );
}

async function replace(dir: string, name: string, text: string | undefined): Promise<void> {
  if (text === undefined) await rm(path.join(dir, name));
  else {
    await mkdir(dir, { recursive: true });
    await writeFile(path.join(dir, name), text);
  }
}
