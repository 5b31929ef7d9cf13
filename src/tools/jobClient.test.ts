import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { virtualIo } from "../providers/testing";
import { type Attempt, type Enqueued, type JobState, resultJson, runJob } from "./jobClient";

interface Claim {
  readonly jobId: string;
}

const RESULT = { kind: "complete", value: '{"n":1}' } as const;
const state = (status: string, more: Partial<JobState> = {}): JobState => ({
  status,
  resultJson: null,
  lastError: null,
  ...more,
});
const DONE = state("completed", { resultJson: resultJson(RESULT) });
const RUNNING = state("running");
const WAITING: Enqueued<string, Claim> = { kind: "waiting", jobId: "j1", joined: true };
const RUN: Enqueued<string, Claim> = { kind: "run", claim: { jobId: "j1" } };

interface Script {
  /** What each request for the work is answered with; the last one goes on. */
  readonly enqueued: readonly Enqueued<string, Claim>[];
  /** What a look finds, by job and milliseconds waited. */
  readonly job?: (jobId: string, waitedMs: number) => JobState | null;
  readonly attempt?: Attempt;
  readonly attemptMs?: number;
  readonly abortAtMs?: number;
  readonly waitMs?: number;
  readonly firstMs?: number;
  readonly waitForRetry?: boolean;
}

/** Runs a client against a script; says what it did and when. */
async function play(script: Script) {
  const { io, run } = virtualIo(async () => new Response());
  const startMs = io.now();
  const abort = new AbortController();
  const answers = [...script.enqueued];
  const looksAtMs: number[] = [];
  let enqueues = 0;
  let reported = false;
  if (script.abortAtMs === 0) abort.abort();
  else if (script.abortAtMs !== undefined)
    void io.sleep(script.abortAtMs).then(() => {
      abort.abort();
    });
  const client = runJob<string, Claim>(
    {
      now: io.now,
      sleep: io.sleep,
      signal: abort.signal,
      enqueue: async () => {
        enqueues += 1;
        const answer = answers.length > 1 ? answers.shift() : answers[0];
        if (answer === undefined) throw new Error("nothing scripted");
        return answer;
      },
      run: async () => {
        await io.sleep(script.attemptMs ?? 10);
        reported = true;
        return script.attempt ?? { kind: "done", result: RESULT };
      },
      read: async (jobId) => {
        looksAtMs.push(io.now() - startMs);
        return (script.job ?? (() => RUNNING))(jobId, io.now() - startMs);
      },
    },
    {
      firstMs: script.firstMs ?? 250,
      waitMs: script.waitMs ?? 8_000,
      waitForRetry: script.waitForRetry ?? true,
    },
  );
  const outcome = await run(client);
  const tookMs = io.now() - startMs;
  // What it left behind goes on to its report.
  await run(io.sleep(60_000));
  return { outcome, tookMs, looksAtMs, enqueues, reported };
}

describe("work that the caller runs", () => {
  test("is had without a look", async () => {
    const { looksAtMs, outcome } = await play({ enqueued: [RUN] });
    expect(outcome).toEqual({ kind: "completed", result: RESULT });
    expect(looksAtMs).toEqual([]);
  });

  test("that is tried again by others is waited for", async () => {
    const { looksAtMs, outcome } = await play({
      enqueued: [RUN],
      attempt: { kind: "requeued" },
      job: (_, waitedMs) => (waitedMs > 500 ? DONE : state("queued")),
    });
    expect(outcome.kind).toBe("completed");
    expect(looksAtMs).toEqual([260, 681]);
  });

  test("is not waited for again by a caller with something else to serve", async () => {
    const { looksAtMs, outcome } = await play({
      enqueued: [RUN],
      attempt: { kind: "requeued" },
      waitForRetry: false,
    });
    expect([outcome.kind, looksAtMs]).toEqual(["failed", []]);
  });

  test("that failed for good says when to come back", async () => {
    const { outcome } = await play({ enqueued: [RUN], attempt: { kind: "failed" } });
    expect(outcome).toEqual({
      kind: "failed",
      backpressure: { reason: "dead_letter", retryAfterMs: 1_500 },
    });
  });

  test("goes on to its report when the caller leaves at once", async () => {
    const { outcome, reported, tookMs } = await play({
      enqueued: [RUN],
      attemptMs: 5_000,
      abortAtMs: 100,
    });
    expect([outcome.kind, tookMs, reported]).toEqual(["aborted", 100, true]);
  });
});

