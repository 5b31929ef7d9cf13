import { v } from "convex/values";
import { expect, test, vi } from "vitest";
import { internal } from "../../convex/_generated/api";
import { internalAction } from "../../convex/_generated/server";
import { MINUTE, SECOND } from "../../src/core/time";
import { advance, backend, type Backend, pending, useStillClock } from "../edge/backend";
import {
  busy,
  type Claim,
  claimNext,
  complete,
  enqueue,
  fail,
  get,
  handed,
  handedOne,
  type JobId,
  rows,
  run,
  running,
  stats,
  wait,
} from "../edge/jobs";

useStillClock();

const BEYOND_LEASE_MS = MINUTE;

/** A queue whose workers take what they are given and go silent. */
function silent(): { readonly t: Backend; readonly given: Claim[] } {
  const given: Claim[] = [];
  const worker = internalAction({
    args: { claims: v.any() },
    handler: async (_ctx, { claims }: { claims: Claim[] }) => {
      given.push(...claims);
      return null;
    },
  });
  return { t: backend(true, worker), given };
}

const last = (given: readonly Claim[]): Claim => {
  const claim = given.at(-1);
  if (claim === undefined) throw new Error("no worker was started");
  return claim;
};

const dead = (t: Backend) => t.query(internal.toolJobs.listDeadLetters, {});

async function buried(t: Backend): Promise<JobId> {
  const claim = await run(t, { maxAttempts: 1 });
  await fail(t, claim);
  return claim.jobId;
}

// Source: get-convex/workpool#198
test("workpool#198: a retry starts when its time has come, not when a loop looks next", async () => {
  const { given, t } = silent();
  const claim = await run(t);
  const { retryDelayMs } = await fail(t, claim);
  expect(retryDelayMs).toBeLessThanOrEqual(SECOND);
  const retry = (await pending(t)).find(({ name }) => name === "toolJobs:dispatch");
  expect(retry?.afterMs).toBe(retryDelayMs);
  await advance(t, retryDelayMs);
  expect(given).toMatchObject([{ jobId: claim.jobId, attempts: 2 }]);
});

// Source: get-convex/workpool#225
test("workpool#225: a queue with nothing to do does nothing, and nothing stops it for good", async () => {
  const t = backend();
  await complete(t, await run(t));
  expect(await pending(t)).toEqual([]);
  // Workers that are lost on their way stop nothing: their leases end.
  vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "1");
  await run(t);
  const next = await wait(t);
  await advance(t, BEYOND_LEASE_MS);
  await advance(t, 2 * MINUTE);
  await advance(t, BEYOND_LEASE_MS);
  expect((await get(t, next))?.attempts).toBeGreaterThan(0);
});

// Source: get-convex/workpool#225
test("workpool#225: what a worker is handed is stored with its lease, and with the timer that ends it", async () => {
  const t = backend();
  await enqueue(t, { run: "worker" });
  const claim = await handedOne(t);
  expect(await get(t, claim.jobId)).toMatchObject({ status: "running", attempts: 1 });
  expect((await pending(t)).map(({ name }) => name).sort()).toEqual([
    "toolJobs:expireLease",
    "toolRuns:run",
  ]);
});

// Source: get-convex/workpool#144
test("workpool#144: what one tool leaves idle another may use, for its share is no part of a fixed whole", async () => {
  // As many as all tools together are meant to run.
  vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "6");
  const t = backend();
  for (let i = 0; i < 6; i++) await run(t);
  expect((await enqueue(t)).kind).toBe("waiting");
  // Nor do those whose work comes later stand behind the one that came first.
  await run(t, { toolName: "search_products" });
  await run(t, { toolName: "search_global" });
  expect(await running(t)).toBe(8);
});

