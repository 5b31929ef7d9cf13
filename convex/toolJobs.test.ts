import { describe, expect, test, vi } from "vitest";
import {
  advance,
  backend,
  type Backend,
  pending,
  refused,
  rowCounts,
  settleAll,
  START_MS,
  useStillClock,
} from "../test/edge/backend";
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
  rows,
  run,
  running,
  stats,
  wait,
} from "../test/edge/jobs";
import { DAY, MINUTE, SECOND } from "../src/core/time";
import { internal } from "./_generated/api";

useStillClock();

const heartbeat = (t: Backend, { fence, jobId }: Claim, progress?: number) =>
  t.mutation(internal.toolJobs.heartbeat, {
    jobId,
    fence,
    ...(progress === undefined ? {} : { progress }),
  });
const cancel = (t: Backend, jobId: Claim["jobId"]) =>
  t.mutation(internal.toolJobs.cancel, { jobId });

describe("a job", () => {
  test("is its caller's to run where a slot is free, and nothing is scheduled but its lease's end", async () => {
    const t = backend();
    const claim = await run(t);
    expect(claim).toEqual({
      jobId: claim.jobId,
      fence: 1,
      toolName: "search_web",
      argsJson: '{"query":"shoes"}',
      attempts: 1,
      leaseExpiresAt: START_MS + 45 * SECOND,
    });
    const [slot] = (await rows(t)).slots;
    expect(await pending(t)).toEqual([
      { name: "toolJobs:expireLease", afterMs: 50 * SECOND, args: { slotId: slot?._id, fence: 1 } },
    ]);
    expect(slot).toMatchObject({ p: "tool:search_web", h: claim.jobId });
    expect(await get(t, claim.jobId)).toMatchObject({
      status: "running",
      attempts: 1,
      resultJson: null,
    });
  });

  test("that completes frees its slot, cancels that, and leaves nothing to do", async () => {
    const t = backend();
    const claim = await run(t);
    await advance(t, SECOND);
    expect(await complete(t, claim, { resultJson: '"found"' })).toEqual({ ok: true, next: null });
    expect(await get(t, claim.jobId)).toMatchObject({
      status: "completed",
      resultJson: '"found"',
      completedAt: START_MS + SECOND,
    });
    expect([await running(t), await pending(t)]).toEqual([0, []]);
    const [job] = (await rows(t)).jobs;
    for (const field of ["l", "g", "x", "k", "j"]) expect(job).not.toHaveProperty(field);
    expect(await rowCounts(t)).toEqual({ toolJobs: 1, slots: 1 });
  });

  test("is a worker's from the start where the caller says so: one hop, the claim in its arguments", async () => {
    const t = backend();
    const enqueued = await enqueue(t, { run: "worker" });
    const claim = await handedOne(t);
    expect(enqueued).toEqual({ kind: "waiting", jobId: claim.jobId, joined: false });
    expect(claim).toMatchObject({ fence: 1, attempts: 1, argsJson: '{"query":"shoes"}' });
    expect(await get(t, claim.jobId)).toMatchObject({ status: "running" });
    expect(await complete(t, claim, { wantsNext: true })).toEqual({ ok: true, next: null });
  });

  test("waits where all slots of its tool are taken, and no other tool minds", async () => {
    const t = backend();
    await busy(t);
    const jobId = await wait(t);
    expect(await get(t, jobId)).toMatchObject({ status: "queued", attempts: 0 });
    expect(await claimNext(t)).toBeNull();
    await run(t, { toolName: "search_products" });
    await run(t, { toolName: "search_global" });
    await wait(t, { toolName: "search_global" });
    expect(await running(t)).toBe(4);
  });

  test("joins identical work in flight, which writes nothing, until that has ended", async () => {
    const t = backend();
    const claim = await run(t, { workKey: "web:shoes" });
    const before = await rows(t);
    const joined = { kind: "waiting", jobId: claim.jobId, joined: true };
    expect(await enqueue(t, { workKey: "web:shoes" })).toEqual(joined);
    expect(await rows(t)).toEqual(before);
    await run(t, { workKey: "web:boots" });
    const jobId = await wait(t, { workKey: "web:hats" });
    expect(await enqueue(t, { workKey: "web:hats" })).toEqual({ ...joined, jobId });
    await complete(t, claim);
    expect(await enqueue(t, { workKey: "web:shoes" })).not.toMatchObject({ joined: true });
  });

  test("is joined by a crowd, and runs once", async () => {
    const t = backend();
    const crowd = await Promise.all(
      Array.from({ length: 30 }, () => enqueue(t, { workKey: "web:shoes" })),
    );
    expect(crowd.filter(({ kind }) => kind === "run")).toHaveLength(1);
    expect((await rows(t)).jobs).toHaveLength(1);
  });

  test.each([
    ["an unknown tool", { toolName: "rm_rf" }],
    ["a tool that does not queue", { toolName: "get_current_time" }],
    ["oversized arguments", { argsJson: "x".repeat(16 * 1024 + 1) }],
  ])("of %s is refused", async (_, wanted) => {
    const t = backend();
    await refused(enqueue(t, wanted), "invalid_request");
    expect(await rowCounts(t)).toEqual({});
  });

  test.each([
    [undefined, 3],
    [1, 1],
    [0, 1],
    [NaN, 1],
    [5, 5],
    [99, 6],
  ])("asked for %s attempts has %i", async (maxAttempts, expected) => {
    vi.stubEnv("TOOL_JOB_MAX_ATTEMPTS", "3");
    const t = backend();
    const { jobId } = await run(t, maxAttempts === undefined ? {} : { maxAttempts });
    expect((await get(t, jobId))?.maxAttempts).toBe(expected);
  });

  test("stores its result in the cache with its completion, or nothing of either", async () => {
    const t = backend();
    const claim = await run(t);
    const cache = { namespace: "search_web_v1", key: "shoes", ttlMs: MINUTE, value: "found" };
    const stored = () => t.run((ctx) => ctx.db.query("toolResultCache").take(10));
    const stale = await complete(t, { ...claim, fence: 9 }, { cache });
    expect([stale, await stored()]).toEqual([{ ok: false, next: null }, []]);
    await complete(t, claim, { cache });
    expect(await stored()).toMatchObject([{ value: "found", expiresAt: START_MS + MINUTE }]);
  });

  test("keeps large arguments and results apart from its state, and deletes what is of no use", async () => {
    const t = backend();
    const large = JSON.stringify({ query: "x".repeat(2_000) });
    const first = await run(t, { argsJson: large });
    expect(first.argsJson).toBe(large);
    expect((await rows(t)).jobs[0]).not.toHaveProperty("j");
    await run(t);
    const jobId = await wait(t, { argsJson: large });
    const { next } = await complete(t, first, { resultJson: '"small"', wantsNext: true });
    expect(next).toMatchObject({ jobId, argsJson: large });
    expect((await rows(t)).payloads).toMatchObject([{ jobId, argsJson: large }]);
    if (next !== null) await complete(t, next, { resultJson: large });
    const [payload, ...others] = (await rows(t)).payloads;
    expect([payload?.resultJson, payload?.argsJson, others]).toEqual([large, undefined, []]);
    expect(await get(t, jobId)).toMatchObject({ status: "completed", resultJson: large });
    expect(await get(t, first.jobId)).toMatchObject({ resultJson: '"small"' });
  });

  test("whose result is too large is not completed, and can still fail", async () => {
    const t = backend();
    const claim = await run(t);
    const resultJson = "x".repeat(256 * 1024 + 1);
    await refused(complete(t, claim, { resultJson }), "internal_error");
    expect(await get(t, claim.jobId)).toMatchObject({ status: "running" });
    expect(await fail(t, claim, { retryable: false })).toMatchObject({ status: "dead_letter" });
  });
});