describe("work that others run", () => {
  test("is looked at six times at most, ever more rarely, the last time at the end", async () => {
    const { looksAtMs, outcome, tookMs } = await play({ enqueued: [WAITING] });
    expect(outcome).toEqual({
      kind: "timeout",
      backpressure: { reason: "queue_timeout", retryAfterMs: 2_000 },
    });
    expect(looksAtMs).toEqual([250, 671, 1_381, 2_578, 4_596, 8_000]);
    expect(tookMs).toBe(8_000);
  });

  test.each([
    [{ firstMs: 1_000 }, 1_000],
    [{ firstMs: 50 }, 50],
    [{ waitMs: 100 }, 100],
  ])("is first looked at when %o says", async (wait, firstMs) => {
    const { looksAtMs } = await play({ enqueued: [WAITING], ...wait });
    expect(looksAtMs[0]).toBe(firstMs);
  });

  test.each([
    [1_000, 1_000],
    [60_000, 15_000],
  ])("and not done in %i ms may be tried again in %i ms", async (waitMs, retryAfterMs) => {
    const { outcome, tookMs } = await play({ enqueued: [WAITING], waitMs });
    expect(outcome).toMatchObject({ kind: "timeout", backpressure: { retryAfterMs } });
    expect(tookMs).toBe(waitMs);
  });

  test("is had as soon as a look finds it done", async () => {
    const { outcome, tookMs } = await play({
      enqueued: [WAITING],
      job: (_, waitedMs) => (waitedMs >= 600 ? DONE : RUNNING),
    });
    expect(outcome).toEqual({ kind: "completed", result: RESULT });
    expect(tookMs).toBe(671);
  });

  test.each([
    ["dead", state("dead_letter")],
    ["gone", null],
    ["completed without a result", state("completed")],
    ["completed with what is no result", state("completed", { resultJson: '{"kind":"odd"}' })],
  ])("and is %s failed", async (_, job) => {
    const { outcome } = await play({ enqueued: [WAITING], job: () => job });
    expect(outcome).toMatchObject({ kind: "failed", backpressure: { reason: "dead_letter" } });
  });

  test("and failed once is not waited for by a caller who has something else", async () => {
    const retried = state("queued", { lastError: "upstream_unavailable" });
    const script = { enqueued: [WAITING], job: () => retried };
    const hasOther = await play({ ...script, waitForRetry: false });
    expect([hasOther.outcome.kind, hasOther.looksAtMs]).toEqual(["failed", [250]]);
    expect((await play(script)).outcome.kind).toBe("timeout");
  });

  test("and failed for good since the caller looked is not asked for again", async () => {
    const { looksAtMs, outcome } = await play({
      enqueued: [{ kind: "negative", retryAfterMs: 9_000 }],
    });
    expect([outcome, looksAtMs]).toEqual([
      { kind: "failed", backpressure: { reason: "dead_letter", retryAfterMs: 9_000 } },
      [],
    ]);
  });

  test("is left at once when the turn is aborted", async () => {
    const { looksAtMs, outcome, tookMs } = await play({ enqueued: [WAITING], abortAtMs: 300 });
    expect([outcome.kind, tookMs, looksAtMs]).toEqual(["aborted", 300, [250]]);
  });
});

describe("a joined job that is cancelled", () => {
  const CANCELLED = state("cancelled");

  test("is asked for again by those who joined it, within the same wait", async () => {
    const { enqueues, looksAtMs, outcome } = await play({
      enqueued: [WAITING, { kind: "waiting", jobId: "j2", joined: false }],
      job: (jobId, waitedMs) => (jobId === "j1" ? CANCELLED : waitedMs > 1_000 ? DONE : RUNNING),
    });
    expect([outcome.kind, enqueues, looksAtMs]).toEqual(["completed", 2, [250, 671, 1_381]]);
  });

  test("is given up after a few times", async () => {
    const { enqueues, outcome } = await play({ enqueued: [WAITING], job: () => CANCELLED });
    expect([outcome.kind, enqueues]).toEqual(["failed", 3]);
  });

  test("is not asked for again by who made it", async () => {
    const made: Enqueued<string, Claim> = { kind: "waiting", jobId: "j1", joined: false };
    const { enqueues, outcome } = await play({ enqueued: [made], job: () => CANCELLED });
    expect([outcome.kind, enqueues]).toEqual(["failed", 1]);
  });
});

test("a refusal says when to come back, a result stored meanwhile is one", async () => {
  const full = await play({ enqueued: [{ kind: "saturated", retryAfterMs: 1_000 }] });
  expect(full.outcome).toEqual({
    kind: "backpressure",
    backpressure: { reason: "queue_saturated", retryAfterMs: 1_000 },
  });
  const cached = await play({ enqueued: [{ kind: "cached", value: "v" }] });
  expect(cached.outcome).toEqual({
    kind: "completed",
    result: { kind: "complete", value: "v" },
  });
});

const STATES = ["queued", "running", "completed", "cancelled", "dead_letter", "gone"] as const;

test.each(["", "no JSON", "null", "{}", '{"kind":"complete"}', '{"kind":"odd","value":""}'])(
  "a result that nobody can read is none: %s",
  async (resultJson) => {
    const job = () => ({ status: "completed", resultJson, lastError: null });
    const { outcome } = await play({ enqueued: [WAITING], job });
    expect(outcome).toMatchObject({ kind: "failed", backpressure: { reason: "dead_letter" } });
  },
);

test("whatever a job does, a caller looks six times at most and stays no longer than its wait", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom(...STATES), { minLength: 1, maxLength: 12, size: "max" }),
      fc.integer({ min: 50, max: 5_000 }),
      fc.integer({ min: 1_000, max: 60_000 }),
      fc.option(fc.integer({ min: 0, max: 60_000 }), { nil: undefined }),
      async (states, firstMs, waitMs, abortAtMs) => {
        let look = 0;
        const { looksAtMs, outcome, tookMs } = await play({
          enqueued: [WAITING],
          job: () => {
            const status = states[look++ % states.length] ?? "gone";
            if (status === "gone") return null;
            return status === "completed" ? DONE : state(status);
          },
          firstMs,
          waitMs,
          ...(abortAtMs === undefined ? {} : { abortAtMs }),
        });
        expect(looksAtMs.length).toBeLessThanOrEqual(6);
        expect(tookMs).toBeLessThanOrEqual(Math.min(waitMs, abortAtMs ?? Infinity));
        if (outcome.kind === "completed") expect(states).toContain("completed");
      },
    ),
    { numRuns: 100 },
  );
});