// Source: get-convex/workflow#34
test("workflow#34: whoever has work done shares the tool's one pool, and none has one of its own", async () => {
  const t = backend();
  await run(t, { source: "chat_http" });
  await run(t, { source: "chat_action" });
  await wait(t, { source: "operator" });
  const many = await t.mutation(internal.toolJobs.enqueueMany, {
    source: "operator",
    toolName: "search_web",
    jobs: Array.from({ length: 5 }, (_, i) => ({ argsJson: JSON.stringify({ query: `${i}` }) })),
  });
  expect([many.started, many.waiting, await running(t)]).toEqual([0, 5, 2]);
});

// Source: timgit/pg-boss#874
test("pg-boss#874: a job put back from the dead letters is buried again when it fails again", async () => {
  const t = backend();
  const jobId = await buried(t);
  expect(await t.mutation(internal.toolJobs.requeueDeadLetter, { jobId })).toEqual({ ok: true });
  const again = await handedOne(t);
  expect(again).toMatchObject({ jobId, attempts: 1 });
  expect(await fail(t, again)).toMatchObject({ status: "dead_letter" });
  expect((await dead(t)).map(({ jobId: one }) => one)).toEqual([jobId]);
});

// Source: timgit/pg-boss#860
test("pg-boss#860: exactly the dead letter that was chosen is put back", async () => {
  const t = backend();
  const [first, second, third] = [await buried(t), await buried(t), await buried(t)];
  await t.mutation(internal.toolJobs.requeueDeadLetter, { jobId: second });
  expect((await dead(t)).map(({ jobId: one }) => one).sort()).toEqual([first, third].sort());
  expect((await handedOne(t)).jobId).toBe(second);
  // Asking again says why not, and starts nothing.
  expect(await t.mutation(internal.toolJobs.requeueDeadLetter, { jobId: second })).toMatchObject({
    ok: false,
    reason: "not_dead_letter",
  });
  expect(await handed(t)).toHaveLength(1);
});

// Source: timgit/pg-boss#367, timgit/pg-boss#446, timgit/pg-boss#659, graphile/worker#331
test("pg-boss#367, #446, #659, graphile/worker#331: a tool with much to do starves no other", async () => {
  const t = backend();
  await busy(t);
  for (let i = 0; i < 40; i++) await enqueue(t);
  const kinds = [];
  for (const toolName of ["search_products", "search_global"])
    kinds.push((await enqueue(t, { toolName })).kind);
  expect(kinds).toEqual(["run", "run"]);
});

// Source: taskforcesh/bullmq#3210
test("bullmq#3210: with a concurrency of 1 never two run, however their ends and starts fall", async () => {
  vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "1");
  const t = backend();
  const first = await run(t);
  await Promise.all(Array.from({ length: 12 }, () => enqueue(t)));
  expect(await running(t)).toBe(1);
  await Promise.all([complete(t, first), claimNext(t), claimNext(t), enqueue(t)]);
  expect(await running(t)).toBe(1);
  const seen = new Set([first.jobId]);
  for (let i = 0; i < 5; i++) {
    const next = (await handed(t)).find(({ jobId }) => !seen.has(jobId));
    if (next === undefined) break;
    seen.add(next.jobId);
    await complete(t, next);
    expect(await running(t)).toBeLessThanOrEqual(1);
  }
  expect(seen.size).toBeGreaterThan(3);
});

// Source: OptimalBits/bull#308, OptimalBits/bull#1310, taskforcesh/bullmq#1929
test("bull#308, #1310, bullmq#1929: a job taken back from a silent worker has one result, the later one's", async () => {
  const { given, t } = silent();
  const first = await run(t);
  await advance(t, BEYOND_LEASE_MS);
  await advance(t, BEYOND_LEASE_MS);
  const second = last(given);
  expect(second).toMatchObject({ jobId: first.jobId, attempts: 2 });
  expect((await complete(t, first, { resultJson: '{"by":"first"}' })).ok).toBe(false);
  expect((await complete(t, second, { resultJson: '{"by":"second"}' })).ok).toBe(true);
  expect((await get(t, second.jobId))?.resultJson).toBe('{"by":"second"}');
});

