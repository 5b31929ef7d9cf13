import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Backend, startBackend } from "../../e2e/backend";

const RUN_MAX = 3;

let backend: Backend;
beforeAll(async () => {
  backend = await startBackend({
    env: { TOOL_JOB_RUNMAX_WEB: String(RUN_MAX), TOOL_JOB_QMAX_WEB: "2000" },
    // Transactions overlap as they do on the platform.
    injection: { databaseLatency: () => sleep(Math.random() * 3) },
  });
});
afterAll(() => backend.close());

interface Stats {
  readonly byTool: Record<string, Record<string, number>>;
}

const stats = () => backend.operator<Stats>("toolJobs:getQueueStats");
const enqueue = (query: string, more: Record<string, unknown> = {}) =>
  backend.operator<{ kind: string; jobId?: string }>("toolJobs:enqueue", {
    source: "operator",
    toolName: "search_web",
    argsJson: JSON.stringify({ query, limit: 5 }),
    run: "worker",
    ...more,
  });

test("a crowd of jobs is run to its end, never more at once than the tool may, none stranded", async () => {
  const jobs = Array.from({ length: 60 }, (_, i) => enqueue(`boats ${i}`));
  const settled = await Promise.allSettled(jobs);
  const accepted = settled.filter(({ status }) => status === "fulfilled").length;
  expect(accepted).toBeGreaterThan(40);
  let most = 0;
  for (let look = 0; look < 400; look++) {
    const counts = (await stats()).byTool["search_web"] ?? {};
    most = Math.max(most, counts["running"] ?? 0);
    if (counts["queued"] === 0 && counts["running"] === 0) break;
    await sleep(50);
  }
  expect(most).toBeLessThanOrEqual(RUN_MAX);
  expect((await stats()).byTool["search_web"]).toMatchObject({
    queued: 0,
    running: 0,
    completed: accepted,
    deadLetter: 0,
  });
});

test("a crowd that asks for the same work makes one job", async () => {
  const settled = await Promise.allSettled(
    Array.from({ length: 200 }, () =>
      enqueue("same", { workKey: "same", toolName: "search_global" }),
    ),
  );
  const ids = settled.flatMap((one) => (one.status === "fulfilled" ? (one.value.jobId ?? []) : []));
  expect(ids.length).toBeGreaterThan(0);
  const counts = (await stats()).byTool["search_global"] ?? {};
  const made = Object.values(counts).reduce((sum, jobs) => sum + jobs, 0);
  expect(new Set(ids).size).toBe(made);
});
