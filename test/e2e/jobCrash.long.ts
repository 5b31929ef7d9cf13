import { expect, test } from "vitest";
import { operatorOf, until } from "./backend";
import { scratch, start } from "./process";

/** Room for every job that is to be somewhere when the server dies, and one slot with a line. */
const ENV = {
  TOOL_JOB_LEASE_MS: "5000",
  TOOL_JOB_MAX_ATTEMPTS: "3",
  TOOL_JOB_RUNMAX_WEB: "20",
  TOOL_JOB_RUNMAX_GLOB: "1",
};
const OVER_LOOKS_MAX = 1_200;
const OVER: readonly string[] = ["completed", "cancelled"];

interface Claim {
  readonly jobId: string;
  readonly fence: number;
}

interface Job {
  readonly status: string;
  readonly attempts: number;
  readonly lastError: string | null;
}

interface Stats {
  readonly byStatus: Readonly<Record<string, number>>;
}

test("kill -9 after each step of a job's life loses no job, runs none beside itself, and leaks no slot", async () => {
  const { dir, remove } = scratch("crash-jobs");
  const killed = await start(dir, ENV);
  const call = operatorOf(killed.deployment);
  let jobs = 0;
  const enqueue = async (more: Record<string, unknown> = {}) => {
    jobs += 1;
    return await call<{ kind: string; claim?: Claim; jobId?: string }>("toolJobs:enqueue", {
      source: "operator",
      toolName: "search_web",
      argsJson: JSON.stringify({ query: `boats ${jobs}` }),
      ...more,
    });
  };
  const claimed = async (more: Record<string, unknown> = {}): Promise<Claim> => {
    const { claim } = await enqueue(more);
    if (claim === undefined) throw new Error("a slot is free");
    return claim;
  };
  const end = (name: string, { fence, jobId }: Claim, more: Record<string, unknown>) =>
    call<Record<string, unknown>>(`toolJobs:${name}`, { jobId, fence, ...more });
  const fail = (claim: Claim, retryable: boolean) =>
    end("fail", claim, { errorCode: "upstream_timeout", retryable });
  const buried = async (): Promise<string> => {
    const claim = await claimed();
    await fail(claim, false);
    return claim.jobId;
  };

  const completed = await claimed();
  await end("complete", completed, { resultJson: '{"kind":"complete","value":"[]"}' });
  const deadLetter = await buried();
  const deferred = await buried();
  const reason = "after the crash";
  await call("toolJobs:deferDeadLetter", { jobId: deferred, delayMs: 5_000, reason });
  const requeued = await buried();
  const held = await claimed({ toolName: "search_global" });
  const inLine = await enqueue({ toolName: "search_global" });
  const cancelled = await claimed();
  await call("toolJobs:cancel", { jobId: cancelled.jobId });
  const beating = await claimed();
  await end("heartbeat", beating, { progress: 0.5 });
  const onceMore = await claimed();
  await fail(onceMore, true);
  const claim = await claimed();
  const handed = await enqueue({ run: "worker" });
  await call("toolJobs:requeueDeadLetter", { jobId: requeued });
  await killed.kill("SIGKILL");

  const server = await start(dir, ENV);
  const again = operatorOf(server.deployment);
  const stateOf = (jobId = "") => again<Job | null>("toolJobs:get", { jobId });
  const expected: readonly (readonly [string | undefined, Partial<Job>])[] = [
    [completed.jobId, { status: "completed", attempts: 1 }],
    [deadLetter, { status: "dead_letter", attempts: 1 }],
    [deferred, { status: "completed" }],
    [requeued, { status: "completed" }],
    [held.jobId, { status: "completed", attempts: 2, lastError: "lease_expired" }],
    [inLine.jobId, { status: "completed", attempts: 1 }],
    [cancelled.jobId, { status: "cancelled", attempts: 1 }],
    [beating.jobId, { status: "completed", attempts: 2, lastError: "lease_expired" }],
    [onceMore.jobId, { status: "completed", lastError: "upstream_timeout" }],
    [claim.jobId, { status: "completed", attempts: 2, lastError: "lease_expired" }],
    [handed.jobId, { status: "completed" }],
  ];
  await until(
    () => Promise.all(expected.map(([jobId]) => stateOf(jobId))),
    (states) => states.every((state, i) => i === 1 || OVER.includes(state?.status ?? "")),
    OVER_LOOKS_MAX,
  );
  for (const [jobId, state] of expected) expect(await stateOf(jobId)).toMatchObject(state);
  // What a worker of the dead server comes back with is of no use to anybody.
  for (const { fence, jobId } of [held, beating, onceMore, claim, cancelled])
    expect(await again("toolJobs:complete", { jobId, fence, resultJson: "null" })).toMatchObject({
      ok: false,
    });
  const { byStatus } = await again<Stats>("toolJobs:getQueueStats");
  expect(byStatus).toMatchObject({ queued: 0, running: 0, failed: 0, deadLetter: 1, cancelled: 1 });
  expect(byStatus["completed"]).toBe(jobs - 2);
  expect((await server.kill("SIGTERM")).code).toBe(0);
  remove();
});
