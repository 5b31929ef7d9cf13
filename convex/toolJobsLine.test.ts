import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { advance, backend, type Backend, settleAll, useStillClock } from "../test/edge/backend";
import {
  busy,
  type Claim,
  claimNext,
  complete,
  enqueue,
  fail,
  get,
  handed,
  type JobId,
  rows,
  run,
  running,
  stats,
  wait,
} from "../test/edge/jobs";
import { SECOND } from "../src/core/time";
import { internal } from "./_generated/api";
import { internalAction } from "./_generated/server";
import { v } from "convex/values";

useStillClock();

const enqueueMany = (t: Backend, jobs: readonly { argsJson: string; workKey?: string }[]) =>
  t.mutation(internal.toolJobs.enqueueMany, {
    source: "operator",
    toolName: "search_web",
    jobs: [...jobs],
  });

const numbered = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ argsJson: JSON.stringify({ i }) }));

describe("the slot of a job that ends", () => {
  test.each([
    ["completes", (t: Backend, claim: Claim) => complete(t, claim)],
    ["fails and will be tried again", (t: Backend, claim: Claim) => fail(t, claim)],
    ["is buried", (t: Backend, claim: Claim) => fail(t, claim, { retryable: false })],
  ])("goes to one that waits in the same transaction: it %s", async (_, end) => {
    const t = backend();
    const [first] = await busy(t);
    const jobId = await wait(t);
    expect(await handed(t)).toEqual([]);
    expect(await end(t, first)).toMatchObject({ next: null });
    expect(await handed(t)).toMatchObject([{ jobId, attempts: 1 }]);
    expect([await running(t), (await rows(t)).stripes]).toEqual([2, []]);
    expect(await claimNext(t)).toBeNull();
  });

  test("goes back with the report to a worker that asks, and no other is started", async () => {
    const t = backend();
    const [first] = await busy(t);
    const jobId = await wait(t);
    const { next } = await complete(t, first, { wantsNext: true });
    expect(next).toMatchObject({ jobId, fence: 1, attempts: 1 });
    expect(await handed(t)).toEqual([]);
  });

  test("is not offered where nobody waits", async () => {
    const t = backend();
    await complete(t, await run(t));
    expect(await handed(t)).toEqual([]);
  });

  test("is not given away any more where the tool's limit was lowered, and who waits is served", async () => {
    vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "3");
    const t = backend();
    const claims = [await run(t), await run(t), await run(t)];
    const jobId = await wait(t);
    vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "1");
    const { slots } = await rows(t);
    const byIndex = claims.map((claim) => ({
      claim,
      index: slots.find(({ h }) => h === claim.jobId)?.i ?? 0,
    }));
    for (const { claim, index } of byIndex)
      if (index > 0)
        expect(await complete(t, claim, { wantsNext: true })).toMatchObject({ next: null });
    expect(await running(t)).toBe(1);
    for (const { claim, index } of byIndex)
      if (index === 0)
        expect((await complete(t, claim, { wantsNext: true })).next).toMatchObject({ jobId });
  });
});

test("a limit that was raised lets waiting jobs run when an operator says so", async () => {
  const t = backend();
  await busy(t);
  const jobId = await wait(t);
  vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "3");
  expect(await t.mutation(internal.toolJobs.claimNext, {})).toMatchObject({ jobId });
  expect(await t.mutation(internal.toolJobs.claimNext, {})).toBeNull();
});

