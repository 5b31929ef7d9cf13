import { type ChildProcess, spawn } from "node:child_process";
import { createWriteStream } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** What a command needs of the environment to work, and what it needs to reach npm. */
const KEPT = [
  ...["PATH", "HOME", "LANG", "TMPDIR", "TEMP", "TMP"],
  ...["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"],
  ...["NODE_EXTRA_CA_CERTS", "SSL_CERT_DIR", "SSL_CERT_FILE"],
  ...["npm_config_cache", "npm_config_registry", "npm_config_userconfig"],
];
/** How long a process has between being asked to end and being ended. */
const END_MS_MAX = 15_000;
const TAIL_CHARS = 4_000;

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The environment of a newcomer, with a Node before all others: no keys of providers, and nothing of
 * the npm that this program itself was started by.
 */
export function environmentOf(given: Environment, binDir: string): Record<string, string> {
  const ofAnotherProject = /node_modules\/\.bin$|node-gyp-bin$/;
  const dirs = (given["PATH"] ?? "")
    .split(path.delimiter)
    .filter((dir) => dir !== "" && !ofAnotherProject.test(dir));
  const kept = KEPT.flatMap((name) => {
    const value = given[name];
    return value === undefined ? [] : [[name, value]];
  });
  return {
    ...(Object.fromEntries(kept) as Record<string, string>),
    PATH: [binDir, ...dirs].join(path.delimiter),
    npm_config_update_notifier: "false",
  };
}

export interface Asked {
  readonly command: readonly [string, ...string[]];
  readonly dir: string;
  readonly environment: Readonly<Record<string, string>>;
  /** Everything that the command says goes there as well. */
  readonly logFile: string;
  readonly stopped: AbortSignal;
}

export interface Ended {
  /** Null where it was ended for taking too long, or because this program was told to end. */
  readonly code: number | null;
  readonly tail: string;
}

/** A command with all that it starts, which can be ended together. */
export class Child {
  readonly #child: ChildProcess;
  readonly #exit: Promise<number | null>;
  #tail = "";
  #hasEnded = false;

  constructor({ command: [program, ...args], dir, environment, logFile, stopped }: Asked) {
    // A group of its own: npm does not pass on signals to what it runs.
    const child = spawn(program, args, {
      cwd: dir,
      env: environment,
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    this.#child = child;
    const log = createWriteStream(logFile, { flags: "a" });
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (part: Buffer) => {
        log.write(part);
        this.#tail = `${this.#tail}${part.toString()}`.slice(-TAIL_CHARS);
      });
    const kill = (): void => {
      this.#signal("SIGKILL");
    };
    stopped.addEventListener("abort", kill);
    this.#exit = new Promise((resolve) => {
      child.on("error", (error) => {
        this.#tail += error.message;
        log.end(() => {
          resolve(null);
        });
      });
      // What it left running may keep its output open for ever.
      child.on("exit", (code) => {
        this.#signal("SIGKILL");
        child.on("close", () => {
          // The log is whole before its end is told.
          log.end(() => {
            resolve(code);
          });
        });
      });
    });
    void this.#exit.then(() => {
      this.#hasEnded = true;
      stopped.removeEventListener("abort", kill);
    });
    if (stopped.aborted) kill();
  }

  get tail(): string {
    return this.#tail;
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** Waits for its end, for so long at most; then it is ended with all that it started. */
  async end(withinMs: number): Promise<Ended> {
    const waiting = new AbortController();
    const late = sleep(withinMs, null, { signal: waiting.signal }).catch(() => null);
    const isLate = (await Promise.race([this.#exit, late.then(() => "late" as const)])) === "late";
    waiting.abort();
    if (isLate) this.#signal("SIGKILL");
    const code = await this.#exit;
    return { code: isLate ? null : code, tail: this.#tail };
  }

  /** Asks it to end as a terminal does; true where it did. */
  async interrupt(): Promise<boolean> {
    this.#signal("SIGINT");
    const ended = await this.end(END_MS_MAX);
    return ended.code !== null || this.#child.signalCode === "SIGINT";
  }

  #signal(signal: NodeJS.Signals): void {
    const { pid } = this.#child;
    if (pid === undefined) return;
    try {
      process.kill(-pid, signal);
    } catch (error) {
      // All of the group are gone.
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
  }
}

/** Runs a command to its end. */
export async function ran(asked: Asked, withinMs: number): Promise<Ended> {
  return await new Child(asked).end(withinMs);
}
