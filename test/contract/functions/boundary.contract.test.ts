import { beforeEach, describe, expect, test, vi } from "vitest";
import { type Backend, useStillClock } from "../../edge/backend";
import { type Args, call, dump, FUNCTIONS, whole, wrongArgs } from "./registry";

useStillClock();
beforeEach(() => {
  vi.spyOn(console, "log").mockImplementation(() => undefined);
});

const PROVIDER = { provider: "serper_search" };
const JOB = { source: "chat_http", toolName: "search_web", argsJson: '{"query":"boats"}' };

async function permit(t: Backend): Promise<unknown> {
  const { permit } = await call<{ permit?: unknown }>(t, "circuitBreaker:checkGate", PROVIDER);
  return permit;
}

interface Claim {
  readonly jobId: string;
  readonly fence: number;
}

async function claim(t: Backend): Promise<Claim> {
  const enqueued = await call<{ claim: Claim }>(t, "toolJobs:enqueue", JOB);
  return enqueued.claim;
}

type Arrange = (t: Backend) => Args | Promise<Args>;

/**
 * The reliability functions that operators, scripts and the code of the seeds call by name, with the
 * arguments they are called with there and those that are required here besides.
 */
const NAMED: Readonly<Record<string, Arrange>> = {
  "toolCache:get": () => ({ namespace: "search_web_v1", key: "q=boats" }),
  "toolCache:set": () => ({
    namespace: "search_web_v1",
    key: "q=boats",
    value: "[]",
    ttlMs: 60_000,
  }),
  "toolCache:cleanupExpired": () => ({}),
  "toolCache:clearNamespace": () => ({ namespace: "search_web_v1", maxDeletes: 10 }),
  "toolCache:listNamespaceStats": () => ({ limit: 5_000 }),
  "toolJobs:enqueue": () => ({ ...JOB, maxAttempts: 2 }),
  "toolJobs:get": async (t) => ({ jobId: (await claim(t)).jobId }),
  "toolJobs:claimNext": () => ({ toolName: "search_web" }),
  "toolJobs:complete": async (t) => {
    const { jobId, fence } = await claim(t);
    return { jobId, fence, resultJson: '{"kind":"complete","value":"[]"}' };
  },
  "toolJobs:fail": async (t) => {
    const { jobId, fence } = await claim(t);
    return { jobId, fence, errorCode: "upstream_timeout", retryable: true };
  },
  "toolJobs:processQueue": () => ({ maxJobs: 3 }),
  "toolJobs:listDeadLetters": () => ({ limit: 500 }),
  "toolJobs:requeueDeadLetter": async (t) => ({ jobId: (await claim(t)).jobId }),
  "toolJobs:getQueueStats": () => ({ limit: 5_000 }),
  "toolJobs:monitorQueueHealth": () => ({}),
  "toolJobs:raiseQueueAlertIfNeeded": () => ({
    kind: "queued_depth",
    observed: 201,
    threshold: 200,
  }),
  "toolJobs:listRecentQueueAlerts": () => ({ limit: 200 }),
  "toolJobs:cleanupExpired": () => ({}),
  "circuitBreaker:checkGate": () => PROVIDER,
  "circuitBreaker:recordSuccess": async (t) => ({ permit: await permit(t) }),
  "circuitBreaker:recordFailure": async (t) => ({ permit: await permit(t) }),
  "circuitBreaker:listStatuses": () => ({ limit: 100 }),
  "bulkhead:acquireSlot": () => ({
    ...PROVIDER,
    leaseId: "lease-1",
    maxConcurrent: 12,
    leaseTtlMs: 60_000,
  }),
  "bulkhead:releaseSlot": () => ({ ...PROVIDER, leaseId: "lease-1" }),
  "bulkhead:cleanupExpiredLeases": () => ({}),
  "bulkhead:listInFlightByProvider": () => ({ ...PROVIDER, limit: 500 }),
  "rateLimit:checkAndIncrement": () => ({ key: "chat_stream:user:u1", max: 30, windowMs: 300_000 }),
  "rateLimit:recordEvent": () => ({
    source: "http",
    bucket: "gmail_push",
    outcome: "contention_fallback",
    reason: "contention",
  }),
  "rateLimit:listRecentEvents": () => ({ limit: 200, bucket: "gmail_push" }),
  "rateLimit:getEventSummary": () => ({ minutes: 15 }),
  "rateLimit:raiseAlertIfNeeded": () => ({
    bucket: "gmail_push",
    outcome: "blocked",
    threshold: 40,
    observed: 41,
  }),
  "rateLimit:listRecentAlerts": () => ({ limit: 200 }),
  "rateLimit:monitorAndAlert": () => ({}),
  "rateLimit:cleanupExpired": () => ({}),
  "idempotency:claimKey": () => ({ scope: "whatsapp_message", key: "wamid.1", ttlMs: 86_400_000 }),
  "idempotency:cleanupExpired": () => ({}),
  "idempotency:listRecentByScope": () => ({ scope: "whatsapp_message", limit: 200 }),
  "ops:getReliabilitySnapshot": () => ({ minutes: 15, limit: 50 }),
};