describe("the line of a tool", () => {
  test("holds as many as configured and refuses more, which writes nothing", async () => {
    vi.stubEnv("TOOL_JOB_QMAX_WEB", "21");
    const t = backend();
    await busy(t);
    for (let i = 0; i < 21; i++) await wait(t);
    const before = await rows(t);
    expect(await enqueue(t)).toEqual({ kind: "saturated", retryAfterMs: SECOND });
    expect(await rows(t)).toEqual(before);
    expect((await stats(t)).pressureByTool["search_web"]).toEqual({
      queuedUtilization: 1,
      runningUtilization: 1,
    });
    await run(t, { toolName: "search_products" });
  });

  test("spreads over its stripes, and its rows are gone with the last job", async () => {
    const t = backend();
    const [first] = await busy(t);
    for (let i = 0; i < 40; i++) await wait(t);
    const { stripes } = await rows(t);
    expect(stripes.length).toBeGreaterThan(8);
    expect(stripes.reduce((sum, { r }) => sum + r, 0)).toBe(40);
    let claim: Claim | null = first;
    let ran = 0;
    for (; claim !== null; ran++) claim = (await complete(t, claim, { wantsNext: true })).next;
    expect([ran, (await rows(t)).stripes]).toEqual([41, []]);
  });

  test("serves each stripe in the order in which jobs came", async () => {
    // One stripe: the random point is always the same.
    vi.spyOn(Math, "random").mockReturnValue(0.4);
    const t = backend();
    const [first] = await busy(t);
    const came: JobId[] = [];
    for (let i = 0; i < 5; i++) {
      came.push(await wait(t));
      vi.advanceTimersByTime(1);
    }
    const served: JobId[] = [];
    let claim: Claim | null = first;
    for (;;) {
      claim = (await complete(t, claim, { wantsNext: true })).next;
      if (claim === null) break;
      served.push(claim.jobId);
    }
    expect(served).toEqual(came);
  });

  // The public original: the lowest class could wait for ever.
  test.each([
    [{}, 0.5, "interactive"],
    [{}, 0.9, "batch"],
    [{ TOOL_JOB_RUNMAX_QOS_REALTIME: "100" }, 0.5, "realtime"],
    [{ TOOL_JOB_RUNMAX_QOS_INTERACTIVE: "100" }, 0.9, "interactive"],
    [{ TOOL_JOB_RUNMAX_QOS_BATCH: "100" }, 0.5, "batch"],
  ])("with the weights of %o serves at point %s a job that is %s", async (env, point, expected) => {
    for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
    vi.spyOn(Math, "random").mockReturnValue(0);
    const t = backend();
    const [first] = await busy(t);
    const ids: Record<string, JobId> = {};
    for (const qosClass of ["realtime", "interactive", "batch"] as const)
      ids[qosClass] = await wait(t, { qosClass });
    vi.mocked(Math.random).mockReturnValue(point);
    expect((await complete(t, first, { wantsNext: true })).next?.jobId).toBe(ids[expected]);
  });
});

describe("many jobs at once", () => {
  test("start where slots are free, a few with each worker, and wait where none is", async () => {
    vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "7");
    const t = backend();
    await run(t);
    const many = await enqueueMany(t, numbered(20));
    expect(many).toMatchObject({ started: 6, waiting: 14, refused: 0, retryAfterMs: 0 });
    expect(new Set(many.jobIds).size).toBe(20);
    expect(await handed(t)).toHaveLength(6);
    expect((await stats(t)).byStatus).toMatchObject({ running: 7, queued: 14 });
    for (const [i, jobId] of many.jobIds.entries())
      expect(await t.run((ctx) => ctx.db.get("toolJobs", jobId as JobId))).toMatchObject({
        j: JSON.stringify({ i }),
      });
  });

  test.each([
    ["1", 6],
    ["3", 2],
    ["20", 1],
  ])("go %s to a worker", async (each, workers) => {
    vi.stubEnv("TOOL_JOB_MAX_PER_RUN", each);
    vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "6");
    let started = 0;
    const worker = internalAction({
      args: { claims: v.any() },
      handler: async () => void (started += 1),
    });
    const t = backend(true, worker);
    await enqueueMany(t, numbered(6));
    await advance(t, 0);
    expect(started).toBe(workers);
  });

  test("are refused where too many wait, the last ones first", async () => {
    vi.stubEnv("TOOL_JOB_QMAX_WEB", "5");
    const t = backend();
    const many = await enqueueMany(t, numbered(9));
    expect(many).toMatchObject({ started: 2, waiting: 5, refused: 2, retryAfterMs: SECOND });
    expect(many.jobIds.slice(7)).toEqual([null, null]);
    expect((await rows(t)).jobs).toHaveLength(7);
  });

  test("of the same work are one, and join what is under way", async () => {
    const t = backend();
    const { jobId } = await run(t, { workKey: "web:shoes" });
    const job = (workKey: string) => ({ argsJson: "{}", workKey });
    const { jobIds } = await enqueueMany(t, [job("web:hats"), job("web:shoes"), job("web:hats")]);
    expect(jobIds).toEqual([jobIds[0], jobId, jobIds[0]]);
    expect((await rows(t)).jobs).toHaveLength(2);
  });
});

