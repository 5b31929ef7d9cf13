import { beforeEach, describe, expect, test, vi } from "vitest";
import { DAY, MINUTE } from "../../../src/core/time";
import { backend, type Backend, refused, START_MS, useStillClock } from "../../edge/backend";
import { type Args, call, whole } from "./registry";

useStillClock();
beforeEach(() => {
  vi.spyOn(console, "log").mockImplementation(() => undefined);
});

const at = (afterMs: number): void => void vi.setSystemTime(START_MS + afterMs);

describe("rateLimit, what was refused", () => {
  const record = (t: Backend, more: Args = {}) =>
    call(t, "rateLimit:recordEvent", { bucket: "gmail_push", outcome: "blocked", ...more });
  const summary = (t: Backend, minutes?: number) =>
    call<Args>(t, "rateLimit:getEventSummary", minutes === undefined ? {} : { minutes });
  const recent = (t: Backend, more: Args = {}) =>
    call<{ bucket: string; count: number }[]>(t, "rateLimit:listRecentEvents", more);

  test("recordEvent and getEventSummary count by bucket, outcome and reason, in a window of minutes", async () => {
    const t = backend();
    await record(t);
    await record(t);
    await record(t, { outcome: "contention_fallback", reason: "contention", source: "http" });
    await record(t, { bucket: "whatsapp_webhook" });
    expect(await summary(t)).toMatchObject({
      total: 4,
      windowMinutes: 15,
      truncated: false,
      byBucketOutcome: {
        "gmail_push:blocked": 2,
        "gmail_push:contention_fallback": 1,
        "whatsapp_webhook:blocked": 1,
      },
    });
    for (const [minutes, windowMinutes] of [
      [0, 1],
      [NaN, 1],
      [1e9, 1_440],
    ] as const)
      expect(await summary(t, minutes)).toMatchObject({ windowMinutes });
    at(40 * MINUTE);
    expect(await summary(t)).toMatchObject({ total: 0 });
    await refused(record(t, { bucket: "x".repeat(65) }), "invalid_request");
  });

  test("listRecentEvents lists the newest, of one bucket where asked, 200 at most", async () => {
    const t = backend();
    for (const bucket of ["gmail_push", "whatsapp_webhook", "chat_stream"])
      await record(t, { bucket });
    expect(await recent(t, { bucket: "whatsapp_webhook" })).toMatchObject([
      { bucket: "whatsapp_webhook", count: 1 },
    ]);
    for (const [limit, length] of [
      [2, 2],
      [0, 1],
      [NaN, 1],
      [1e9, 3],
    ] as const)
      expect([limit, (await recent(t, { limit })).length]).toEqual([limit, length]);
  });
});

describe("rateLimit, who is told", () => {
  const raise = (t: Backend, observed: number) =>
    call<Args>(t, "rateLimit:raiseAlertIfNeeded", {
      bucket: "whatsapp_webhook",
      outcome: "blocked",
      threshold: 40,
      observed,
    });
  const alerts = (t: Backend, limit?: number) =>
    call<Args[]>(t, "rateLimit:listRecentAlerts", limit === undefined ? {} : { limit });

  test("raiseAlertIfNeeded raises at the threshold, once; listRecentAlerts shows it", async () => {
    const t = backend();
    expect(await raise(t, 39)).toEqual({ created: false });
    const { alertId, created } = await raise(t, 40);
    expect([created, typeof alertId]).toEqual([true, "string"]);
    expect(await raise(t, 400)).toMatchObject({ created: false });
    expect(await alerts(t)).toMatchObject([{ kind: "limiter", threshold: 40 }]);
    expect(await alerts(t, 0)).toHaveLength(1);
  });

  test("monitorAndAlert raises what the rules say of the last five minutes, and nothing when calm", async () => {
    const t = backend();
    expect(await call(t, "rateLimit:monitorAndAlert")).toMatchObject({
      createdAlerts: 0,
      windowMinutes: 5,
    });
    for (let i = 0; i < 5; i++)
      await call(t, "rateLimit:recordEvent", {
        bucket: "whatsapp_webhook",
        outcome: "contention_fallback",
      });
    expect(await call(t, "rateLimit:monitorAndAlert")).toMatchObject({ createdAlerts: 1 });
    expect(await call(t, "rateLimit:monitorAndAlert")).toMatchObject({ createdAlerts: 0 });
    expect(await alerts(t)).toMatchObject([{ kind: "limiter", observed: 5, threshold: 5 }]);
  });
});

