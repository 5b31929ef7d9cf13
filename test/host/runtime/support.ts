import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { readDeployment } from "../../../src/host/deployment";
import type { Deployment } from "../../../src/host/deployment";
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

export interface HostProcess {
  readonly pid: number;
  readonly deployment: Deployment;
  /** What it has said on both outputs. */
  readonly said: () => string;
  /** Exit code, or the signal's name. */
  readonly exit: Promise<number | string | null>;
  kill(signal: NodeJS.Signals): Promise<number | string | null>;
  run(name: string, args?: Record<string, unknown>): Promise<unknown>;
}

let compiled: Promise<string> | undefined;

/** Compiles the fixture's command line once per test file. */
async function compileServe(): Promise<string> {
  compiled ??= (async () => {
    const outfile = path.join(scratch("serve"), "serve.mjs");
    await build({
      entryPoints: [path.join(PROJECT, "test/host/fixture/serve.ts")],
      outfile,
      bundle: true,
      platform: "node",
      format: "esm",
      packages: "external",
      logLevel: "error",
    });
    return outfile;
  })();
  return compiled;
}

/** Starts the fixture's command line with arguments, on the fixture or on another project. */
export async function spawnServe(
  args: readonly string[],
  projectDir = path.dirname(FIXTURE),
  environment: Readonly<Record<string, string>> = {},
) {
  const child = spawn(process.execPath, [await compileServe(), projectDir, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: environment,
  });
  // A test that fails before it ends its host leaves none behind.
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  child.once("exit", () => process.off("exit", kill));
  let said = "";
  child.stdout.on("data", (text: Buffer) => (said += text.toString()));
  child.stderr.on("data", (text: Buffer) => (said += text.toString()));
  const exit = new Promise<number | string | null>((resolve) => {
    child.on("close", (code, signal) => {
      resolve(signal ?? code);
    });
  });
  return { child, said: () => said, exit };
}

/** A host in a process of its own, once it answers. */
export async function spawnHost(
  dataDir: string,
  args: readonly string[] = [],
  projectDir?: string,
  environment?: Readonly<Record<string, string>>,
): Promise<HostProcess> {
  const { child, said, exit } = await spawnServe(
    ["start", "--port", "0", "--site-port", "0", "--data-dir", dataDir, ...args],
    projectDir,
    environment,
  );
  const pid = child.pid ?? 0;
  const found = await until(
    () => readDeployment(dataDir),
    (deployment) => deployment?.pid === pid || child.exitCode !== null,
    30_000,
  );
  if (found?.pid !== pid) throw new Error(`The host did not start: ${said()}`);
  const run = async (name: string, functionArgs: Record<string, unknown> = {}) => {
    const response = await fetch(`${found.cloudUrl}/api/function`, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        authorization: `Convex ${found.adminKey}`,
      },
      body: JSON.stringify({ path: name, args: functionArgs, format: "json" }),
    });
    const body = (await response.json()) as {
      status?: string;
      value?: unknown;
      errorMessage?: string;
    };
    if (body.status !== "success") throw new Error(body.errorMessage ?? JSON.stringify(body));
    return body.value;
  };
  const kill = async (signal: NodeJS.Signals) => {
    child.kill(signal);
    return exit;
  };
  return { pid, deployment: found, said, exit, kill, run };
}