// The public original: whoever came first completed a job, its worker or not.
describe("a worker whose lease ran out", () => {
  test("can neither complete nor fail the job that another one holds now", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    const t = backend();
    const first = await run(t);
    await advance(t, 50 * SECOND);
    const second = await handedOne(t);
    expect(second).toMatchObject({ jobId: first.jobId, fence: 2, attempts: 2 });
    const before = await rows(t);
    expect(await complete(t, first, { resultJson: '"stale"' })).toEqual({ ok: false, next: null });
    expect(await fail(t, first)).toMatchObject({ ok: false, status: "not_running" });
    expect(await heartbeat(t, first)).toMatchObject({ ok: false });
    expect(await rows(t)).toEqual(before);
    expect(await complete(t, second, { resultJson: '"right"' })).toMatchObject({ ok: true });
    expect(await get(t, first.jobId)).toMatchObject({ resultJson: '"right"' });
    expect(await complete(t, second, { resultJson: '"twice"' })).toMatchObject({ ok: false });
  });

  test("may still report until the job is taken back, and until then nobody has its slot", async () => {
    vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "1");
    const t = backend();
    const claim = await run(t);
    await advance(t, 49 * SECOND);
    await wait(t);
    expect(await complete(t, claim)).toMatchObject({ ok: true });
    await settleAll(t);
    expect(await get(t, claim.jobId)).toMatchObject({ status: "completed" });
  });

  test("and a job that is gone are told apart", async () => {
    const t = backend();
    const claim = await run(t);
    await t.run((ctx) => ctx.db.delete("toolJobs", claim.jobId));
    expect(await fail(t, claim)).toMatchObject({ ok: false, status: "missing" });
    expect(await complete(t, claim)).toEqual({ ok: false, next: null });
    expect(await get(t, claim.jobId)).toBeNull();
  });
});

