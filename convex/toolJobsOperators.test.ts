import { describe, expect, test, vi } from "vitest";
import {
  advance,
  backend,
  type Backend,
  pending,
  rowCounts,
  settleAll,
  START_MS,
  useStillClock,
} from "../test/edge/backend";
import {
  busy,
  complete,
  enqueue,
  fail,
  get,
  handed,
  handedOne,
  type JobId,
  rows,
  run,
  stats,
  wait,
} from "../test/edge/jobs";
import { DAY, HOUR, MINUTE, SECOND } from "../src/core/time";
import { internal } from "./_generated/api";

useStillClock();

/** A dead letter. */
async function bury(t: Backend, toolName = "search_web"): Promise<JobId> {
  const claim = await run(t, { toolName });
  await fail(t, claim, { retryable: false, errorCode: "upstream_error" });
  return claim.jobId;
}

const list = (t: Backend, limit?: number) =>
  t.query(internal.toolJobs.listDeadLetters, limit === undefined ? {} : { limit });
const requeue = (t: Backend, jobId: JobId) =>
  t.mutation(internal.toolJobs.requeueDeadLetter, { jobId });
const requeueMany = (t: Backend, wanted: { toolName?: string; limit: number; dryRun?: boolean }) =>
  t.mutation(internal.toolJobs.requeueDeadLetters, wanted);
const defer = (t: Backend, jobId: JobId, until: { untilMs?: number; delayMs?: number }) =>
  t.mutation(internal.toolJobs.deferDeadLetter, { jobId, reason: "vendor is down", ...until });

