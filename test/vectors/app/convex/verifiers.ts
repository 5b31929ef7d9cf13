import { internalActionGeneric } from "convex/server";
import { runCases } from "../../cases";
import { googleCases } from "../../googleCases";
import { hubCases } from "../../hubCases";

/** The published vectors and the negative matrix of Meta's signature. */
export const hub = internalActionGeneric({
  args: {},
  handler: async () => await runCases(await hubCases()),
});

/** The negative matrix of Google's push tokens and the shared token. */
export const google = internalActionGeneric({
  args: {},
  handler: async () => await runCases(await googleCases()),
});
