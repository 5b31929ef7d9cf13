import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { startHost } from "../../../src/host/index";
import type { Host, HostOptions } from "../../../src/host/index";

export const PROJECT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../..");
export const FIXTURE = path.join(PROJECT, "test/host/fixture/convex");
const TMP = path.join(PROJECT, ".output", "tmp");

/** A fresh directory inside the project. */
export function scratch(name: string): string {
  mkdirSync(TMP, { recursive: true });
  return mkdtempSync(path.join(TMP, `${name}-`));
}

export interface Fixture extends Host {
  readonly dataDir: string;
  /** Lines printed so far, by functions and by the host. */
  readonly printed: string[];
}

/** The fixture app on a fresh data directory, which is removed when it closes. */
export async function startFixture(options: Partial<HostOptions> = {}): Promise<Fixture> {
  const dataDir = options.dataDir ?? scratch("host");
  const printed: string[] = [];
  const host = await startHost({
    functionsDir: FIXTURE,
    dataDir,
    print: (line) => printed.push(line),
    ...options,
  });
  const close = async () => {
    await host.close();
    if (options.dataDir === undefined) rmSync(dataDir, { recursive: true, force: true });
  };
  return { ...host, dataDir, printed, close };
}

/** Asks until the answer is as wanted; the last answer is returned if it never is. */
export async function until<T>(
  ask: () => Promise<T>,
  wanted: (answer: T) => boolean,
  ms = 10_000,
): Promise<T> {
  const end = performance.now() + ms;
  for (;;) {
    const answer = await ask();
    if (wanted(answer) || performance.now() > end) return answer;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
