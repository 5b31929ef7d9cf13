import { types } from "node:util";
import { FunctionError, messageOf } from "./errors";
import type { StackMapper } from "./modules";

const CONVEX_ERROR = Symbol.for("ConvexError");

/** The platform's text for something that user code threw, with the mapped stack. */
export function describeThrown(thrown: unknown, stacks: StackMapper): string {
  const message = messageOf(thrown);
  const name = nameOf(thrown);
  const head =
    name !== "" && message !== ""
      ? `Uncaught ${name}: ${message}`
      : name !== "" || message !== ""
        ? `Uncaught ${name}${message}`
        : "Uncaught";
  const stack =
    typeof thrown === "object" && thrown !== null && "stack" in thrown ? String(thrown.stack) : "";
  return [head, ...stacks.frames(stack), ""].join("\n");
}

/** Wraps what a run threw; data of a ConvexError crosses as JSON text. */
export function toFunctionError(
  thrown: unknown,
  stacks: StackMapper,
  logLines: readonly string[],
): FunctionError {
  if (thrown instanceof FunctionError) return thrown;
  return new FunctionError(describeThrown(thrown, stacks), dataOf(thrown), logLines);
}

function nameOf(thrown: unknown): string {
  if (typeof thrown !== "object" || thrown === null) return "";
  if ("name" in thrown && typeof thrown.name === "string") return thrown.name;
  return types.isNativeError(thrown) ? "Error" : "";
}

function dataOf(thrown: unknown): string | undefined {
  if (typeof thrown !== "object" || thrown === null || !(CONVEX_ERROR in thrown)) return undefined;
  // The library has replaced the value by its JSON text on the way out of the handler.
  const data = "data" in thrown ? thrown.data : undefined;
  return typeof data === "string" ? data : undefined;
}