describe("in a large pool", () => {
  const SIZE = 32;
  const LARGE = { TOOL_JOB_RUNMAX_WEB: String(SIZE), TOOL_JOB_QMAX_WEB: "80" };

  async function full(t: Backend): Promise<Claim[]> {
    for (const [name, value] of Object.entries(LARGE)) vi.stubEnv(name, value);
    const { jobIds } = await enqueueMany(t, numbered(SIZE));
    expect(jobIds).toHaveLength(SIZE);
    return await handed(t);
  }

  test("a job that finds no slot is next in one that is busy, and runs there without any line", async () => {
    const t = backend();
    const claims = await full(t);
    const jobId = await wait(t);
    const slot = (await rows(t)).slots.find(({ n }) => n === jobId);
    expect((await rows(t)).stripes).toEqual([]);
    expect((await stats(t)).byStatus).toMatchObject({ queued: 1, running: SIZE });
    const holder = claims.find((claim) => claim.jobId === slot?.h);
    if (holder === undefined) throw new Error("the slot is held");
    expect((await complete(t, holder, { wantsNext: true })).next).toMatchObject({ jobId });
    expect((await rows(t)).slots.filter(({ n }) => n !== undefined)).toEqual([]);
  });

  test("every slot has one next at most, the others stand in line, and all are served", async () => {
    const t = backend();
    const claims: Claim[] = await full(t);
    for (let i = 0; i < 60; i++) await wait(t);
    const nexts = (await rows(t)).slots.filter(({ n }) => n !== undefined).length;
    // Nobody stands in line while any slot has no next: those that end without would race for it.
    expect(nexts).toBe(SIZE);
    expect((await stats(t)).byStatus).toMatchObject({ queued: 60, running: SIZE });
    let ran = 0;
    for (let claim = claims.pop(); claim !== undefined; claim = claims.pop(), ran++) {
      const { next } = await complete(t, claim, { wantsNext: true });
      if (next !== null) claims.push(next);
    }
    expect(ran).toBe(SIZE + 60);
    expect((await stats(t)).byStatus).toMatchObject({ queued: 0, running: 0, completed: ran });
  });

  test("who is next may be cancelled, and nobody is kept from that place", async () => {
    const t = backend();
    await full(t);
    const jobId = await wait(t);
    await t.mutation(internal.toolJobs.cancel, { jobId });
    expect((await rows(t)).slots.filter(({ n }) => n !== undefined)).toEqual([]);
    expect((await stats(t)).byStatus).toMatchObject({ queued: 0, cancelled: 1 });
  });

  test("who is next in a slot that is not used any more finds another place", async () => {
    const t = backend();
    const claims = await full(t);
    for (let i = 0; i < 8; i++) await wait(t);
    vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "1");
    const { slots } = await rows(t);
    for (const claim of claims)
      if (slots.some(({ h, i }) => h === claim.jobId && i > 0)) await complete(t, claim);
    expect((await stats(t)).byStatus).toMatchObject({ queued: 8, running: 1 });
    expect((await rows(t)).slots.filter(({ i, n }) => n !== undefined && i > 0)).toEqual([]);
  });
});