describe("dead letters", () => {
  test("are listed newest first without what users asked, up to a limit", async () => {
    const t = backend();
    const first = await bury(t);
    vi.advanceTimersByTime(1);
    const second = await bury(t, "search_products");
    const letters = await list(t);
    expect(letters).toEqual([
      expect.objectContaining({ jobId: second, toolName: "search_products" }),
      {
        jobId: first,
        toolName: "search_web",
        attempts: 1,
        maxAttempts: 2,
        reason: "not_retryable",
        errorCode: "upstream_error",
        deadLetterAt: START_MS,
        history: [{ atMs: START_MS, code: "upstream_error" }],
        deferred: null,
      },
    ]);
    expect(JSON.stringify(letters)).not.toContain("shoes");
    expect(await list(t, 1)).toHaveLength(1);
  });

  test("that are requeued start by themselves with all attempts before them", async () => {
    const t = backend();
    const jobId = await bury(t);
    expect(await requeue(t, jobId)).toEqual({ ok: true });
    const claim = await handedOne(t);
    expect(claim).toMatchObject({ jobId, attempts: 1, fence: 2, argsJson: '{"query":"shoes"}' });
    expect((await stats(t)).byStatus).toMatchObject({ deadLetter: 0, running: 1 });
    await complete(t, claim);
    expect(await get(t, jobId)).toMatchObject({ status: "completed", deadLetterReason: null });
  });

  // pg-boss#874: a redriven job that failed again was lost.
  test("that are requeued and fail again are dead letters again, their history kept and bounded", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    const t = backend();
    const jobId = await bury(t);
    for (let round = 0; round < 12; round++) {
      await requeue(t, jobId);
      const claim = await handedOne(t);
      await fail(t, claim, { retryable: false, errorCode: `error_${round}` });
      await advance(t, 0);
      expect(await get(t, jobId)).toMatchObject({ status: "dead_letter", attempts: 1 });
    }
    const [letter] = await list(t);
    expect(letter?.history).toHaveLength(8);
    expect(letter?.errorCode).toBe("error_11");
    expect((await stats(t)).byStatus).toMatchObject({ deadLetter: 1, failed: 0 });
  });

  test("wait for a slot like others where none is free, even where the line is full", async () => {
    vi.stubEnv("TOOL_JOB_QMAX_WEB", "1");
    const t = backend();
    const jobId = await bury(t);
    const [first] = await busy(t);
    await wait(t);
    expect(await requeue(t, jobId)).toEqual({ ok: true });
    expect(await get(t, jobId)).toMatchObject({ status: "queued", attempts: 0 });
    const { next } = await complete(t, first, { wantsNext: true });
    if (next !== null) await complete(t, next);
    expect([next?.jobId, ...(await handed(t)).map((claim) => claim.jobId)]).toContain(jobId);
  });

  test("that never were, or are none, cannot be requeued or put off", async () => {
    const t = backend();
    const claim = await run(t);
    const refusal = { ok: false, reason: "not_dead_letter" };
    expect(await requeue(t, claim.jobId)).toEqual(refusal);
    expect(await defer(t, claim.jobId, { delayMs: 1 })).toEqual(refusal);
    await t.run((ctx) => ctx.db.delete("toolJobs", claim.jobId));
    expect(await requeue(t, claim.jobId)).toEqual({ ok: false, reason: "missing" });
    const jobId = await bury(t);
    await t.run((ctx) => ctx.db.patch("toolJobs", jobId, { t: "search_moon" }));
    expect(await requeue(t, jobId)).toEqual({ ok: false, reason: "unknown_tool" });
  });

  test("are requeued many at once, the oldest first, of one tool or of all", async () => {
    const t = backend();
    const web: JobId[] = [];
    for (let i = 0; i < 5; i++) {
      web.push(await bury(t));
      vi.advanceTimersByTime(1);
    }
    const products = await bury(t, "search_products");
    const dry = await requeueMany(t, { toolName: "search_web", limit: 3, dryRun: true });
    expect(dry).toEqual({ requeued: 0, jobIds: web.slice(0, 3), dryRun: true, hasMore: true });
    expect((await stats(t)).byStatus.deadLetter).toBe(6);
    const done = await requeueMany(t, { toolName: "search_web", limit: 3 });
    expect(done).toEqual({ requeued: 3, jobIds: web.slice(0, 3), dryRun: false, hasMore: true });
    expect((await stats(t)).byStatus).toMatchObject({ deadLetter: 3, running: 2, queued: 1 });
    const rest = await requeueMany(t, { limit: 100 });
    expect([rest.jobIds, rest.hasMore]).toEqual([[...web.slice(3), products], false]);
    expect((await stats(t)).byStatus).toMatchObject({ deadLetter: 0, running: 3, queued: 3 });
  });

  test("that are put off come back at their time, with the reason shown until then", async () => {
    const t = backend();
    const jobId = await bury(t);
    const untilMs = START_MS + 8 * DAY;
    expect(await defer(t, jobId, { untilMs })).toEqual({ ok: true, untilMs });
    expect(await list(t)).toMatchObject([
      { jobId, deadLetterAt: START_MS, deferred: { untilMs, reason: "vendor is down" } },
    ]);
    // Longer than dead letters are kept.
    vi.setSystemTime(START_MS + 7 * DAY + HOUR);
    await t.mutation(internal.toolJobs.cleanupExpired, {});
    expect(await get(t, jobId)).toMatchObject({ status: "dead_letter", deadLetterAt: START_MS });
    vi.setSystemTime(START_MS);
    vi.advanceTimersByTime(8 * DAY);
    await t.finishInProgressScheduledFunctions();
    expect(await handedOne(t)).toMatchObject({ jobId, attempts: 1 });
    expect((await stats(t)).byStatus).toMatchObject({ deadLetter: 0, running: 1 });
  });

  test("that were put off and then requeued, or put off again, come back once", async () => {
    const t = backend();
    const [one, other] = [await bury(t), await bury(t)];
    for (const jobId of [one, other]) await defer(t, jobId, { delayMs: MINUTE });
    expect(await requeue(t, one)).toEqual({ ok: true });
    await defer(t, other, { delayMs: HOUR });
    await complete(t, await handedOne(t));
    expect((await pending(t)).map(({ name }) => name).sort()).toEqual([
      "toolJobs:requeueDeferred",
      "toolRuns:run",
    ]);
    await advance(t, MINUTE);
    expect(await get(t, one)).toMatchObject({ status: "completed" });
    expect(await get(t, other)).toMatchObject({ status: "dead_letter" });
    await advance(t, HOUR - MINUTE);
    expect(await get(t, other)).toMatchObject({ status: "running" });
  });

  test("of a tool that is no more are not put off for ever: they die with their retention", async () => {
    const t = backend();
    const jobId = await bury(t);
    await defer(t, jobId, { delayMs: HOUR });
    await t.run((ctx) => ctx.db.patch("toolJobs", jobId, { t: "search_moon" }));
    await advance(t, HOUR);
    expect(await list(t)).toMatchObject([{ jobId, deadLetterAt: START_MS, deferred: null }]);
    vi.setSystemTime(START_MS + 7 * DAY);
    await t.mutation(internal.toolJobs.cleanupExpired, {});
    expect(await get(t, jobId)).toBeNull();
  });

  test("of one tool are found behind any number of another's", async () => {
    const t = backend();
    const job = { a: START_MS - 1, p: "d", t: "search_web", c: "r", o: "o", f: 1 } as const;
    for (let part = 0; part < 6; part++)
      await t.run(async (ctx) => {
        for (let i = 0; i < 100; i++) await ctx.db.insert("toolJobs", job);
      });
    const jobId = await bury(t, "search_products");
    expect(await requeueMany(t, { toolName: "search_products", limit: 5 })).toMatchObject({
      jobIds: [jobId],
      hasMore: false,
    });
  });

  test("that are requeued are joined by identical work, as they were before", async () => {
    const t = backend();
    const workKey = "web:shoes";
    const claim = await run(t, { workKey });
    await fail(t, claim, { retryable: false });
    // Nobody joins a dead letter.
    const other = await run(t, { workKey });
    await complete(t, other);
    await requeue(t, claim.jobId);
    expect(await enqueue(t, { workKey })).toMatchObject({ jobId: claim.jobId, joined: true });
    await complete(t, await handedOne(t));
    expect(await run(t, { workKey })).not.toMatchObject({ jobId: claim.jobId });
  });
});

