import { v } from "convex/values";
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
import { DAY, MINUTE, SECOND } from "../src/core/time";
import { internal } from "./_generated/api";
import { internalAction } from "./_generated/server";
import type { Id } from "./_generated/dataModel";
import type { Claim } from "./model/toolJobs";

useStillClock();

interface Wanted {
  readonly toolName?: string;
  readonly argsJson?: string;
  readonly workKey?: string;
  readonly maxAttempts?: number;
}

const enqueue = (t: Backend, wanted: Wanted = {}) =>
  t.mutation(internal.toolJobs.enqueue, {
    source: "chat_http",
    toolName: "search_web",
    argsJson: '{"query":"shoes"}',
    ...wanted,
  });

/** A job that its caller runs at once. */
async function run(t: Backend, wanted: Wanted = {}): Promise<Claim> {
  const enqueued = await enqueue(t, wanted);
  if (enqueued.kind !== "run") throw new Error(`not to be run: ${enqueued.kind}`);
  return enqueued.claim;
}

/** A job that waits for a slot. */
async function wait(t: Backend, wanted: Wanted = {}): Promise<Id<"toolJobs">> {
  const enqueued = await enqueue(t, wanted);
  if (enqueued.kind !== "waiting") throw new Error(`does not wait: ${enqueued.kind}`);
  return enqueued.jobId;
}

const claimNext = (t: Backend, toolName = "search_web") =>
  t.mutation(internal.toolJobs.claimNext, { toolName });

async function claimed(t: Backend): Promise<Claim> {
  const claim = await claimNext(t);
  if (claim === null) throw new Error("nothing to claim");
  return claim;
}

const complete = (t: Backend, { jobId, fence }: Claim, resultJson = '{"kind":"complete"}') =>
  t.mutation(internal.toolJobs.complete, { jobId, fence, resultJson });

const fail = (t: Backend, { jobId, fence }: Claim, retryable = true) =>
  t.mutation(internal.toolJobs.fail, {
    jobId,
    fence,
    errorCode: "upstream_timeout",
    retryable,
  });

const get = (t: Backend, jobId: Id<"toolJobs">) => t.query(internal.toolJobs.get, { jobId });

const rows = (t: Backend) =>
  t.run(async (ctx) => ({
    jobs: await ctx.db.query("toolJobs").take(1_000),
    payloads: await ctx.db.query("toolJobPayloads").take(1_000),
    slots: await ctx.db.query("slots").take(100),
    cache: await ctx.db.query("toolResultCache").take(100),
  }));

const running = async (t: Backend) =>
  (await rows(t)).slots.filter(({ e }) => e > Date.now()).length;

const starts = async (t: Backend) =>
  (await pending(t)).filter(({ name, afterMs }) => name === "toolRuns:run" && afterMs <= 0).length;

/** Both places of web search are taken. */
const busy = async (t: Backend): Promise<[Claim, Claim]> => [await run(t), await run(t)];

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
    expect(await pending(t)).toEqual([
      {
        name: "toolJobs:expireLease",
        afterMs: 50 * SECOND,
        args: { jobId: claim.jobId, fence: 1 },
      },
    ]);
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
    expect(await complete(t, claim, '"found"')).toEqual({ ok: true });
    expect(await get(t, claim.jobId)).toMatchObject({
      status: "completed",
      resultJson: '"found"',
      completedAt: START_MS + SECOND,
    });
    expect([await running(t), await pending(t)]).toEqual([0, []]);
    const [job] = (await rows(t)).jobs;
    for (const field of ["slot", "leaseExpiresAt", "leaseTimerId"])
      expect(job).not.toHaveProperty(field);
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

  test("is refused where its tool's queue is full, and that writes nothing", async () => {
    vi.stubEnv("TOOL_JOB_QMAX_WEB", "2");
    const t = backend();
    await busy(t);
    await wait(t);
    await wait(t);
    const before = await rows(t);
    expect(await enqueue(t)).toEqual({ kind: "saturated", retryAfterMs: SECOND });
    expect(await rows(t)).toEqual(before);
    await run(t, { toolName: "search_products" });
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
    const done = { jobId: claim.jobId, resultJson: '"found"', cache };
    const stale = await t.mutation(internal.toolJobs.complete, { ...done, fence: 9 });
    expect([stale, (await rows(t)).cache]).toEqual([{ ok: false }, []]);
    await t.mutation(internal.toolJobs.complete, { ...done, fence: claim.fence });
    expect((await rows(t)).cache).toMatchObject([{ value: "found", expiresAt: START_MS + MINUTE }]);
  });

  test("whose result is too large is not completed, and can still fail", async () => {
    const t = backend();
    const claim = await run(t);
    await refused(complete(t, claim, "x".repeat(256 * 1024 + 1)), "internal_error");
    expect(await get(t, claim.jobId)).toMatchObject({ status: "running" });
    expect(await fail(t, claim, false)).toMatchObject({ ok: true, status: "dead_letter" });
  });
});