/** Files all of whose functions are called by name, by people or by programs. */
const FILES = Object.keys(NAMED).map((name) => name.split(":")[0]);

/** The others in those files: parts of the work of those above, and what came after the seeds. */
const OTHERS: Readonly<Record<string, Arrange>> = {
  "toolCache:lookup": () => ({ namespace: "search_web_v1", key: "q=boats" }),
  "toolJobs:enqueueMany": () => ({ source: "operator", toolName: "search_web", jobs: [] }),
  "toolJobs:heartbeat": async (t) => {
    const { jobId, fence } = await claim(t);
    return { jobId, fence, progress: 0.5 };
  },
  "toolJobs:cancel": async (t) => ({ jobId: (await claim(t)).jobId }),
  "toolJobs:dispatch": async (t) => {
    const { jobId, fence } = await claim(t);
    return { jobId, fence };
  },
  "toolJobs:expireLease": async (t) => ({ slotId: await slot(t), fence: 1 }),
  "toolJobs:serveLine": () => ({ toolName: "search_web" }),
  "toolJobs:requeueDeadLetters": () => ({ toolName: "search_web", limit: 10, dryRun: true }),
  "toolJobs:deferDeadLetter": async (t) => ({
    jobId: (await claim(t)).jobId,
    delayMs: 60_000,
    reason: "vendor is down",
  }),
  "toolJobs:requeueDeferred": async (t) => ({ jobId: (await claim(t)).jobId, untilMs: 1 }),
  "circuitBreaker:setState": () => ({ ...PROVIDER, state: "closed" }),
  "circuitBreaker:poolTallies": async (t) => ({ ...PROVIDER, except: await slot(t) }),
  "bulkhead:listHeld": () => ({ ...PROVIDER, nowMs: 1 }),
  "bulkhead:pickFree": () => ({
    pool: "serper_search",
    size: 1,
    points: [0],
    looks: 1,
    late: true,
    nowMs: 1,
  }),
  "rateLimit:check": () => ({ key: "chat_stream:user:u1", max: 30, windowMs: 300_000 }),
  "rateLimit:reset": () => ({ key: "chat_stream:user:u1", max: 30, windowMs: 300_000 }),
  "rateLimit:pickShard": () => ({ key: "global:all", shards: [0, 1] }),
  "rateLimit:refusalRows": () => ({ bucket: "gmail_push", outcome: "blocked", minuteMs: 0 }),
  "idempotency:completeKey": () => ({ scope: "whatsapp_message", key: "wamid.1", fence: 1 }),
  "idempotency:failKey": () => ({ scope: "whatsapp_message", key: "wamid.1", fence: 1 }),
  "idempotency:claimNonce": () => ({ scope: "s", nonce: "n", timestampMs: 1, skewMs: 1_000 }),
  "idempotency:duplicateRows": () => ({ scope: "whatsapp_message", minuteMs: 0 }),
};

async function slot(t: Backend): Promise<string> {
  const { slotId } = (await permit(t)) as { readonly slotId: string };
  return slotId;
}

test("no function of these files is left out", () => {
  const found = [...FUNCTIONS.keys()].filter((name) => FILES.includes(name.split(":")[0]));
  expect([...Object.keys(NAMED), ...Object.keys(OTHERS)].sort()).toEqual(found.sort());
});

describe.each(Object.entries({ ...NAMED, ...OTHERS }))("%s", (name, arrange) => {
  test("exists, is internal, and says what it takes and gives", () => {
    const known = FUNCTIONS.get(name);
    expect(known).toMatchObject({ isPublic: false });
    expect(known?.returns).not.toBeNull();
  });

  test("accepts the arguments it is named with, and returns what it declares", async () => {
    const t = whole();
    const args = await arrange(t);
    // The return value is checked against the function's own validator on the way out.
    await expect(call(t, name, args)).resolves.toBeDefined();
  });

  test("refuses any other, and nothing is changed by that", async () => {
    const t = whole();
    const args = await arrange(t);
    const before = await dump(t);
    for (const [what, wrong] of wrongArgs(name, args)) {
      const refused: unknown = await call(t, name, wrong).catch((error: unknown) => error);
      expect([what, String(refused)]).toEqual([what, expect.stringMatching(/validat/i)]);
    }
    expect(await dump(t)).toEqual(before);
  });
});

test("cleanups are done when there is nothing to clean up, and schedule nothing", async () => {
  const t = whole();
  const before = await dump(t);
  for (const name of Object.keys(NAMED).filter((one) => one.includes(":cleanup"))) {
    const counts = await call<Record<string, number>>(t, name);
    expect([name, Object.values(counts).every((count) => count === 0)]).toEqual([name, true]);
  }
  expect(await dump(t)).toEqual(before);
});
