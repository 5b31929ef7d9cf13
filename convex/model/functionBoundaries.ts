/**
 * The builders of registered functions, with what every function demands of its arguments. They
 * stand in for those of `_generated/server` under the same names and types, so that a new function
 * has the check without asking for it; a contract test calls every function to hold that.
 */
import { HALF_A_CHARACTER, pathsToHalves } from "../../src/core/wellFormed";
import { AppError, ISSUES_MAX } from "../../src/errors/appError";
import * as server from "../_generated/server";

/** The fields of a definition that matter here; every other one passes through. */
interface Definition {
  readonly handler: (ctx: unknown, args: unknown) => unknown;
}

/** The builder, for functions that refuse a text which is no Unicode before they run. */
function guarded<Builder>(build: Builder): Builder {
  const plain = build as (definition: Definition) => unknown;
  const guarding = (definition: Definition): unknown =>
    plain({
      ...definition,
      handler: (ctx, args) => {
        requireWellFormed(args);
        return definition.handler(ctx, args);
      },
    });
  return guarding as Builder;
}

export const query = guarded(server.query);
export const mutation = guarded(server.mutation);
export const action = guarded(server.action);
export const internalQuery = guarded(server.internalQuery);
export const internalMutation = guarded(server.internalMutation);
export const internalAction = guarded(server.internalAction);

/** Throws `invalid_request` naming each text in the arguments that holds half a character. */
function requireWellFormed(args: unknown): void {
  const paths = pathsToHalves(args, ISSUES_MAX);
  if (paths.length === 0) return;
  const issues = paths.map((path) => ({ path, message: HALF_A_CHARACTER }));
  throw new AppError("invalid_request", { issues });
}
