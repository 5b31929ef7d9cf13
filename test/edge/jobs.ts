/** The tool job queue as its tests use it. */
import type { FunctionArgs, FunctionReturnType } from "convex/server";
import { internal } from "../../convex/_generated/api";
import type { Doc, Id } from "../../convex/_generated/dataModel";
import type { Claim } from "../../convex/model/toolJobRows";
import { type Backend, pending } from "./backend";

export type JobId = Id<"toolJobs">;
export type { Claim };

type Wanted = Partial<FunctionArgs<typeof internal.toolJobs.enqueue>>;

export const enqueue = (t: Backend, wanted: Wanted = {}) =>
  t.mutation(internal.toolJobs.enqueue, {
    source: "chat_http",
    toolName: "search_web",
    argsJson: '{"query":"shoes"}',
    ...wanted,
  });

/** A job that its caller runs at once. */
export async function run(t: Backend, wanted: Wanted = {}): Promise<Claim> {
  const enqueued = await enqueue(t, wanted);
  if (enqueued.kind !== "run") throw new Error(`not to be run: ${enqueued.kind}`);
  return enqueued.claim;
}

/** A job that waits for a slot. */
export async function wait(t: Backend, wanted: Wanted = {}): Promise<JobId> {
  const enqueued = await enqueue(t, wanted);
  if (enqueued.kind !== "waiting") throw new Error(`does not wait: ${enqueued.kind}`);
  return enqueued.jobId;
}

/** Both slots of web search are taken. */
export const busy = async (t: Backend): Promise<[Claim, Claim]> => [await run(t), await run(t)];

export const claimNext = (t: Backend, toolName = "search_web") =>
  t.mutation(internal.toolJobs.claimNext, { toolName });

type Completion = Partial<FunctionArgs<typeof internal.toolJobs.complete>>;

export const complete = (t: Backend, { fence, jobId }: Claim, more: Completion = {}) =>
  t.mutation(internal.toolJobs.complete, {
    jobId,
    fence,
    resultJson: '{"kind":"complete"}',
    ...more,
  });

type Failure = Partial<FunctionArgs<typeof internal.toolJobs.fail>>;

export const fail = (t: Backend, { fence, jobId }: Claim, more: Failure = {}) =>
  t.mutation(internal.toolJobs.fail, {
    jobId,
    fence,
    errorCode: "upstream_timeout",
    retryable: true,
    ...more,
  });

export const get = (t: Backend, jobId: JobId) => t.query(internal.toolJobs.get, { jobId });

export const stats = (
  t: Backend,
): Promise<FunctionReturnType<typeof internal.toolJobs.getQueueStats>> =>
  t.query(internal.toolJobs.getQueueStats, {});

/** Claims that workers were started with and that nobody has run yet. */
export async function handed(t: Backend): Promise<Claim[]> {
  const runs = (await pending(t)).filter(({ name }) => name === "toolRuns:run");
  return runs.flatMap(({ args }) => (args as { claims: Claim[] }).claims);
}

/** The one claim a worker was started with. */
export async function handedOne(t: Backend): Promise<Claim> {
  const [claim, ...others] = await handed(t);
  if (claim === undefined || others.length > 0)
    throw new Error(`${others.length + (claim === undefined ? 0 : 1)} claims were handed over`);
  return claim;
}

interface Rows {
  readonly jobs: Doc<"toolJobs">[];
  readonly payloads: Doc<"toolJobPayloads">[];
  readonly stripes: Doc<"toolJobStripes">[];
  readonly counts: Doc<"toolJobCounts">[];
  readonly slots: Doc<"slots">[];
}

export const rows = (t: Backend): Promise<Rows> =>
  t.run(async (ctx) => ({
    jobs: await ctx.db.query("toolJobs").take(1_000),
    payloads: await ctx.db.query("toolJobPayloads").take(1_000),
    stripes: await ctx.db.query("toolJobStripes").take(1_000),
    counts: await ctx.db.query("toolJobCounts").take(1_000),
    slots: await ctx.db.query("slots").take(1_000),
  }));

export const running = async (t: Backend): Promise<number> =>
  (await rows(t)).slots.filter(({ e }) => e > Date.now()).length;
