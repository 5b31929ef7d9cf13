import { types } from "node:util";

/** User code failed: the message is what the caller reads, with the mapped stack below it. */
export class FunctionError extends Error {
  /** JSON text of a ConvexError's data, when that is what was thrown. */
  readonly dataJson: string | undefined;
  readonly logLines: readonly string[];
  constructor(message: string, dataJson?: string, logLines: readonly string[] = []) {
    super(message);
    this.dataJson = dataJson;
    this.logLines = logLines;
  }
}

/** The platform refused or gave up; answered as `{code, message}` with this status. */
export class PlatformError extends Error {
  readonly status: number;
  readonly code: string;
  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** The text of anything thrown. Errors of the sandbox's realm fail `instanceof Error` here. */
export function messageOf(thrown: unknown): string {
  if (types.isNativeError(thrown)) return thrown.message;
  if (typeof thrown === "object" && thrown !== null && "message" in thrown)
    return String(thrown.message);
  return String(thrown);
}

/** Thrown for what a person at the command line did: printed as one line, without a stack. */
export class UserMistake extends Error {}