describe("toolJobs, for operators", () => {
  async function buried(t: Backend): Promise<string> {
    const { claim } = await call<{ claim: { jobId: string; fence: number } }>(
      t,
      "toolJobs:enqueue",
      {
        source: "operator",
        toolName: "search_web",
        argsJson: '{"query":"boats"}',
        maxAttempts: 1,
      },
    );
    const { fence, jobId } = claim;
    await call(t, "toolJobs:fail", {
      jobId,
      fence,
      errorCode: "upstream_timeout",
      retryable: true,
    });
    return jobId;
  }
  const list = (t: Backend, limit?: number) =>
    call<{ jobId: string }[]>(t, "toolJobs:listDeadLetters", limit === undefined ? {} : { limit });

  test("listDeadLetters lists them without what users asked, as many as asked for", async () => {
    const t = backend();
    const jobs = [await buried(t), await buried(t), await buried(t)];
    const found = await list(t);
    expect(found.map(({ jobId }) => jobId).sort()).toEqual(jobs.sort());
    expect(JSON.stringify(found)).not.toContain("boats");
    for (const [limit, length] of [
      [2, 2],
      [0, 1],
      [1e9, 3],
    ] as const)
      expect([limit, (await list(t, limit)).length]).toEqual([limit, length]);
  });

  test("requeueDeadLetter puts one back with all its attempts, and says why where it does not", async () => {
    const t = backend();
    const jobId = await buried(t);
    const requeue = () => call<Args>(t, "toolJobs:requeueDeadLetter", { jobId });
    expect(await requeue()).toEqual({ ok: true });
    expect(await call(t, "toolJobs:get", { jobId })).toMatchObject({
      status: "running",
      attempts: 1,
    });
    expect(await requeue()).toMatchObject({ ok: false, reason: "not_dead_letter" });
    await t.run((ctx) => ctx.db.delete("toolJobs", jobId as never));
    expect(await requeue()).toMatchObject({ ok: false, reason: "missing" });
  });

  test("getQueueStats counts every job once, whatever limit is asked for", async () => {
    const t = backend();
    await buried(t);
    for (let i = 0; i < 5; i++)
      await call(t, "toolJobs:enqueue", {
        source: "operator",
        toolName: "search_web",
        argsJson: "{}",
      });
    for (const limit of [100, 1, 1e9])
      expect(await call(t, "toolJobs:getQueueStats", { limit })).toMatchObject({
        byStatus: { queued: 3, running: 2, deadLetter: 1, failed: 0, completed: 0 },
        byTool: { search_web: { queued: 3, running: 2, deadLetter: 1 } },
      });
  });

  test("processQueue has nothing to do where the queue runs by itself", async () => {
    const t = whole();
    expect(await call(t, "toolJobs:processQueue", { maxJobs: 5 })).toEqual({
      processed: 0,
      jobs: [],
    });
    at(DAY);
    expect(await call(t, "toolJobs:processQueue")).toEqual({ processed: 0, jobs: [] });
  });

  test("processQueue says so where jobs wait and no slot is free for them", async () => {
    const t = whole();
    vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "1");
    const job = { source: "operator", toolName: "search_web", argsJson: "{}" };
    for (let i = 0; i < 2; i++) await call(t, "toolJobs:enqueue", job);
    expect(await call(t, "toolJobs:processQueue")).toEqual({
      processed: 0,
      jobs: [],
      skipped: "worker_saturated",
    });
  });

  test("processQueue does not call a job that waits for its next attempt held up", async () => {
    const t = whole();
    const job = { source: "operator", toolName: "search_web", argsJson: "{}" };
    const { claim } = await call<{ claim: { jobId: string; fence: number } }>(
      t,
      "toolJobs:enqueue",
      job,
    );
    const { fence, jobId } = claim;
    const failed = { jobId, fence, errorCode: "upstream_error" };
    expect(await call(t, "toolJobs:fail", failed)).toMatchObject({ status: "requeued" });
    expect(await call(t, "toolJobs:processQueue")).toEqual({ processed: 0, jobs: [] });
  });

  test("monitorQueueHealth is quiet while all is well, and tells once of what is not", async () => {
    const t = backend();
    const monitor = () => call<Args>(t, "toolJobs:monitorQueueHealth");
    const alerts = () => call<Args[]>(t, "toolJobs:listRecentQueueAlerts", { limit: 200 });
    expect(await monitor()).toMatchObject({ enabled: true, createdAlerts: 0 });
    vi.stubEnv("TOOL_QUEUE_ALERT_MAX_DLQ", "1");
    await buried(t);
    await buried(t);
    expect(await monitor()).toMatchObject({ createdAlerts: 1 });
    expect(await monitor()).toMatchObject({ createdAlerts: 0 });
    expect(await alerts()).toMatchObject([{ kind: "dead_letter_depth", observed: 2 }]);
  });

  test("raiseQueueAlertIfNeeded raises once within its cooldown; listRecentQueueAlerts shows it", async () => {
    const t = backend();
    const raise = () =>
      call<Args>(t, "toolJobs:raiseQueueAlertIfNeeded", {
        kind: "queued_depth",
        observed: 201,
        threshold: 200,
      });
    expect(await raise()).toMatchObject({ created: true });
    expect(await raise()).toMatchObject({ created: false });
    expect(await call<Args[]>(t, "toolJobs:listRecentQueueAlerts", { limit: 0 })).toMatchObject([
      { kind: "queued_depth", observed: 201, threshold: 200 },
    ]);
  });
});
