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

/** The one sentence on what is wrong with a command line, and where to look. */
export function mistakeIn(error: unknown, script: string): string {
  // Node adds advice about positional arguments that fits no flag here.
  const said = error instanceof Error ? (error.message.split(". ")[0] ?? "") : String(error);
  return `${said}. See npm run ${script} -- --help.`;
}