describe("a job that fails", () => {
  // The public original: a retry had a time, but nothing that came then.
  test("is tried again by itself, when its time has come", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0.5);
    const t = backend();
    const claim = await run(t);
    expect(await fail(t, claim)).toEqual({
      ok: true,
      status: "requeued",
      retryDelayMs: 500,
      next: null,
    });
    expect(await get(t, claim.jobId)).toMatchObject({
      status: "queued",
      lastError: "upstream_timeout",
      availableAt: START_MS + 500,
    });
    expect(await running(t)).toBe(0);
    expect(await claimNext(t)).toBeNull();
    await advance(t, 499);
    expect((await pending(t)).map(({ name }) => name)).toEqual(["toolJobs:dispatch"]);
    vi.advanceTimersByTime(1);
    await t.finishInProgressScheduledFunctions();
    expect(await handedOne(t)).toMatchObject({ jobId: claim.jobId, attempts: 2, fence: 2 });
  });

  test("waits in line for its next attempt where no slot is free then", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    const t = backend();
    const [first, second] = await busy(t);
    const waiting = await wait(t);
    const { next } = await fail(t, first, { wantsNext: true });
    expect(next).toMatchObject({ jobId: waiting });
    await advance(t, 1);
    expect(await get(t, first.jobId)).toMatchObject({ status: "queued" });
    expect((await complete(t, second, { wantsNext: true })).next).toMatchObject({
      jobId: first.jobId,
      attempts: 2,
    });
  });

  test("waits longer after each attempt, up to a minute", async () => {
    vi.spyOn(Math, "random").mockReturnValue(1 - Number.EPSILON);
    vi.stubEnv("TOOL_JOB_RETRY_BASE_MS", "20000");
    const t = backend();
    let claim = await run(t, { maxAttempts: 5 });
    const delays: number[] = [];
    for (let i = 0; i < 4; i++) {
      const { retryDelayMs } = await fail(t, claim);
      delays.push(retryDelayMs);
      vi.advanceTimersByTime(retryDelayMs);
      await t.finishInProgressScheduledFunctions();
      claim = await handedOne(t);
      vi.advanceTimersByTime(0);
      await t.finishInProgressScheduledFunctions();
    }
    expect(delays).toEqual([19_999, 39_999, 59_999, 59_999]);
  });

  test("for the last time is a dead letter that says why, and stays one", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    const t = backend();
    const first = await run(t);
    await fail(t, first);
    await t.finishInProgressScheduledFunctions();
    vi.advanceTimersByTime(0);
    await t.finishInProgressScheduledFunctions();
    const second = await handedOne(t);
    expect(await fail(t, second)).toMatchObject({ ok: true, status: "dead_letter" });
    const dead = {
      status: "dead_letter",
      attempts: 2,
      deadLetterReason: "attempts_exhausted",
      lastError: "upstream_timeout",
      deadLetterAt: Date.now(),
    };
    expect(await get(t, first.jobId)).toMatchObject(dead);
    expect(await running(t)).toBe(0);
    await settleAll(t);
    expect(await get(t, first.jobId)).toMatchObject(dead);
  });

  test("in a way that no retry mends is a dead letter at once", async () => {
    const t = backend();
    const claim = await run(t);
    expect(await fail(t, claim, { retryable: false })).toMatchObject({ status: "dead_letter" });
    expect(await get(t, claim.jobId)).toMatchObject({
      attempts: 1,
      deadLetterReason: "not_retryable",
    });
  });

  test("as a dead letter is remembered in the cache, where its caller says where", async () => {
    const t = backend();
    const cache = { namespace: "search_web_v1", key: "shoes" };
    await fail(t, await run(t), { cache });
    expect(await rowCounts(t)).not.toHaveProperty("toolResultCache");
    await fail(t, await run(t), { cache, retryable: false });
    expect(await rowCounts(t)).toMatchObject({ toolResultCache: 1 });
  });
});

