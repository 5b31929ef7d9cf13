import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import path from "node:path";
import { type Deployment, readDeployment } from "../../src/host/deployment";
import { until } from "./backend";

const PROJECT = path.resolve(".");
const TMP = path.join(PROJECT, ".output", "tmp");
const PATH = [path.dirname(process.execPath), "/usr/local/bin", "/usr/bin", "/bin"].join(":");
/** A start under load takes a while; nothing is asserted of how long. */
const START_LOOKS_MAX = 1_200;

/** A fresh directory inside the project, and its removal. */
export function scratch(name: string): { readonly dir: string; readonly remove: () => void } {
  mkdirSync(TMP, { recursive: true });
  const dir = mkdtempSync(path.join(TMP, `${name}-`));
  return {
    dir,
    remove: () => {
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

export interface Ran {
  readonly code: number | string | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command of the project in a process of its own, with a home directory inside the project. */
export function command(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  program = process.execPath,
) {
  const home = path.join(TMP, "home");
  mkdirSync(home, { recursive: true });
  const child = spawn(program, args, {
    cwd: PROJECT,
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH, HOME: home, TMPDIR: TMP, CI: "1", ...env },
  });
  const said = { stdout: "", stderr: "" };
  child.stdout.on("data", (text: Buffer) => (said.stdout += text.toString()));
  child.stderr.on("data", (text: Buffer) => (said.stderr += text.toString()));
  const exit = new Promise<Ran>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      resolve({ code: signal ?? code, ...said });
    });
  });
  return { child, said, exit };
}

/** Runs a command of the bootstrap to its end. */
export async function run(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Ran> {
  return await command(["scripts/bootstrap.mjs", ...args], env).exit;
}

export interface Server {
  readonly pid: number;
  readonly deployment: Deployment & { readonly simUrl: string };
  readonly said: () => string;
  readonly exit: Promise<Ran>;
  /** Sends a signal and waits for the end of the process. */
  kill(signal: NodeJS.Signals): Promise<Ran>;
}

/** `npm start` on a data directory and free ports, once it answers. */
export async function start(
  dataDir: string,
  env: Readonly<Record<string, string>> = {},
): Promise<Server> {
  const flags = ["--port", "0", "--site-port", "0", "--data-dir", dataDir];
  const { child, said, exit } = command(["scripts/bootstrap.mjs", "start", ...flags], env);
  const pid = child.pid ?? 0;
  const all = () => `${said.stdout}${said.stderr}`;
  const found = await until(
    () => readDeployment(dataDir),
    (deployment) => deployment?.pid === pid || child.exitCode !== null,
    START_LOOKS_MAX,
  );
  if (found?.pid !== pid) throw new Error(`The server did not start: ${all()}`);
  const { siteUrl } = found;
  // The file is there before health answers; from here on it does.
  await until(
    async () =>
      await fetch(`${siteUrl}/api/health`).then(
        ({ ok }) => ok,
        () => false,
      ),
    (ok) => ok,
    START_LOOKS_MAX,
  );
  return {
    pid,
    deployment: found as Server["deployment"],
    said: all,
    exit,
    kill: async (signal) => {
      child.kill(signal);
      return await exit;
    },
  };
}
