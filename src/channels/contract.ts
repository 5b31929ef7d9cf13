import type * as z from "zod";
import { AppError } from "../errors/appError";

const ISSUES_MAX = 20;

/** The value as its contract types it. Throws `invalid_request` with at most 20 issues. */
export function parseContract<Output>(
  contract: z.ZodType<Output>,
  value: unknown,
  at: readonly string[] = [],
): Output {
  const parsed = contract.safeParse(value);
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.slice(0, ISSUES_MAX).map(({ path, message }) => ({
    path: [...at, ...path.map(String)].join("."),
    message,
  }));
  throw new AppError("invalid_request", { issues });
}
