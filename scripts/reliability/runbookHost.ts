import { writeFileSync } from "node:fs";
import path from "node:path";
import { startHost } from "../../src/host/index";
import { BASELINE } from "../../src/slo/objectives";
import { ballast } from "../ballast";
import type { RunbookHost } from "./runbook";
import { scratchDirectory } from "./testing";

/** For tests: a host in the state in which a runbook is opened, with a job that was given up on. */
export async function startRunbookHost(
  projectDir: string,
): Promise<RunbookHost & { readonly close: () => Promise<void> }> {
  const scratch = scratchDirectory("runbook");
  const dataDir = path.join(scratch.dir, "data");
  const app = ballast(projectDir);
  const host = await startHost({
    functionsDir: path.join(projectDir, app.functionsDir),
    dataDir,
    prepare: async (started) => await app.surroundings(started, dataDir),
  });
  // How fast a busy machine answers is nothing that a test may fail of.
  const endpoints = Object.entries(BASELINE.endpoints).map(([name, promise]) => [
    name,
    { ...promise, maxP95Ms: 600_000 },
  ]);
  const untimed = { ...BASELINE, endpoints: Object.fromEntries(endpoints) as unknown };
  writeFileSync(path.join(dataDir, "untimed.json"), JSON.stringify(untimed));
  const job = { source: "operator", toolName: "search_web", argsJson: "{}", maxAttempts: 1 };
  const made = (await host.run("toolJobs:enqueue", job)) as unknown as {
    readonly claim: { readonly jobId: string; readonly fence: number };
  };
  const { jobId, fence } = made.claim;
  await host.run("toolJobs:fail", {
    jobId,
    fence,
    errorCode: "upstream_timeout",
    retryable: true,
  });
  return {
    projectDir,
    cloudUrl: host.cloudUrl,
    siteUrl: host.siteUrl,
    dataDir,
    close: async () => {
      await host.close();
      scratch.remove();
    },
  };
}
