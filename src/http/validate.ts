import type * as z from "zod";
import { AppError, type Issue } from "../errors/appError";

/** The value as its contract types it. Throws `invalid_request` with what is wrong, field by field. */
export function parseContract<Output>(contract: z.ZodType<Output>, value: unknown): Output {
  const parsed = contract.safeParse(value);
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.flatMap((issue) => flatten(issue, []));
  // How many are told, and how long each may be, is bounded where errors are read.
  throw new AppError("invalid_request", { issues });
}

type ZodIssue = z.core.$ZodIssue;

function flatten(issue: ZodIssue, at: readonly PropertyKey[]): Issue[] {
  const path = [...at, ...issue.path];
  if (issue.code !== "invalid_union")
    return [{ path: path.map(String).join("."), message: issue.message }];
  // A caller meant the form that he came nearest to.
  const nearest = [...issue.errors].sort((a, b) => a.length - b.length)[0] ?? [];
  return nearest.flatMap((inner) => flatten(inner, path));
}

/**
 * Query parameters as an object for a contract. One that is given twice is a list, which no
 * contract of ours accepts: which of the two is meant cannot be known.
 */
export function queryObject(parameters: URLSearchParams): Record<string, unknown> {
  const pairs = [...new Set(parameters.keys())].map((name) => {
    const values = parameters.getAll(name);
    return [name, values.length === 1 ? values[0] : values] as const;
  });
  return Object.fromEntries(pairs);
}