// The public original: a job that killed its workers was tried for ever.
describe("a job whose worker is lost", () => {
  test("runs again within 15 seconds after its lease with nobody's help, and never beyond its attempts", async () => {
    vi.spyOn(Math, "random").mockReturnValue(1 - Number.EPSILON);
    vi.stubEnv("TOOL_JOB_RETRY_BASE_MS", "60000");
    const t = backend();
    const first = await run(t);
    await advance(t, 50 * SECOND - 1);
    expect(await get(t, first.jobId)).toMatchObject({ status: "running" });
    vi.advanceTimersByTime(1);
    await t.finishInProgressScheduledFunctions();
    expect(await get(t, first.jobId)).toMatchObject({
      status: "queued",
      lastError: "lease_expired",
    });
    vi.advanceTimersByTime(10 * SECOND);
    await t.finishInProgressScheduledFunctions();
    expect(await get(t, first.jobId)).toMatchObject({ status: "running", attempts: 2 });
    await advance(t, 60 * SECOND);
    expect(await get(t, first.jobId)).toMatchObject({
      status: "dead_letter",
      attempts: 2,
      deadLetterReason: "lease_expired",
    });
    await settleAll(t);
    expect(await claimNext(t)).toBeNull();
    expect(await running(t)).toBe(0);
  });

  test("gives its slot to the next one that waits", async () => {
    const t = backend();
    await run(t);
    await advance(t, SECOND);
    await run(t);
    const waiting = await wait(t);
    vi.advanceTimersByTime(49 * SECOND);
    await t.finishInProgressScheduledFunctions();
    expect(await handedOne(t)).toMatchObject({ jobId: waiting });
  });

  test("is found also when its slot was another's by the time somebody looked", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "1");
    const t = backend();
    const first = await run(t);
    // Nothing that was scheduled came in time.
    vi.setSystemTime(START_MS + 2 * MINUTE);
    const second = await run(t);
    const [slot] = (await rows(t)).slots;
    if (slot === undefined) throw new Error("there is a slot");
    await t.mutation(internal.toolJobs.expireLease, { slotId: slot._id, fence: 1 });
    await advance(t, 0);
    expect(await get(t, first.jobId)).toMatchObject({ status: "queued", attempts: 1 });
    expect(await get(t, second.jobId)).toMatchObject({ status: "running" });
    expect(await complete(t, second, { wantsNext: true })).toMatchObject({
      ok: true,
      next: { jobId: first.jobId, attempts: 2 },
    });
  });

  test("that still reports completes it without touching the slot that another has by now", async () => {
    vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "1");
    const t = backend();
    const first = await run(t);
    vi.setSystemTime(START_MS + 2 * MINUTE);
    await run(t);
    expect(await complete(t, first)).toEqual({ ok: true, next: null });
    expect(await running(t)).toBe(1);
    expect((await stats(t)).byStatus).toMatchObject({ running: 1, completed: 1 });
  });

  test("of a tool that is no more becomes a dead letter", async () => {
    const t = backend();
    const claim = await run(t);
    await t.run((ctx) => ctx.db.patch("toolJobs", claim.jobId, { t: "search_moon" }));
    await advance(t, 50 * SECOND);
    expect(await get(t, claim.jobId)).toMatchObject({
      status: "dead_letter",
      deadLetterReason: "unknown_tool",
    });
    await settleAll(t);
    expect(await get(t, claim.jobId)).toMatchObject({ status: "dead_letter", attempts: 1 });
  });
});