// Source: W2-19
test("the original ran a job that kills its workers ten times where two were allowed", async () => {
  const t = backend();
  const { jobId } = await run(t);
  for (let i = 0; i < 12; i++) await advance(t, BEYOND_LEASE_MS);
  expect(await get(t, jobId)).toMatchObject({
    status: "dead_letter",
    attempts: 2,
    deadLetterReason: "lease_expired",
  });
});

// Source: W2-20
test("the original kept the result of a worker whose lease had run out, and refused the one that held it", async () => {
  const { given, t } = silent();
  const stale = await run(t);
  await advance(t, BEYOND_LEASE_MS);
  await advance(t, BEYOND_LEASE_MS);
  const holder = last(given);
  expect((await complete(t, stale)).ok).toBe(false);
  expect((await fail(t, stale)).status).toBe("not_running");
  expect((await complete(t, holder)).ok).toBe(true);
});

// Source: W2-21
test("the original never ran a retry, nor a job put back, until somebody enqueued another", async () => {
  const { given, t } = silent();
  await fail(t, await run(t));
  await advance(t, 5 * SECOND);
  expect(given).toHaveLength(1);
  const jobId = await buried(t);
  await t.mutation(internal.toolJobs.requeueDeadLetter, { jobId });
  expect((await handed(t)).map((claim) => claim.jobId)).toContain(jobId);
});

// Source: W2-26
test("the original's 220 jobs of a tool at its cap hid a job of another that could run", async () => {
  vi.stubEnv("TOOL_JOB_QMAX_GLOB", "220");
  const t = backend();
  await run(t, { toolName: "search_global" });
  for (let i = 0; i < 60; i++) await enqueue(t, { toolName: "search_global" });
  await busy(t);
  const waiting = await wait(t);
  vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "3");
  expect(await claimNext(t)).toMatchObject({ jobId: waiting });
});

// Source: W2-27
test("the original counted the newest hundred jobs and called it the queue", async () => {
  vi.stubEnv("TOOL_JOB_QMAX_WEB", "400");
  const t = backend();
  await busy(t);
  for (let i = 0; i < 150; i++) await enqueue(t);
  const counted = await t.query(internal.toolJobs.getQueueStats, { limit: 100 });
  expect(counted.byTool["search_web"]).toMatchObject({ queued: 150, running: 2 });
});

// Source: W2-28
test("the original counted a dead letter as failed as well", async () => {
  const t = backend();
  await buried(t);
  expect((await stats(t)).byStatus).toMatchObject({ deadLetter: 1, failed: 0 });
});

// Source: W2-45
test("the original read the whole queue for every job that joined it", async () => {
  vi.stubEnv("TOOL_JOB_QMAX_WEB", "10000");
  // As many documents as an enqueue may read; the queue is far longer.
  const t = backend({ documentsRead: 60 });
  await busy(t);
  for (let i = 0; i < 90; i++) expect((await enqueue(t)).kind).toBe("waiting");
});

// Source: W2-58
test("the original let batch work starve behind interactive work", async () => {
  vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "1");
  vi.stubEnv("TOOL_JOB_QMAX_WEB", "400");
  const t = backend();
  let holder = await run(t);
  const batch = await wait(t, { qosClass: "batch" });
  for (let i = 0; i < 40; i++) await wait(t, { qosClass: "realtime" });
  let turns = 0;
  for (; holder.jobId !== batch && turns < 40; turns++) {
    const { next } = await complete(t, holder, { wantsNext: true });
    if (next === null) throw new Error("the line is empty");
    holder = next;
    await wait(t, { qosClass: "realtime" });
  }
  expect(turns).toBeLessThan(40);
});

// Source: W2-46
test("the original's workers polled: here a job that waits costs nothing until its turn", async () => {
  const t = backend();
  const [first] = await busy(t);
  await wait(t);
  const before = (await pending(t)).length;
  await advance(t, 10 * SECOND);
  expect((await pending(t)).length).toBe(before);
  await complete(t, first);
  expect(await handed(t)).toHaveLength(1);
  expect((await rows(t)).jobs).toHaveLength(3);
});
