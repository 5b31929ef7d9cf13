import path from "node:path";
import { actionGeneric } from "convex/server";
import type { Definition } from "../engine/app";
import { loadFunctions } from "../engine/load";
import { callToolWith, toolFunctionsOf } from "./tool";

/** The app as it is now, with a file of functions that only the benchmark calls. */
export async function loadOurs(projectDir: string): Promise<Definition> {
  const app = await loadFunctions(projectDir, path.join(projectDir, "convex"));
  const callTool = callToolWith(toolFunctionsOf(app.modules));
  const bench = { callTool };
  // What runs on Node only talks to services: here nobody answers it.
  const sentry = { deliver: actionGeneric(() => null) };
  return { ...app, modules: new Map([...app.modules, ["bench", bench], ["sentry", sentry]]) };
}