describe("a heartbeat", () => {
  test("renews the lease once half of it has passed, and the job is not taken back before its new end", async () => {
    const t = backend();
    const claim = await run(t);
    const before = await rows(t);
    await advance(t, 20 * SECOND);
    expect(await heartbeat(t, claim)).toEqual({
      ok: true,
      cancelled: false,
      leaseExpiresAt: START_MS + 45 * SECOND,
    });
    expect(await rows(t)).toEqual(before);
    await advance(t, 20 * SECOND);
    expect(await heartbeat(t, claim)).toMatchObject({ leaseExpiresAt: START_MS + 85 * SECOND });
    await advance(t, 10 * SECOND);
    await advance(t, 39 * SECOND);
    expect(await get(t, claim.jobId)).toMatchObject({ status: "running" });
    await advance(t, SECOND);
    expect(await get(t, claim.jobId)).not.toMatchObject({ status: "running" });
  });

  test.each([
    [0.25, 0.25],
    [7, 1],
    [-1, 0],
    [NaN, 0],
  ])("of %s shows progress %s", async (progress, shown) => {
    const t = backend();
    const claim = await run(t);
    await heartbeat(t, claim, progress);
    expect(await get(t, claim.jobId)).toMatchObject({ status: "running", progress: shown });
  });
});

describe("a job that is cancelled", () => {
  test("while it waits has ended at once, and its place in line is another's", async () => {
    vi.stubEnv("TOOL_JOB_QMAX_WEB", "1");
    const t = backend();
    const [first] = await busy(t);
    const jobId = await wait(t, { workKey: "web:hats" });
    expect(await enqueue(t)).toMatchObject({ kind: "saturated" });
    expect(await cancel(t, jobId)).toEqual({ ok: true, status: "cancelled" });
    expect(await get(t, jobId)).toMatchObject({ status: "cancelled" });
    const other = await wait(t, { workKey: "web:hats" });
    expect(other).not.toBe(jobId);
    expect((await complete(t, first, { wantsNext: true })).next).toMatchObject({ jobId: other });
    expect(await cancel(t, jobId)).toEqual({ ok: false, reason: "ended" });
  });

  test("while it backs off is not tried again", async () => {
    const t = backend();
    const claim = await run(t);
    await fail(t, claim);
    expect(await cancel(t, claim.jobId)).toEqual({ ok: true, status: "cancelled" });
    expect(await pending(t)).toEqual([]);
    await settleAll(t);
    expect(await get(t, claim.jobId)).toMatchObject({ status: "cancelled", attempts: 1 });
  });

  test.each([
    ["completes", (t: Backend, claim: Claim) => complete(t, claim, { wantsNext: true })],
    ["fails", (t: Backend, claim: Claim) => fail(t, claim, { wantsNext: true })],
  ])("while it runs keeps its slot until its worker %s", async (_, end) => {
    const t = backend();
    const [claim] = await busy(t);
    const waiting = await wait(t);
    expect(await cancel(t, claim.jobId)).toEqual({ ok: true, status: "cancelling" });
    expect([await running(t), await get(t, claim.jobId)]).toMatchObject([
      2,
      { status: "cancelled" },
    ]);
    expect(await heartbeat(t, claim)).toMatchObject({ ok: true, cancelled: true });
    const ended = await end(t, claim);
    expect(ended.next).toMatchObject({ jobId: waiting });
    expect(await get(t, claim.jobId)).toMatchObject({ status: "cancelled", resultJson: null });
    expect((await stats(t)).byStatus).toMatchObject({ cancelled: 1, completed: 0, deadLetter: 0 });
  });

  test("while it runs is not joined, and ends with its lease where its worker is lost", async () => {
    const t = backend();
    const claim = await run(t, { workKey: "web:shoes" });
    await cancel(t, claim.jobId);
    await run(t, { workKey: "web:shoes" });
    await advance(t, 50 * SECOND);
    expect(await get(t, claim.jobId)).toMatchObject({ status: "cancelled", attempts: 1 });
    await settleAll(t);
    expect((await stats(t)).byStatus.cancelled).toBe(1);
  });

  test("after it ended, or that never was, is not", async () => {
    const t = backend();
    const claim = await run(t);
    await complete(t, claim);
    expect(await cancel(t, claim.jobId)).toEqual({ ok: false, reason: "ended" });
    await t.run((ctx) => ctx.db.delete("toolJobs", claim.jobId));
    expect(await cancel(t, claim.jobId)).toEqual({ ok: false, reason: "missing" });
  });
});