// Weakness W2-20 of the public original: whoever came first completed a job, its worker or not.
describe("a worker whose lease ran out", () => {
  test("can neither complete nor fail the job that another one holds now", async () => {
    const t = backend();
    const first = await run(t);
    await advance(t, 50 * SECOND);
    await advance(t, MINUTE);
    const second = await claimed(t);
    expect(second).toMatchObject({ jobId: first.jobId, fence: 2, attempts: 2 });
    const before = await rows(t);
    expect(await complete(t, first, '"stale"')).toEqual({ ok: false });
    expect(await fail(t, first)).toEqual({ ok: false, status: "not_running", retryDelayMs: 0 });
    expect(await rows(t)).toEqual(before);
    expect(await complete(t, second, '"right"')).toEqual({ ok: true });
    expect(await get(t, first.jobId)).toMatchObject({ resultJson: '"right"' });
    expect(await complete(t, second, '"twice"')).toEqual({ ok: false });
  });

  test("may still report until the job is taken back", async () => {
    const t = backend();
    const claim = await run(t);
    await advance(t, 49 * SECOND);
    expect(await complete(t, claim)).toEqual({ ok: true });
    await settleAll(t);
    expect(await get(t, claim.jobId)).toMatchObject({ status: "completed" });
  });

  test("and a job that is gone are told apart", async () => {
    const t = backend();
    const claim = await run(t);
    await t.run((ctx) => ctx.db.delete("toolJobs", claim.jobId));
    expect(await fail(t, claim)).toMatchObject({ ok: false, status: "missing" });
    expect(await complete(t, claim)).toEqual({ ok: false });
    expect(await get(t, claim.jobId)).toBeNull();
  });
});

describe("a job that fails", () => {
  // Weakness W2-21 of the public original: a retry had a time, but nothing that came then.
  test("is tried again by itself, when its time has come", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0.5);
    const t = backend();
    const claim = await run(t);
    expect(await fail(t, claim)).toEqual({ ok: true, status: "requeued", retryDelayMs: 500 });
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
    expect(await starts(t)).toBe(1);
    expect(await claimed(t)).toMatchObject({ jobId: claim.jobId, attempts: 2, fence: 2 });
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
      await advance(t, retryDelayMs);
      claim = await claimed(t);
    }
    expect(delays).toEqual([19_999, 39_999, 59_999, 59_999]);
  });

  test("for the last time is a dead letter that says why, and is kept for a week", async () => {
    const t = backend();
    const first = await run(t);
    await advance(t, (await fail(t, first)).retryDelayMs);
    const second = await claimed(t);
    expect(await fail(t, second)).toEqual({ ok: true, status: "dead_letter", retryDelayMs: 0 });
    expect(await get(t, first.jobId)).toMatchObject({
      status: "dead_letter",
      attempts: 2,
      deadLetterReason: "attempts_exhausted",
      lastError: "upstream_timeout",
      deadLetterAt: Date.now(),
    });
    expect((await rows(t)).jobs).toMatchObject([{ expiresAt: Date.now() + 7 * DAY }]);
    expect(await running(t)).toBe(0);
    await settleAll(t);
    expect(await get(t, first.jobId)).toMatchObject({ status: "dead_letter", attempts: 2 });
  });

  test("in a way that no retry mends is a dead letter at once", async () => {
    const t = backend();
    const claim = await run(t);
    expect(await fail(t, claim, false)).toMatchObject({ status: "dead_letter" });
    expect(await get(t, claim.jobId)).toMatchObject({
      attempts: 1,
      deadLetterReason: "not_retryable",
    });
  });
});

