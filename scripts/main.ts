import type { CliIo } from "../src/host/cli";

/** What the bootstrap hands to every command. */
export interface Io extends CliIo {
  readonly projectDir: string;
}

/** A command: arguments in, exit code out. */
export type Main = (argv: readonly string[], io: Io) => Promise<number>;
