import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type RunbookHost, runbookSections, runSection } from "./runbook";
import { startRunbookHost } from "./runbookHost";

const PROJECT = path.resolve(import.meta.dirname, "../..");
const sections = runbookSections(PROJECT);
const [setup] = sections;

let host: RunbookHost & { readonly close: () => Promise<void> };
beforeAll(async () => {
  host = await startRunbookHost(PROJECT);
});
afterAll(async () => {
  await host.close();
});

// The same blocks as in the short test, here with Convex's own command line and npm.
test.each(
  sections.filter(({ blocks }) => blocks.length > 0).map((one) => [one.heading, one] as const),
)("%s", async (_, one) => {
  if (setup === undefined) throw new Error("no setup");
  const { code, output } = await runSection(one, setup, { host });
  expect([code, code === 0 ? "" : output]).toEqual([0, ""]);
});
