import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { type Environment, environmentOf, ran } from "./child";
import { packageFor } from "./plan";

const FETCH_MS_MAX = 5 * 60_000;
const ASK_MS_MAX = 60_000;

/** Why something cannot be run here; no failure of Ballast. */
export class NotHad extends Error {}

/** What git ignores, by the names at the top of the tree: packages, data, reports, secrets. */
const NOT_COPIED = /^(?:\.git|\.output|\.ballast.*|\.env\.(?:.*\.)?local|node_modules|coverage)$/;

/**
 * Copies the working tree, changes included, as a newcomer would have it. Outside of the project:
 * within it, packages that were not installed would be found in the project's own folder.
 */
export async function copyOf(projectDir: string): Promise<string> {
  const dir = await mkdtemp(path.join(os.tmpdir(), "ballast-node-"));
  await cp(projectDir, dir, {
    recursive: true,
    filter: (from) => !NOT_COPIED.test(path.relative(projectDir, from)),
  });
  return dir;
}

export const removeCopy = async (dir: string): Promise<void> => {
  await rm(dir, { recursive: true, force: true, maxRetries: 3 });
};

export interface Binary {
  readonly dir: string;
  readonly version: string;
}

interface Wanted {
  /** Such as `22`: the newest of these. */
  readonly node: string;
  /** Where binaries and what npm said of them are kept. */
  readonly cacheDir: string;
  readonly environment: Environment;
  readonly stopped: AbortSignal;
}

/** The folder with a Node's binary, fetched by npm where it is not there yet. Throws `NotHad`. */
export async function binaryOf({ node, cacheDir, environment, stopped }: Wanted): Promise<Binary> {
  const name = packageFor(process.platform, process.arch);
  if (name === null)
    throw new NotHad(
      `no npm package of Node for ${process.platform} ${process.arch} is known here`,
    );
  const place = path.join(cacheDir, `node-${node}`);
  const dir = path.join(place, "node_modules", name, "bin");
  const logFile = path.join(cacheDir, `node-${node}.log`);
  if (!existsSync(path.join(dir, "node"))) {
    await mkdir(place, { recursive: true });
    // Without one of its own, npm would install into the project around it.
    await writeFile(path.join(place, "package.json"), '{ "private": true }\n');
    const flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"];
    const { code, tail } = await ran(
      {
        command: ["npm", "install", ...flags, `${name}@${node}`],
        dir: place,
        environment: environmentOf(environment, path.dirname(process.execPath)),
        logFile,
        stopped,
      },
      FETCH_MS_MAX,
    );
    if (code !== 0) throw new NotHad(`npm could not install ${name}@${node}: ${firstLine(tail)}`);
  }
  return { dir, version: await versionIn(dir, { environment, logFile, stopped }) };
}

const firstLine = (text: string): string =>
  text
    .split("\n")
    .find((line) => line.trim() !== "")
    ?.replace(/^npm error (?:code )?/, "") ?? "it said nothing";

/**
 * The version of the Node in a folder, once npm runs under it too. Throws `NotHad` where it does not
 * run here, or where the machine's npm brings a Node of its own, which would be tested instead.
 */
export async function versionIn(
  dir: string,
  { environment, ...place }: Pick<Wanted, "environment" | "stopped"> & { readonly logFile: string },
): Promise<string> {
  const asked = { ...place, dir, environment: environmentOf(environment, dir) };
  const own = await ran({ ...asked, command: [path.join(dir, "node"), "--version"] }, ASK_MS_MAX);
  const version = own.tail.trim();
  if (own.code !== 0 || !/^v\d+\.\d+\.\d+$/.test(version))
    throw new NotHad(`its binary does not run here: ${firstLine(own.tail)}`);
  const npm = await ran({ ...asked, command: ["npm", "version", "--json"] }, ASK_MS_MAX);
  if (!npm.tail.includes(`"node": "${version.slice(1)}"`))
    throw new NotHad(`npm does not run under it: ${firstLine(npm.tail)}`);
  return version;
}
