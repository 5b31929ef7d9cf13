import { expect, test } from "vitest";
import { virtualIo } from "../../providers/testing";
import { holdLease } from "./leaseKeeper";

const LEASE_MS = 45_000;

interface Script {
  /** What the n-th heartbeat answers; the default keeps the lease. */
  readonly answer?: (n: number) => Partial<{ ok: boolean; cancelled: boolean }> | Error;
  readonly releaseAtMs?: number;
}

/** Holds a lease for a while; says when it beat and when it was lost, in milliseconds. */
async function hold({ answer = () => ({}), releaseAtMs = 100_000 }: Script = {}) {
  const { io, pendingTimers, run } = virtualIo(async () => new Response());
  const startMs = io.now();
  const beats: number[] = [];
  let lostAtMs: number | null = null;
  const lease = holdLease(
    startMs + LEASE_MS,
    async () => {
      beats.push(io.now() - startMs);
      const given = answer(beats.length);
      if (given instanceof Error) throw given;
      return { ok: true, cancelled: false, leaseExpiresAt: io.now() + LEASE_MS, ...given };
    },
    io,
  );
  lease.lost.addEventListener("abort", () => {
    lostAtMs = io.now() - startMs;
  });
  await run(io.sleep(releaseAtMs));
  lease.release();
  await run(io.sleep(0));
  expect(pendingTimers()).toBe(0);
  return { beats, lostAtMs: lostAtMs as number | null };
}

test("short work pays for no heartbeat", async () => {
  expect(await hold({ releaseAtMs: 14_999 })).toEqual({ beats: [], lostAtMs: null });
});

test("long work keeps its lease by one in each third of it", async () => {
  expect(await hold({ releaseAtMs: 50_000 })).toEqual({
    beats: [15_000, 30_000, 45_000],
    lostAtMs: null,
  });
});

test.each([
  ["cancelled", { cancelled: true }],
  ["another's", { ok: false }],
])("work that is %s is let go at once", async (_, given) => {
  expect(await hold({ answer: (n) => (n === 2 ? given : {}) })).toEqual({
    beats: [15_000, 30_000],
    lostAtMs: 30_000,
  });
});

test("a heartbeat that fails is followed by others before the lease ends", async () => {
  const { beats, lostAtMs } = await hold({
    answer: (n) => (n === 1 ? new Error("contention") : {}),
    releaseAtMs: 30_000,
  });
  expect([beats, lostAtMs]).toEqual([[15_000, 25_000], null]);
});

test("work that cannot be heard of until its lease ends is let go", async () => {
  const { beats, lostAtMs } = await hold({ answer: () => new Error("gone") });
  expect(lostAtMs).toBeGreaterThanOrEqual(LEASE_MS);
  expect(lostAtMs).toBeLessThan(LEASE_MS + 1_000);
  expect(beats.length).toBeLessThan(20);
});
