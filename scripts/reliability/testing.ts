import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import type { Io, Main } from "../main";

/** For tests: a script as it is run, and what it leaves. */
export interface Ran<Report> {
  readonly code: number;
  readonly out: readonly string[];
  readonly errors: readonly string[];
  readonly report: Report;
}

const PROJECT = path.resolve(import.meta.dirname, "../..");

/** A directory below `.output/tmp`, and its removal. */
export function scratchDirectory(name: string): {
  readonly dir: string;
  readonly remove: () => void;
} {
  const parent = path.join(PROJECT, ".output", "tmp");
  mkdirSync(parent, { recursive: true });
  const dir = mkdtempSync(path.join(parent, `${name}-`));
  return {
    dir,
    remove: () => {
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

interface RunOptions<Report> {
  readonly main: Main;
  readonly argv: readonly string[];
  /** Where the artifact goes. */
  readonly file: string;
  /** Throws where the artifact breaks its contract. */
  readonly parse: (value: unknown) => Report;
  readonly env?: Readonly<Record<string, string>>;
  readonly stopped?: Promise<void>;
}

/** Runs a script in this process. */
export async function ranScript<Report>(options: RunOptions<Report>): Promise<Ran<Report>> {
  const { main, argv, file, parse, env = {}, stopped } = options;
  const out: string[] = [];
  const errors: string[] = [];
  const io: Io = {
    projectDir: PROJECT,
    print: (line) => out.push(line),
    printError: (line) => errors.push(line),
    processEnvironment: env,
    stopped: stopped ?? new Promise(() => undefined),
  };
  const code = await main([...argv, "--out", file], io);
  const report = parse(JSON.parse(readFileSync(file, "utf8")));
  return { code, out, errors, report };
}

/** Answers on a free loopback port. */
export async function stub(
  answer: RequestListener,
): Promise<{ readonly url: string; readonly close: () => Promise<void> }> {
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
