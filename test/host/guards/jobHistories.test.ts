import { beforeAll, expect, test } from "vitest";
import { Backend } from "../../../scripts/bench/engine/backend";
import type { Definition } from "../../../scripts/bench/engine/app";
import { loadOurs } from "../../../scripts/bench/ours/index";
import { playHistories } from "./jobHistories";

let app: Definition;
beforeAll(async () => {
  app = await loadOurs(process.cwd());
});

test("jobs come to their end over any overlapping history, each once, and leave nothing behind", async () => {
  const { conflicts, reached } = await playHistories(app, 10);
  expect(conflicts).toBeGreaterThan(0);
  expect([...reached.keys()]).toEqual(
    expect.arrayContaining([
      "complete: true",
      "complete: false",
      "fail: requeued",
      "fail: dead_letter",
      "cancel: cancelling",
      "a worker that dies with its claim",
    ]),
  );
});

test("however many heads a claim may look at, one transaction bears them", async () => {
  const variables = { TOOL_JOB_CLAIM_SCAN: "2000", TOOL_JOB_QMAX_WEB: "2000" };
  const backend = new Backend(app, {
    transactionMs: 0,
    jitter: 0,
    schedulerMs: 0,
    seed: 1,
    variables,
  });
  backend.standIn("toolRuns:run", () => Promise.resolve());
  const web = { source: "operator", toolName: "search_web" };
  const enqueueMany = async (count: number, more: Record<string, number> = {}) => {
    const jobs = Array.from({ length: count }, () => ({ argsJson: "{}" }));
    await backend.mutation("toolJobs:enqueueMany", { ...web, jobs, ...more });
  };
  const stats = await backend.within(async () => {
    await enqueueMany(2);
    for (let i = 0; i < 10; i++) await enqueueMany(100, { deadlineMs: 1_000 });
    // Nobody was told of the two that run: they are taken back, and those in line came too late.
    await backend.clock.idle();
    return await backend.query("toolJobs:getQueueStats", {});
  });
  expect(stats).toMatchObject({
    byStatus: { queued: 0, running: 0, failed: 1_000, deadLetter: 2 },
  });
});
