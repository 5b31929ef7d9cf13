import { parseArgs, type ParseArgsConfig } from "node:util";

/** What whoever runs a script can put right; its message is the one line to print. */
export class UsageError extends Error {}

/** A whole number of a flag within bounds. Throws `UsageError`. */
export function wholeNumber(
  flag: string,
  text: string | undefined,
  { min, max }: { readonly min: number; readonly max: number },
): number | null {
  if (text === undefined) return null;
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < min || value > max)
    throw new UsageError(`${flag} ${text} is no whole number from ${min} to ${max}.`);
  return value;
}

/** What flags say that also decides over the report of a run whose flags are mistaken. */
export interface ReportFlags {
  readonly out: string | null;
  readonly json: boolean;
}

/** Where the report goes and how it is shown, as far as it can be told from any command line. */
export function reportFlags(
  argv: readonly string[],
  options: NonNullable<ParseArgsConfig["options"]>,
): ReportFlags {
  const { out, json } = parseArgs({
    args: [...argv],
    options,
    strict: false,
    allowPositionals: true,
  }).values;
  return { out: typeof out === "string" && out !== "" ? out : null, json: json === true };
}

/** The one sentence on what is wrong with a command line, and where to look. */
export function mistakeIn(error: unknown, script: string): string {
  // Node adds advice about positional arguments that fits no flag here.
  const said = error instanceof Error ? (error.message.split(". ")[0] ?? "") : String(error);
  return `${said}. See npm run ${script} -- --help.`;
}
