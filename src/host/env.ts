import { readFile, rename, writeFile } from "node:fs/promises";
import path from "node:path";
import { PlatformError, UserMistake } from "./errors";

export type Variables = Readonly<Record<string, string>>;

export interface EnvironmentSources {
  /** Names that the app reads; others of the machine's environment stay out. */
  readonly names: readonly string[];
  readonly processEnvironment: Readonly<Record<string, string | undefined>>;
  /** Where `.env.local` lies. Null reads none. */
  readonly projectDir: string | null;
  readonly dataDir: string;
}

export interface EnvironmentChange {
  readonly name: string;
  /** Null takes back what was set at run time, so that the layer below shows again. */
  readonly value: string | null;
}

const NAME = /^[a-zA-Z_]+[a-zA-Z0-9_]*$/;
const NAME_CHARS_MAX = 256;
const VALUE_BYTES_MAX = 8 * 1024;
const VARIABLES_MAX = 512;
const FILE = "environment.json";

/**
 * The deployment's variables, in four layers. A name is looked up in this order:
 * 1. set at run time (`update_environment_variables`), kept in the data directory, as `convex env
 *    set` is kept by a deployment;
 * 2. the process environment, for the names that the app declares;
 * 3. `.env.local` in the project;
 * 4. defaults of the development setup.
 * An empty value is a value: it hides the layers below.
 */
export class Environment {
  readonly #dataDir: string;
  readonly #process: Variables;
  readonly #file: Variables;
  #runTime: Variables;
  #defaults: Variables = {};
  #builtIn: Variables = {};
  readonly #listeners: (() => void)[] = [];

  private constructor(
    dataDir: string,
    layers: { process: Variables; file: Variables; runTime: Variables },
  ) {
    this.#dataDir = dataDir;
    this.#process = layers.process;
    this.#file = layers.file;
    this.#runTime = layers.runTime;
  }

  /** Reads the layers; a bad `.env.local` is one clear line. */
  static async load(sources: EnvironmentSources): Promise<Environment> {
    const machine: Record<string, string> = {};
    for (const name of sources.names) {
      const value = sources.processEnvironment[name];
      if (value !== undefined) machine[name] = value;
    }
    const file =
      sources.projectDir === null
        ? {}
        : await readDotEnv(path.join(sources.projectDir, ".env.local"));
    const runTime = await readStored(path.join(sources.dataDir, FILE));
    return new Environment(sources.dataDir, { process: machine, file, runTime });
  }

  /** The value a function sees. */
  get(name: string): string | undefined {
    return this.#builtIn[name] ?? this.configured(name) ?? this.#defaults[name];
  }

  /** The value that a person gave, empty included; undefined where only a default would apply. */
  configured(name: string): string | undefined {
    return this.#runTime[name] ?? this.#process[name] ?? this.#file[name];
  }

  all(): Variables {
    return {
      ...this.#defaults,
      ...this.#file,
      ...this.#process,
      ...this.#runTime,
      ...this.#builtIn,
    };
  }

  setDefaults(defaults: Variables): void {
    this.#defaults = defaults;
  }

  /** `CONVEX_CLOUD_URL` and `CONVEX_SITE_URL`, which nobody can set. */
  setBuiltIn(builtIn: Variables): void {
    this.#builtIn = builtIn;
  }

  /** Called after each change, as what was read from variables at load may be stale. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  async update(changes: readonly EnvironmentChange[]): Promise<void> {
    const next: Record<string, string> = { ...this.#runTime };
    for (const { name, value } of changes) {
      const problem = problemWith(name, value ?? "");
      if (problem !== null) throw new PlatformError(400, "EnvVarInvalid", problem);
      // eslint-disable-next-line @typescript-eslint/no-dynamic-delete -- a plain dictionary of names
      if (value === null) delete next[name];
      else next[name] = value;
    }
    if (Object.keys(next).length > VARIABLES_MAX)
      throw new PlatformError(
        400,
        "TooManyEnvVars",
        `At most ${VARIABLES_MAX} environment variables.`,
      );
    const file = path.join(this.#dataDir, FILE);
    await writeFile(`${file}.new`, JSON.stringify(next), { mode: 0o600 });
    await rename(`${file}.new`, file);
    this.#runTime = next;
    for (const listener of this.#listeners) listener();
  }
}

function problemWith(name: string, value: string): string | null {
  if (!NAME.test(name))
    return `"${name.slice(0, 80)}" is no variable name: letters, digits and _, not a digit first.`;
  if (name.length > NAME_CHARS_MAX)
    return `The name ${name.slice(0, 80)}… is longer than ${NAME_CHARS_MAX} characters.`;
  if (Buffer.byteLength(value) > VALUE_BYTES_MAX)
    return `The value of ${name} is larger than 8 KiB.`;
  return null;
}

async function readStored(file: string): Promise<Variables> {
  const text = await readIfThere(file);
  return text === null ? {} : (JSON.parse(text) as Variables);
}

async function readDotEnv(file: string): Promise<Variables> {
  const text = await readIfThere(file);
  return text === null ? {} : parseDotEnv(text, path.basename(file));
}

async function readIfThere(file: string): Promise<string | null> {
  return readFile(file, "utf8").catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw new UserMistake(`${file} cannot be read: ${(error as Error).message}`);
  });
}

const ASSIGNMENT = /^(?:export\s+)?([^\s=]+)\s*=\s*(.*)$/s;

/** `NAME=value` lines with comments and quotes. Names the line of the first error, never a value. */
export function parseDotEnv(text: string, fileName: string): Variables {
  const variables: Record<string, string> = {};
  const lines = text.replace(/^\uFEFF/, "").split(/\r?\n/);
  for (let at = 0; at < lines.length; at++) {
    const line = (lines[at] ?? "").trim();
    const row = at + 1;
    if (line === "" || line.startsWith("#")) continue;
    const match = ASSIGNMENT.exec(line);
    if (match === null) throw new UserMistake(`${fileName} line ${row}: expected NAME=value.`);
    const [, name = "", start = ""] = match;
    const quote = /^["'`]/.exec(start)?.[0];
    let raw = start;
    // A quoted value runs on to its closing quote, over lines if need be.
    while (quote !== undefined && closingQuote(raw, quote) === -1) {
      at++;
      if (at >= lines.length)
        throw new UserMistake(`${fileName} line ${row}: the quote of ${name} is never closed.`);
      raw += `\n${lines[at] ?? ""}`;
    }
    const value =
      quote === undefined ? raw.replace(/(?:^|\s+)#.*$/, "").trim() : unquote(raw, quote);
    const problem = problemWith(name, value);
    if (problem !== null) throw new UserMistake(`${fileName} line ${row}: ${problem}`);
    variables[name] = value;
  }
  return variables;
}

function closingQuote(raw: string, quote: string): number {
  for (let at = 1; at < raw.length; at++) {
    if (raw[at] === "\\" && quote === '"') at++;
    else if (raw[at] === quote) return at;
  }
  return -1;
}

function unquote(raw: string, quote: string): string {
  const inner = raw.slice(1, closingQuote(raw, quote));
  if (quote !== '"') return inner;
  const escapes: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t" };
  return inner.replace(/\\(.)/gs, (_, char: string) => escapes[char] ?? char);
}