describe("the end of retention", () => {
  const clean = (t: Backend) => t.mutation(internal.toolJobs.cleanupExpired, {});

  test.each([
    ["TOOL_JOB_TTL_MS", "300000", "completed", 5 * MINUTE],
    ["TOOL_JOB_DLQ_TTL_MS", "60000", "dead_letter", MINUTE],
  ])("of %s = %s is when a job that is %s is deleted", async (name, value, status, afterMs) => {
    vi.stubEnv(name, value);
    const t = backend();
    if (status === "completed") await complete(t, await run(t));
    else await bury(t);
    vi.setSystemTime(START_MS + afterMs - 1);
    expect(await clean(t)).toMatchObject({ deletedJobs: 0 });
    vi.setSystemTime(START_MS + afterMs);
    expect(await clean(t)).toMatchObject({ deletedJobs: 1 });
    expect((await stats(t)).sampled).toBe(0);
  });

  test("spares who waits and who runs, however long", async () => {
    const t = backend();
    await busy(t);
    await wait(t);
    vi.setSystemTime(START_MS + 90 * DAY);
    expect(await clean(t)).toMatchObject({ deletedJobs: 0, buriedJobs: 0 });
    expect((await rows(t)).jobs).toHaveLength(3);
  });

  test("of those who wait for a tool that is no more is a dead letter", async () => {
    const t = backend();
    await busy(t);
    const jobId = await wait(t);
    await t.run(async (ctx) => {
      const [stripe] = await ctx.db.query("toolJobStripes").take(1);
      if (stripe === undefined) throw new Error("somebody stands in line");
      const p = `search_moon:r:${stripe.z.toString(16)}`;
      await ctx.db.patch("toolJobs", jobId, { t: "search_moon", p });
      await ctx.db.patch("toolJobStripes", stripe._id, { t: "search_moon" });
    });
    expect((await stats(t)).byTool["search_moon"]).toMatchObject({ queued: 1 });
    expect(await clean(t)).toMatchObject({ buriedJobs: 1 });
    expect(await get(t, jobId)).toMatchObject({
      status: "dead_letter",
      deadLetterReason: "unknown_tool",
    });
    expect((await rows(t)).stripes).toEqual([]);
    expect((await stats(t)).byTool["search_moon"]).toMatchObject({ queued: 0, deadLetter: 1 });
  });

  test("comes for any number of them, in bounded batches", async () => {
    const t = backend();
    for (let part = 0; part < 3; part++)
      await t.run(async (ctx) => {
        for (let i = 0; i < 100; i++) {
          const job = { a: 0, t: "search_web", c: "r", o: "o", f: 1, v: true } as const;
          const jobId = await ctx.db.insert("toolJobs", { ...job, p: i % 2 === 0 ? "c" : "d" });
          await ctx.db.insert("toolJobPayloads", { jobId, argsJson: "{}" });
        }
      });
    expect(await clean(t)).toMatchObject({ deletedJobs: 100 });
    await settleAll(t);
    expect(await rowCounts(t)).not.toHaveProperty("toolJobs");
    expect(await rowCounts(t)).not.toHaveProperty("toolJobPayloads");
  });
});