describe("a job with a deadline", () => {
  test("is told it, and starts in time", async () => {
    const t = backend();
    expect(await run(t, { deadlineMs: SECOND })).toMatchObject({ deadlineAt: START_MS + SECOND });
  });

  test("that passes while it waits never runs, and the one behind it does", async () => {
    const t = backend();
    const [first] = await busy(t);
    const late = await wait(t, { deadlineMs: SECOND, workKey: "web:hats" });
    await advance(t, SECOND);
    const inTime = await wait(t, { workKey: "web:hats" });
    expect(await get(t, late)).toMatchObject({ status: "failed", lastError: "deadline_exceeded" });
    expect((await complete(t, first, { wantsNext: true })).next).toMatchObject({ jobId: inTime });
    await settleAll(t);
    expect(await get(t, late)).toMatchObject({ status: "failed", attempts: 0 });
  });

  test("that its next attempt could not meet is not tried again", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0.5);
    const t = backend();
    const claim = await run(t, { deadlineMs: 500 });
    expect(await fail(t, claim)).toMatchObject({ ok: true, status: "failed" });
    expect(await get(t, claim.jobId)).toMatchObject({ lastError: "deadline_exceeded" });
    expect((await stats(t)).byStatus).toMatchObject({ failed: 1, deadLetter: 0 });
  });

  // So many cannot be taken off the line in one transaction: the rest must not be forgotten.
  test("is waited for behind any number that missed theirs", async () => {
    vi.stubEnv("TOOL_JOB_CLAIM_SCAN", "10");
    const t = backend();
    const [first] = await busy(t);
    for (let i = 0; i < 25; i++) await wait(t, { deadlineMs: SECOND });
    await advance(t, 2 * SECOND);
    const jobId = await wait(t);
    expect(await complete(t, first, { wantsNext: true })).toMatchObject({ ok: true });
    for (let i = 0; i < 3; i++) {
      vi.advanceTimersByTime(0);
      await t.finishInProgressScheduledFunctions();
    }
    expect(await get(t, jobId)).toMatchObject({ status: "running" });
  });
});

test("the end of retention comes a day after the end of a job", async () => {
  const t = backend();
  const claim = await run(t, { argsJson: JSON.stringify({ query: "x".repeat(2_000) }) });
  vi.setSystemTime(START_MS + 20 * SECOND);
  await complete(t, claim, { resultJson: JSON.stringify("y".repeat(2_000)) });
  const clean = () => t.mutation(internal.toolJobs.cleanupExpired, {});
  vi.setSystemTime(START_MS + DAY + 20 * SECOND - 1);
  expect(await clean()).toMatchObject({ deleted: 0 });
  vi.setSystemTime(START_MS + DAY + 20 * SECOND);
  expect(await clean()).toMatchObject({ deleted: 1, deletedJobs: 1 });
  expect(await rowCounts(t)).toEqual({ slots: 1, toolJobCounts: 1 });
  expect((await stats(t)).byStatus.completed).toBe(0);
  expect(await handed(t)).toEqual([]);
});
