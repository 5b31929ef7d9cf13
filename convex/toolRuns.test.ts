import { expect, test } from "vitest";
import { backend, useStillClock } from "../test/edge/backend";
import { get, run } from "../test/edge/jobs";
import { internal } from "./_generated/api";
import { run as work } from "./toolRuns";

useStillClock();

test("a job whose arguments nobody can read is a dead letter at once, not the end of its worker", async () => {
  const t = backend(true, work);
  const claim = await run(t);
  await t.action(internal.toolRuns.run, { claims: [{ ...claim, argsJson: "no JSON" }] });
  expect(await get(t, claim.jobId)).toMatchObject({
    status: "dead_letter",
    deadLetterReason: "not_retryable",
  });
});