describe("the statistics", () => {
  // The public original: counts were samples, and dead letters failed too.
  test("count every job once, and know the oldest", async () => {
    vi.stubEnv("TOOL_JOB_QMAX_WEB", "300");
    const t = backend();
    await bury(t);
    await complete(t, await run(t));
    await busy(t);
    await advance(t, SECOND);
    await wait(t);
    await advance(t, 2 * SECOND);
    for (let i = 0; i < 150; i++) await wait(t);
    await fail(t, await run(t, { toolName: "search_global" }));
    const counts = {
      queued: 151,
      running: 2,
      completed: 1,
      failed: 0,
      cancelled: 0,
      deadLetter: 1,
    };
    expect(await stats(t)).toMatchObject({
      sampled: 156,
      truncated: false,
      byStatus: { ...counts, queued: 152 },
      byTool: { search_web: counts, search_global: { queued: 1, running: 0 } },
      oldestQueuedAgeMs: 2 * SECOND,
      oldestRunningAgeMs: 3 * SECOND,
    });
  });

  test("of an empty queue are zeros", async () => {
    expect(await stats(backend())).toMatchObject({
      sampled: 0,
      oldestQueuedAgeMs: null,
      oldestRunningAgeMs: null,
    });
  });
});

describe("the health of the queue", () => {
  const monitor = (t: Backend) => t.mutation(internal.toolJobs.monitorQueueHealth, {});
  const alerts = async (t: Backend) =>
    (await t.query(internal.toolJobs.listRecentQueueAlerts, {})).map(
      ({ kind, observed, status }) => ({
        kind,
        observed,
        status,
      }),
    );

  test("while all is well is nobody's business, and looking writes nothing", async () => {
    const t = backend();
    await busy(t);
    const before = await rowCounts(t);
    expect(await monitor(t)).toEqual({
      enabled: true,
      createdAlerts: 0,
      recoveredAlerts: 0,
      sentryAlerts: 0,
      windowMinutes: 5,
    });
    expect(await rowCounts(t)).toEqual(before);
  });

  test.each([
    ["TOOL_QUEUE_ALERT_MAX_QUEUED", "queued_depth", "1", 2],
    ["TOOL_QUEUE_ALERT_MAX_QUEUED_AGE_MS", "oldest_queued_age", "1000", 2_000],
    ["TOOL_QUEUE_ALERT_MAX_RUNNING_AGE_MS", "oldest_running_age", "1000", 2_000],
    ["TOOL_QUEUE_ALERT_MAX_DLQ", "dead_letter_depth", "1", 2],
  ])("above %s raises %s, once", async (name, kind, threshold, observed) => {
    vi.stubEnv(name, threshold);
    const t = backend();
    await bury(t);
    await bury(t);
    await busy(t);
    await wait(t);
    await wait(t);
    await advance(t, 2 * SECOND);
    expect(await monitor(t)).toMatchObject({ createdAlerts: 1, sentryAlerts: 1 });
    expect(await alerts(t)).toEqual([{ kind, observed, status: "active" }]);
    expect(await monitor(t)).toMatchObject({ createdAlerts: 0, sentryAlerts: 0 });
    vi.stubEnv(name, "100000");
    expect(await monitor(t)).toMatchObject({ createdAlerts: 0, recoveredAlerts: 1 });
    expect(await alerts(t)).toMatchObject([{ kind, status: "resolved" }]);
  });

  test("is not looked at where that is switched off", async () => {
    vi.stubEnv("TOOL_QUEUE_ALERTS_ENABLED", "false");
    vi.stubEnv("TOOL_QUEUE_ALERT_MAX_DLQ", "1");
    vi.stubEnv("TOOL_QUEUE_ALERT_WINDOW_MIN", "7");
    const t = backend();
    await bury(t);
    await bury(t);
    expect(await monitor(t)).toMatchObject({
      enabled: false,
      createdAlerts: 0,
      windowMinutes: 7,
    });
  });

  test("may be reported by others, who are heard once per cooldown", async () => {
    vi.stubEnv("TOOL_QUEUE_ALERT_COOLDOWN_MS", "60000");
    const t = backend();
    const report = { kind: "queued_depth" as const, observed: 300, threshold: 200 };
    const raise = () => t.mutation(internal.toolJobs.raiseQueueAlertIfNeeded, report);
    expect(await raise()).toMatchObject({ created: true });
    expect(await raise()).toMatchObject({ created: false });
    expect(await alerts(t)).toHaveLength(1);
  });
});
