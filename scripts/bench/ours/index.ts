import path from "node:path";
import type { Definition } from "../engine/app";
import { loadFunctions } from "../engine/load";
import { admitLimited } from "./guards";
import { callToolWith, toolFunctionsOf } from "./tool";

/** The app as it is now, with a file of functions that only the benchmark calls. */
export async function loadOurs(projectDir: string): Promise<Definition> {
  const app = await loadFunctions(projectDir, path.join(projectDir, "convex"));
  const callTool = callToolWith(toolFunctionsOf(app.modules));
  const bench = { admitLimited, callTool };
  return { ...app, modules: new Map([...app.modules, ["bench", bench]]) };
}
