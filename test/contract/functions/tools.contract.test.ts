import { beforeEach, describe, expect, test, vi } from "vitest";
import { DAY, MINUTE, SECOND } from "../../../src/core/time";
import { backend, type Backend, refused, START_MS, useStillClock } from "../../edge/backend";
import { type Args, call } from "./registry";

useStillClock();
beforeEach(() => {
  vi.spyOn(console, "log").mockImplementation(() => undefined);
});

const at = (afterMs: number): void => void vi.setSystemTime(START_MS + afterMs);

describe("toolCache", () => {
  const place = { namespace: "search_web_v1", key: "q=boats" };
  const get = (t: Backend, more: Args = {}) => call(t, "toolCache:get", { ...place, ...more });
  const set = (t: Backend, more: Args = {}) =>
    call<{ key: string; expiresAt: number } | null>(t, "toolCache:set", {
      ...place,
      value: '["answer"]',
      ttlMs: MINUTE,
      ...more,
    });

  test("get is null before there is anything, the value while it is fresh, and null after", async () => {
    const t = backend();
    expect(await get(t)).toBeNull();
    await set(t);
    expect(await get(t)).toBe('["answer"]');
    expect(await get(t, { key: "  Q=BOATS " })).toBe('["answer"]');
    expect(await get(t, { namespace: "search_web_v2" })).toBeNull();
    at(MINUTE);
    expect(await get(t)).toBeNull();
  });

  test("set says where and until when, from 5 seconds to a day, and keeps the last value", async () => {
    const t = backend();
    expect(await set(t, { key: " Q=Boats" })).toEqual({
      key: "q=boats",
      expiresAt: START_MS + MINUTE,
    });
    for (const [ttlMs, keptMs] of [
      [0, 5 * SECOND],
      [-1, 5 * SECOND],
      [NaN, 5 * SECOND],
      [Infinity, DAY],
      [1e12, DAY],
    ] as const)
      expect((await set(t, { ttlMs }))?.expiresAt).toBe(START_MS + keptMs);
    await set(t, { value: '["later"]' });
    expect(await get(t)).toBe('["later"]');
    expect(await t.run((ctx) => ctx.db.query("toolResultCache").collect())).toHaveLength(1);
  });

  test("set refuses what it could only store in part", async () => {
    const t = backend();
    const most = "é".repeat(32 * 1024);
    expect(await set(t, { value: most })).not.toBeNull();
    expect(await get(t)).toBe(most);
    expect(await set(t, { value: `${most}x` })).toBeNull();
    expect(await get(t)).toBe(most);
  });

  test("listNamespaceStats counts each namespace; clearNamespace empties one, as far as it may", async () => {
    const t = backend();
    for (let i = 0; i < 6; i++) await set(t, { key: `q=${i}` });
    await set(t, { namespace: "search_products_v1" });
    const stats = (limit?: number) =>
      call<Args>(t, "toolCache:listNamespaceStats", limit === undefined ? {} : { limit });
    for (const limit of [undefined, 100, 1, 1e9, NaN])
      expect(await stats(limit)).toMatchObject({
        sampledActiveEntries: 7,
        byNamespace: { search_web_v1: 6, search_products_v1: 1 },
      });
    const clear = (maxDeletes: number) =>
      call(t, "toolCache:clearNamespace", { namespace: "search_web_v1", maxDeletes });
    expect(await clear(2)).toEqual({ deleted: 2, hasMore: true });
    expect(await clear(10_000)).toEqual({ deleted: 4, hasMore: false });
    expect(await clear(10_000)).toEqual({ deleted: 0, hasMore: false });
    expect(await stats()).toMatchObject({ byNamespace: { search_products_v1: 1 } });
  });

  test("cleanupExpired deletes what no use is left in, and that alone", async () => {
    const t = backend();
    await set(t);
    at(8 * DAY);
    await set(t, { key: "q=fresh" });
    expect(await call(t, "toolCache:cleanupExpired")).toEqual({ deleted: 1 });
    expect(await get(t, { key: "q=fresh" })).toBe('["answer"]');
  });
});

