import path from "node:path";
import { parseArgs } from "node:util";
import { UserMistake, messageOf } from "./errors";

export interface Flags {
  readonly port: number;
  readonly sitePort: number;
  readonly dataDir: string;
  readonly trustedProxies: readonly string[];
  readonly watch: boolean;
  /** What is no flag. */
  readonly rest: readonly string[];
}

const DEFAULT_DATA_DIR = ".ballast";
const DEFAULT_PORT = 3210;
const DEFAULT_SITE_PORT = 3211;

/** Flags of the command line; an unknown one is a clear line. Directories are relative to the project. */
export function readFlags(argv: readonly string[], projectDir: string): Flags {
  try {
    const { values, positionals } = parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        port: { type: "string" },
        "site-port": { type: "string" },
        "data-dir": { type: "string" },
        "trusted-proxy": { type: "string", multiple: true },
        watch: { type: "boolean" },
      },
    });
    return {
      port: portOf("--port", values.port, DEFAULT_PORT),
      sitePort: portOf("--site-port", values["site-port"], DEFAULT_SITE_PORT),
      dataDir: path.resolve(projectDir, values["data-dir"] ?? DEFAULT_DATA_DIR),
      trustedProxies: values["trusted-proxy"] ?? [],
      watch: values.watch ?? false,
      rest: positionals,
    };
  } catch (error) {
    // Node adds advice about positional arguments that fits no command here.
    throw new UserMistake(messageOf(error).split(". ")[0] ?? "Unknown flag");
  }
}

function portOf(flag: string, text: string | undefined, fallback: number): number {
  if (text === undefined) return fallback;
  const port = Number(text);
  if (!/^\d+$/.test(text) || port > 65_535) throw new UserMistake(`${flag} ${text} is not a port`);
  return port;
}
