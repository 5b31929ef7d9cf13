import { errorData } from "../../src/errors/appError";

/** One check of a verifier. It runs wherever a function runs: the cases need no test library. */
export interface Case {
  readonly name: string;
  /** `accepted`, or the error code that refuses. */
  readonly expect: string;
  readonly run: () => Promise<unknown>;
}

/** What a case came to: `accepted`, or the code of the error that refused it. */
export async function outcomeOf({ run }: Case): Promise<string> {
  try {
    await run();
    return "accepted";
  } catch (error) {
    return errorData(error).code;
  }
}

/** Runs every case and names those that did not come out as expected. */
export async function runCases(
  cases: readonly Case[],
): Promise<{ readonly total: number; readonly failures: readonly string[] }> {
  const failures: string[] = [];
  for (const one of cases) {
    const outcome = await outcomeOf(one);
    if (outcome !== one.expect) failures.push(`${one.name}: ${outcome}, expected ${one.expect}`);
  }
  return { total: cases.length, failures };
}