// Weakness W2-19 of the public original: a job that killed its workers was tried for ever.
describe("a job whose worker is lost", () => {
  test("is taken back 5 seconds after its lease, tried again, and never beyond its attempts", async () => {
    const t = backend();
    const first = await run(t);
    await advance(t, 50 * SECOND - 1);
    expect(await get(t, first.jobId)).toMatchObject({ status: "running" });
    await advance(t, 1);
    expect(await get(t, first.jobId)).toMatchObject({
      status: "queued",
      lastError: "lease_expired",
    });
    await advance(t, SECOND);
    await claimed(t);
    await advance(t, 50 * SECOND);
    expect(await get(t, first.jobId)).toMatchObject({
      status: "dead_letter",
      attempts: 2,
      deadLetterReason: "lease_expired",
    });
    await settleAll(t);
    expect(await claimNext(t)).toBeNull();
    expect(await running(t)).toBe(0);
  });

  test("wakes the next one that waits", async () => {
    const t = backend();
    await busy(t);
    const waiting = await wait(t);
    vi.advanceTimersByTime(50 * SECOND);
    await t.finishInProgressScheduledFunctions();
    expect(await starts(t)).toBeGreaterThan(0);
    expect(await claimed(t)).toMatchObject({ jobId: waiting });
  });
});

describe("the slot of a job that ends", () => {
  test.each([
    ["completes", (t: Backend, claim: Claim) => complete(t, claim)],
    ["fails and will be tried again", (t: Backend, claim: Claim) => fail(t, claim)],
    ["is buried", (t: Backend, claim: Claim) => fail(t, claim, false)],
  ])("goes to the one that waits longest: it %s", async (_, end) => {
    const t = backend();
    const [first] = await busy(t);
    const waiting = [await wait(t), await wait(t)];
    expect(await starts(t)).toBe(0);
    await end(t, first);
    expect(await starts(t)).toBe(1);
    expect(await claimed(t)).toMatchObject({ jobId: waiting[0] });
    expect(await claimNext(t)).toBeNull();
  });

  test("is not offered where nobody waits", async () => {
    const t = backend();
    await complete(t, await run(t));
    expect(await starts(t)).toBe(0);
  });

  test("is not taken by a new job while others wait for it", async () => {
    const t = backend();
    const [first] = await busy(t);
    const ahead = await wait(t);
    await complete(t, first);
    const behind = await wait(t);
    expect(await claimed(t)).toMatchObject({ jobId: ahead });
    expect(await claimNext(t)).toBeNull();
    expect(await get(t, behind)).toMatchObject({ status: "queued" });
  });

  test("whose worker is lost on its way is offered again, until the job is claimed", async () => {
    const t = backend();
    const [first] = await busy(t);
    const jobId = await wait(t);
    await complete(t, first);
    for (let i = 0; i < 3; i++) {
      // The worker of this test's backend does nothing, which is what a lost one does.
      vi.advanceTimersByTime(0);
      await t.finishInProgressScheduledFunctions();
      expect(await starts(t)).toBe(0);
      vi.advanceTimersByTime(10 * SECOND);
      await t.finishInProgressScheduledFunctions();
      expect(await starts(t)).toBe(1);
    }
    const claim = await claimed(t);
    expect(claim.jobId).toBe(jobId);
    await complete(t, claim);
    await advance(t, 15 * SECOND);
    expect((await pending(t)).map(({ name }) => name)).toEqual(["toolJobs:expireLease"]);
  });
});

test("a job that backs off is not started early by what was meant for its last attempt", async () => {
  vi.spyOn(Math, "random").mockReturnValue(1 - Number.EPSILON);
  vi.stubEnv("TOOL_JOB_RETRY_BASE_MS", "30000");
  const t = backend();
  const [first] = await busy(t);
  await wait(t);
  await complete(t, first);
  await advance(t, 0);
  const { retryDelayMs } = await fail(t, await claimed(t));
  expect(retryDelayMs).toBeGreaterThan(20 * SECOND);
  vi.advanceTimersByTime(15 * SECOND);
  await t.finishInProgressScheduledFunctions();
  expect(await starts(t)).toBe(0);
  vi.advanceTimersByTime(retryDelayMs - 15 * SECOND);
  await t.finishInProgressScheduledFunctions();
  expect(await starts(t)).toBe(1);
});

