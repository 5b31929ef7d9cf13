import { describe, expect, test } from "vitest";
import { backend, type Backend, refused, START_MS, useStillClock } from "../test/edge/backend";
import { enqueue, fail, get, type JobId, rows, run } from "../test/edge/jobs";
import { DAY, SECOND } from "../src/core/time";
import { internal } from "./_generated/api";

useStillClock();

describe("a job is refused, and nothing is written,", () => {
  test.each([
    ["for a tool that there is not", { toolName: "search_moon" }],
    ["with arguments that are not JSON", { argsJson: "shoes" }],
    ["with arguments that are too large", { argsJson: JSON.stringify("x".repeat(17_000)) }],
    ["with a deadline that has passed", { deadlineMs: 0 }],
    ["with a deadline before now", { deadlineMs: -SECOND }],
    ["with a deadline that is no number", { deadlineMs: Number.NaN }],
    ["with a deadline at no time", { deadlineMs: Infinity }],
    ["with an empty key of its work", { workKey: "" }],
    ["with an endless key of its work", { workKey: "k".repeat(1_025) }],
  ])("%s", async (_, wrong) => {
    const t = backend();
    const before = await rows(t);
    await refused(enqueue(t, wrong), "invalid_request");
    const {
      argsJson = "{}",
      toolName = "search_web",
      workKey,
      ...common
    } = { ...wrong } as {
      argsJson?: string;
      toolName?: string;
      workKey?: string;
    };
    const job = { argsJson, ...(workKey === undefined ? {} : { workKey }) };
    const jobs = [{ argsJson: "{}" }, job];
    const many = { source: "operator", toolName, jobs, ...common } as const;
    await refused(t.mutation(internal.toolJobs.enqueueMany, many), "invalid_request");
    expect(await rows(t)).toEqual(before);
  });
});

describe("an operator's wish for dead letters is refused, and nothing is written,", () => {
  async function buried(t: Backend): Promise<JobId> {
    const claim = await run(t);
    await fail(t, claim, { retryable: false });
    return claim.jobId;
  }

  test.each([
    ["without a time", {}],
    ["with a time that is no number", { untilMs: Number.NaN }],
    ["with a time that nobody will see", { untilMs: START_MS + 400 * DAY }],
    ["with a delay that nobody will see", { delayMs: 400 * DAY }],
    ["without a reason", { delayMs: SECOND, reason: " " }],
  ])("to put one off %s", async (_, wrong) => {
    const t = backend();
    const jobId = await buried(t);
    const before = await rows(t);
    const wanted = { jobId, reason: "the vendor is down", ...wrong };
    await refused(t.mutation(internal.toolJobs.deferDeadLetter, wanted), "invalid_request");
    expect(await rows(t)).toEqual(before);
  });

  test.each([0, -1, 0.5, Number.NaN, Infinity])("to put back %s of them", async (limit) => {
    const t = backend();
    const jobId = await buried(t);
    await refused(t.mutation(internal.toolJobs.requeueDeadLetters, { limit }), "invalid_request");
    expect(await get(t, jobId)).toMatchObject({ status: "dead_letter" });
  });
});