describe("toolJobs", () => {
  interface Claim {
    readonly jobId: string;
    readonly fence: number;
    readonly toolName: string;
    readonly argsJson: string;
    readonly attempts: number;
  }
  interface Enqueued {
    readonly kind: string;
    readonly jobId?: string;
    readonly claim?: Claim;
    readonly retryAfterMs?: number;
  }
  const enqueue = (t: Backend, more: Args = {}) =>
    call<Enqueued>(t, "toolJobs:enqueue", {
      source: "chat_http",
      toolName: "search_web",
      argsJson: '{"query":"boats"}',
      ...more,
    });
  async function running(t: Backend, more: Args = {}): Promise<Claim> {
    const { claim } = await enqueue(t, more);
    if (claim === undefined) throw new Error("no slot was free");
    return claim;
  }
  const state = (t: Backend, jobId: string) => call<Args | null>(t, "toolJobs:get", { jobId });
  const end = (t: Backend, name: "complete" | "fail", { fence, jobId }: Claim, more: Args = {}) =>
    call<Args>(t, `toolJobs:${name}`, {
      jobId,
      fence,
      ...(name === "complete"
        ? { resultJson: '{"kind":"complete","value":"[]"}' }
        : { errorCode: "upstream_timeout", retryable: true }),
      ...more,
    });

  test("enqueue hands out what may run, queues what may wait, refuses what may not", async () => {
    const t = backend();
    vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "1");
    vi.stubEnv("TOOL_JOB_QMAX_WEB", "16");
    expect(await running(t)).toMatchObject({ toolName: "search_web", attempts: 1, fence: 1 });
    const kinds: string[] = [];
    for (let i = 0; i < 40; i++) kinds.push((await enqueue(t)).kind);
    expect(kinds.filter((kind) => kind === "waiting")).toHaveLength(16);
    const last = await enqueue(t);
    expect(last.kind).toBe("saturated");
    expect(last.retryAfterMs).toBeGreaterThanOrEqual(SECOND);
    await refused(enqueue(t, { toolName: "rm_rf" }), "invalid_request");
    await refused(enqueue(t, { toolName: "get_current_time" }), "invalid_request");
    await refused(enqueue(t, { argsJson: `"${"x".repeat(20_000)}"` }), "invalid_request");
  });

  test("enqueue bounds how often a job is tried, whatever is asked for", async () => {
    const t = backend();
    vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "100");
    for (const [maxAttempts, most] of [
      [0, 1],
      [-3, 1],
      [NaN, 1],
      [3, 3],
      [1e9, 6],
    ] as const) {
      const { jobId } = await running(t, { maxAttempts });
      expect(await state(t, jobId)).toMatchObject({ maxAttempts: most });
    }
  });

  test("get shows a job as it goes, its result when it is done, and null for one that is gone", async () => {
    const t = backend();
    const claim = await running(t);
    expect(await state(t, claim.jobId)).toMatchObject({
      status: "running",
      attempts: 1,
      maxAttempts: 2,
      resultJson: null,
      lastError: null,
      deadLetterReason: null,
      completedAt: null,
      createdAt: START_MS,
    });
    at(SECOND);
    await end(t, "complete", claim);
    expect(await state(t, claim.jobId)).toMatchObject({
      status: "completed",
      resultJson: '{"kind":"complete","value":"[]"}',
      completedAt: START_MS + SECOND,
    });
    at(31 * DAY);
    await call(t, "toolJobs:cleanupExpired");
    expect(await state(t, claim.jobId)).toBeNull();
  });

  test("claimNext takes what waits, the oldest first, and null where nothing may run", async () => {
    const t = backend();
    const next = () => call<Claim | null>(t, "toolJobs:claimNext", { toolName: "search_web" });
    expect(await next()).toBeNull();
    vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "1");
    const first = await running(t);
    const waiting = await enqueue(t, { argsJson: '{"query":"waits"}' });
    expect(waiting.kind).toBe("waiting");
    expect(await next()).toBeNull();
    // As long as no limit is raised, whoever waits gets the slot of whoever ends.
    vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "2");
    expect(await next()).toMatchObject({
      _id: waiting.jobId,
      jobId: waiting.jobId,
      toolName: "search_web",
      argsJson: '{"query":"waits"}',
      attempts: 1,
      maxAttempts: 2,
    });
    expect(await next()).toBeNull();
    expect(await end(t, "complete", first)).toMatchObject({ ok: true });
  });

  test("complete is for who holds the job, once", async () => {
    const t = backend();
    const claim = await running(t);
    expect(await end(t, "complete", { ...claim, fence: claim.fence + 1 })).toMatchObject({
      ok: false,
    });
    expect(await end(t, "complete", claim)).toMatchObject({ ok: true });
    expect(await end(t, "complete", claim)).toMatchObject({ ok: false });
    expect(await end(t, "fail", claim)).toMatchObject({ ok: false, status: "not_running" });
  });

  test("fail tries again later until it was often enough, and buries what no retry helps", async () => {
    const t = backend();
    const claim = await running(t);
    const failed = await end(t, "fail", claim);
    expect(failed).toMatchObject({ ok: true, status: "requeued" });
    expect(failed["retryDelayMs"]).toBeLessThanOrEqual(MINUTE);
    expect(await state(t, claim.jobId)).toMatchObject({
      status: "queued",
      lastError: "upstream_timeout",
    });
    at(2 * MINUTE);
    await call(t, "toolJobs:dispatch", { jobId: claim.jobId, fence: claim.fence });
    const second = { ...claim, fence: claim.fence + 1 };
    expect(await end(t, "fail", second)).toMatchObject({ ok: true, status: "dead_letter" });
    expect(await state(t, claim.jobId)).toMatchObject({
      status: "dead_letter",
      attempts: 2,
      deadLetterAt: START_MS + 2 * MINUTE,
    });
    const hopeless = await running(t);
    expect(await end(t, "fail", hopeless, { retryable: false })).toMatchObject({
      status: "dead_letter",
    });
  });

  test("fail takes what an operator says in words, up to 600 characters, and not nothing", async () => {
    const t = backend();
    const { fence, jobId } = await running(t);
    const failWith = (more: Args) => call<Args>(t, "toolJobs:fail", { jobId, fence, ...more });
    for (const nothing of [{}, { error: "" }, { errorCode: "" }])
      await refused(failWith(nothing), "invalid_request");
    expect(await state(t, jobId)).toMatchObject({ status: "running" });
    expect(await failWith({ error: "x".repeat(1_000) })).toMatchObject({ status: "requeued" });
    expect(await state(t, jobId)).toMatchObject({ lastError: "x".repeat(600) });
  });

  test("cleanupExpired deletes ended jobs when their time is over, and no other", async () => {
    const t = backend();
    await end(t, "complete", await running(t));
    at(DAY - 1);
    expect(await call(t, "toolJobs:cleanupExpired")).toMatchObject({ deleted: 0 });
    at(DAY);
    const young = await running(t);
    expect(await call(t, "toolJobs:cleanupExpired")).toMatchObject({ deleted: 1 });
    expect(await state(t, young.jobId)).toMatchObject({ status: "running" });
  });
});