test("no load strands a job or runs more than its tool may", async () => {
  vi.stubEnv("TOOL_JOB_RUNMAX_WEB", "3");
  const random = uniform(7);
  const held: Claim[] = [];
  // A worker comes for every start, but some are lost on their way.
  const worker = internalAction({
    args: { toolName: v.string() },
    handler: async (ctx, { toolName }) => {
      if (random() < 0.2) return;
      const claim = await ctx.runMutation(internal.toolJobs.claimNext, { toolName });
      if (claim !== null) held.push(claim);
    },
  });
  const t = backend(true, worker);
  const end = async (claim: Claim) => {
    const how = random();
    if (how < 0.5) await complete(t, claim);
    else if (how < 0.9) await fail(t, claim, random() < 0.8);
    // Else its worker is never heard of again.
  };
  let accepted = 0;
  for (let step = 0; step < 75; step++) {
    const choice = random();
    if (choice < 0.45) {
      const enqueued = await enqueue(t);
      if (enqueued.kind === "run") held.push(enqueued.claim);
      if (enqueued.kind !== "saturated") accepted += 1;
    } else if (choice < 0.75 && held.length > 0) {
      const [claim] = held.splice(Math.floor(random() * held.length), 1);
      if (claim !== undefined) await end(claim);
    } else await advance(t, random() * 15 * SECOND);
    expect(await running(t)).toBeLessThanOrEqual(3);
  }
  // Nobody enqueues any more, and all the same every job comes to its end.
  for (let round = 0; round < 32; round++) {
    await advance(t, 12 * SECOND);
    for (const claim of held.splice(0)) await complete(t, claim);
  }
  const { jobs } = await rows(t);
  expect(accepted).toBeGreaterThan(25);
  expect(jobs).toHaveLength(accepted);
  expect([...new Set(jobs.map(({ status }) => status))].sort()).toEqual([
    "completed",
    "dead_letter",
  ]);
  expect(await running(t)).toBe(0);
});

/** A generator of its own, so that the test says the same on every run. */
function uniform(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

describe("the end of a job's retention", () => {
  const clean = (t: Backend) => t.mutation(internal.toolJobs.cleanupExpired, {});

  test("deletes a finished one with its payload, a day after its end", async () => {
    const t = backend();
    const claim = await run(t);
    vi.setSystemTime(START_MS + 20 * SECOND);
    await complete(t, claim);
    vi.setSystemTime(START_MS + DAY + 20 * SECOND - 1);
    expect(await clean(t)).toEqual({ deleted: 0 });
    vi.setSystemTime(START_MS + DAY + 20 * SECOND);
    expect(await clean(t)).toEqual({ deleted: 1 });
    expect(await rowCounts(t)).toEqual({ slots: 1 });
  });

  test("buries one that still waits: it does not vanish", async () => {
    const t = backend();
    await busy(t);
    const jobId = await wait(t);
    await t.run((ctx) => ctx.db.patch("toolJobs", jobId, { expiresAt: START_MS }));
    await clean(t);
    expect(await get(t, jobId)).toMatchObject({
      status: "dead_letter",
      deadLetterReason: "expired",
    });
    vi.setSystemTime(START_MS + 7 * DAY);
    await clean(t);
    expect(await get(t, jobId)).toBeNull();
  });

  test("frees the slot of one that still runs, for whoever waits", async () => {
    const t = backend();
    const [first] = await busy(t);
    const waiting = await wait(t);
    await t.run((ctx) => ctx.db.patch("toolJobs", first.jobId, { expiresAt: START_MS }));
    await clean(t);
    expect(await get(t, first.jobId)).toMatchObject({ status: "dead_letter" });
    expect(await starts(t)).toBe(1);
    expect(await claimed(t)).toMatchObject({ jobId: waiting });
    expect(await complete(t, first)).toEqual({ ok: false });
  });

  test("comes for any number of them, in bounded batches", async () => {
    const t = backend();
    for (let part = 0; part < 3; part++)
      await t.run(async (ctx) => {
        for (let i = 0; i < 100; i++) {
          const jobId = await ctx.db.insert("toolJobs", {
            source: "operator",
            toolName: "search_web",
            qosClass: "realtime",
            status: i % 2 === 0 ? "completed" : "queued",
            attempts: 0,
            maxAttempts: 1,
            availableAt: 0,
            fence: 0,
            createdAt: 0,
            updatedAt: 0,
            expiresAt: 1,
          });
          await ctx.db.insert("toolJobPayloads", { jobId, argsJson: "{}" });
        }
      });
    expect(await clean(t)).toEqual({ deleted: 100 });
    expect((await rows(t)).jobs).toHaveLength(200);
    await settleAll(t);
    const { jobs, payloads } = await rows(t);
    expect([jobs.length, payloads.length]).toEqual([150, 150]);
    expect(new Set(jobs.map(({ status }) => status))).toEqual(new Set(["dead_letter"]));
  });
});
