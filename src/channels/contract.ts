import type * as z from "zod";
import { AppError, errorData } from "../errors/appError";
import { parseContract } from "../http/validate";

/**
 * A part of a body as its contract types it. Throws `invalid_request` whose issues are named from
 * the root of the body, which is what the caller sees.
 */
export function parsePart<Output>(
  contract: z.ZodType<Output>,
  value: unknown,
  at: readonly string[],
): Output {
  try {
    return parseContract(contract, value);
  } catch (error) {
    const { code, issues = [] } = errorData(error);
    if (code !== "invalid_request") throw error;
    const fromRoot = issues.map(({ path, message }) => ({
      path: [...at, ...(path === "" ? [] : [path])].join("."),
      message,
    }));
    throw new AppError("invalid_request", { issues: fromRoot });
  }
}