describe("one who is next in a slot that is not used any more, and came too late,", () => {
  test("never runs, and whoever waits behind it is served", async () => {
    vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "32");
    const t = backend();
    await enqueueMany(t, numbered(32));
    const claims = await handed(t);
    const late = await wait(t, { deadlineMs: SECOND });
    const slot = (await rows(t)).slots.find(({ n }) => n === late);
    const holder = claims.find(({ jobId }) => jobId === slot?.h);
    if (holder === undefined || slot === undefined) throw new Error("it is next somewhere");
    vi.advanceTimersByTime(2 * SECOND);
    vi.stubEnv("TOOL_JOB_RUNMAX_WEB", String(Math.max(1, slot.i)));
    await t.run((ctx) => ctx.db.patch("slots", slot._id, { i: Math.max(1, slot.i) }));
    for (const claim of claims) if (claim !== holder) await complete(t, claim);
    expect(await complete(t, holder, { wantsNext: true })).toEqual({ ok: true, next: null });
    expect(await get(t, late)).toMatchObject({ status: "failed", attempts: 0 });
    expect((await stats(t)).byStatus).toMatchObject({ queued: 0, running: 0, failed: 1 });
  });
});

test("without mishaps, jobs come to their end over any overlapping history, each exactly once", async () => {
  const step = fc.oneof(
    { weight: 5, arbitrary: fc.record({ kind: fc.constant("enqueue" as const), by: fc.nat(3) }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant("end" as const), by: fc.nat(99) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("cancel" as const), by: fc.nat(99) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("resize" as const), by: fc.nat(4) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("wait" as const), by: fc.nat(20_000) }) },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { size: "max", maxLength: 60 }), async (history) => {
      vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "2");
      vi.stubEnv("TOOL_JOB_QMAX_WEB", "17");
      const held: Claim[] = [];
      const worker = internalAction({
        args: { claims: v.any() },
        handler: async (_, { claims }: { claims: Claim[] }) => void held.push(...claims),
      });
      const t = backend(true, worker);
      const accepted: JobId[] = [];
      const end = async (claim: Claim, how: number) => {
        // Some workers are never heard of again.
        if (how % 10 === 0) return;
        const wantsNext = how % 2 === 0;
        const ended =
          how % 10 < 7
            ? await complete(t, claim, { wantsNext })
            : await fail(t, claim, { wantsNext, retryable: how % 10 < 9 });
        if (ended.next !== null) held.push(ended.next);
      };
      let most = 2;
      for (const { by, kind } of history) {
        if (kind === "enqueue") {
          const enqueued = await enqueue(t, by === 0 ? { run: "worker" } : {});
          if (enqueued.kind === "run") held.push(enqueued.claim);
          if (enqueued.kind === "run") accepted.push(enqueued.claim.jobId);
          if (enqueued.kind === "waiting") accepted.push(enqueued.jobId);
        }
        if (kind === "end" && held.length > 0) {
          const [claim] = held.splice(by % held.length, 1);
          if (claim !== undefined) await end(claim, by);
        }
        const chosen = accepted[by % Math.max(1, accepted.length)];
        if (kind === "cancel" && chosen !== undefined)
          await t.mutation(internal.toolJobs.cancel, { jobId: chosen });
        if (kind === "resize") {
          vi.stubEnv("TOOL_JOB_RUNMAX_WEB", String(1 + by));
          most = Math.max(most, 1 + by);
        }
        if (kind === "wait") await advance(t, by);
        expect(await running(t)).toBeLessThanOrEqual(most);
        const { byStatus } = await stats(t);
        const counted = Object.values(byStatus).reduce((sum, jobs) => sum + jobs, 0);
        expect(counted).toBe(accepted.length);
      }
      // Nobody enqueues any more, and all the same every job comes to its end.
      for (let round = 0; round < 40; round++) {
        await advance(t, 20 * SECOND);
        for (const claim of held.splice(0)) await end(claim, 1);
      }
      const { byStatus } = await stats(t);
      expect(byStatus).toMatchObject({ queued: 0, running: 0 });
      const statuses = await Promise.all(
        accepted.map(async (jobId) => (await get(t, jobId))?.status),
      );
      for (const status of ["completed", "cancelled", "dead_letter"])
        expect(statuses.filter((one) => one === status)).toHaveLength(
          byStatus[status === "dead_letter" ? "deadLetter" : (status as "completed")],
        );
      expect((await rows(t)).stripes).toEqual([]);
      await settleAll(t);
    }),
    { numRuns: 5 },
  );
});
