import { readFile, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";

/** What scripts need to find a running host; more may be added by the app. */
export interface Deployment {
  readonly cloudUrl: string;
  readonly siteUrl: string;
  readonly adminKey: string;
  readonly pid: number;
}

const FILE = "deployment.json";

/** Notes where this process answers. Whole or not at all, and readable by the owner only. */
export async function writeDeployment(
  dataDir: string,
  { cloudUrl, siteUrl, adminKey, ...more }: Omit<Deployment, "pid">,
): Promise<void> {
  const extra = Object.fromEntries(
    Object.entries(more).filter(([, value]) => typeof value === "string"),
  );
  const deployment = { cloudUrl, siteUrl, adminKey, pid: process.pid, ...extra };
  const file = path.join(dataDir, FILE);
  await writeFile(`${file}.new`, `${JSON.stringify(deployment, null, 2)}\n`, { mode: 0o600 });
  await rename(`${file}.new`, file);
}

export async function removeDeployment(dataDir: string): Promise<void> {
  await rm(path.join(dataDir, FILE), { force: true });
}

/** Null when no host has noted itself there. */
export async function readDeployment(dataDir: string): Promise<Deployment | null> {
  try {
    return JSON.parse(await readFile(path.join(dataDir, FILE), "utf8")) as Deployment;
  } catch {
    return null;
  }
}
