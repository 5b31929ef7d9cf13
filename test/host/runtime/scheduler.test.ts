import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FIXTURE, scratch, spawnHost, startFixture, until } from "./support";
import type { Fixture } from "./support";
import { WriteConflict } from "../../../src/host/database";
import { startHost } from "../../../src/host/index";

let host: Fixture;
beforeAll(async () => {
  host = await startFixture();
});
afterAll(() => host.close());

interface Job {
  readonly state: { readonly kind: string; readonly error?: string };
  readonly name: string;
  readonly args: unknown[];
  readonly completedTime?: number;
}

const text = (id: unknown) => id as string;
const notes = async () => (await host.run("notes:list")) as string[];
const job = async (id: unknown) =>
  (await host.run("jobs:state", { id: text(id) })) as unknown as Job;
const settled = (id: unknown, kind: string) =>
  until(
    () => job(id),
    ({ state }) => state.kind === kind,
  );

describe("a scheduled mutation", () => {
  test("runs when it is due, once, and is listed with its result", async () => {
    const id = await host.run("jobs:scheduleRun", { tag: "later", delayMs: 200 });
    expect(await job(id)).toMatchObject({
      name: "jobs.js:run",
      args: [{ tag: "later" }],
      state: { kind: "pending" },
    });
    expect(await notes()).not.toContain("later");
    const done = await settled(id, "success");
    expect(done.completedTime).toBeGreaterThan(0);
    expect((await notes()).filter((text) => text === "later")).toHaveLength(1);
  });

  test("is dropped with the transaction that scheduled it", async () => {
    await expect(
      host.run("jobs:scheduleRun", { tag: "dropped", delayMs: 0, thenFail: true }),
    ).rejects.toThrow();
    const id = await host.run("jobs:scheduleRun", { tag: "after it", delayMs: 50 });
    await settled(id, "success");
    expect(await notes()).not.toContain("dropped");
  });

  test("that throws has failed, with its writes dropped, and is not tried again", async () => {
    const id = await host.run("jobs:scheduleFailing", { tag: "bad" });
    const { state } = await settled(id, "failed");
    expect(state.error).toContain("bad cannot be done");
    expect(await notes()).not.toContain("bad");
  });

  test("that is canceled while it waits never runs", async () => {
    const id = await host.run("jobs:scheduleRun", { tag: "never", delayMs: 300 });
    await host.run("jobs:cancel", { id: text(id) });
    const marker = await host.run("jobs:scheduleRun", { tag: "marker", delayMs: 400 });
    await settled(marker, "success");
    expect((await job(id)).state.kind).toBe("canceled");
    expect(await notes()).not.toContain("never");
  });

  test("may be scheduled by an action, on its own", async () => {
    const id = await host.run("jobs:scheduleFromAction", { tag: "by action" });
    await settled(id, "success");
    expect(await notes()).toContain("by action");
  });

  test("must exist, and lie within five years", async () => {
    const far = 6 * 366 * 24 * 3_600_000;
    await expect(host.run("jobs:scheduleRun", { tag: "x", delayMs: far })).rejects.toThrow(
      "more than 5 years in the future",
    );
  });
});

test("a cancellation between two attempts of a job is heeded", async () => {
  let commits = -Infinity;
  const racing = await startFixture({
    injection: {
      // The fixture's cron runs once and then waits for a clock that stands still.
      nowMs: () => 1_700_000_000_000,
      // Large, so that the wait between the attempts leaves time for the cancellation.
      random: () => 0.7 + Math.random() * 0.3,
      // The second commit from now is the job's first attempt.
      commitFailure: () => (++commits === 2 ? new WriteConflict("notes") : undefined),
    },
  });
  await until(
    () => racing.run("notes:counter", { name: "tick" }),
    (count) => count === 1,
  );
  commits = 0;
  const id = text(await racing.run("jobs:scheduleRun", { tag: "raced", delayMs: 0 }));
  await until(
    async () => commits,
    (count) => count >= 2,
  );
  await racing.run("jobs:cancel", { id });
  const after = (await racing.run("jobs:state", { id })) as unknown as Job;
  await new Promise((resolve) => setTimeout(resolve, 250));
  const end = (await racing.run("jobs:state", { id })) as unknown as Job;
  expect(end.state.kind).toBe(after.state.kind);
  expect(await racing.run("notes:list")).toEqual(end.state.kind === "canceled" ? [] : ["raced"]);
  await racing.close();
});

describe("a scheduled action", () => {
  test("is in progress while it runs, then done", async () => {
    const id = await host.run("jobs:scheduleWork", { tag: "action", workMs: 150 });
    await settled(id, "inProgress");
    await settled(id, "success");
    expect(await notes()).toEqual(expect.arrayContaining(["action started", "action finished"]));
  });

  test("that is canceled runs on, but what it schedules then is born canceled", async () => {
    const id = await host.run("jobs:scheduleWork", {
      tag: "stopped",
      workMs: 200,
      then: "stillborn",
    });
    await settled(id, "inProgress");
    await host.run("jobs:cancel", { id: text(id) });
    await until(notes, (texts) => texts.includes("stopped finished"));
    const marker = await host.run("jobs:scheduleRun", { tag: "second marker", delayMs: 50 });
    await settled(marker, "success");
    expect((await job(id)).state.kind).toBe("canceled");
    expect(await notes()).not.toContain("stillborn");
  });
});

test("a conflict is tried again until it is gone, whatever stands in the way", async () => {
  let conflicts = Infinity;
  const shaky = await startFixture({
    injection: {
      // Small, so that the waits between the attempts are.
      random: () => Math.random() / 50,
      commitFailure: () => (++conflicts <= 12 ? new WriteConflict("notes") : undefined),
    },
  });
  const id = await shaky.run("jobs:scheduleRun", { tag: "persistent", delayMs: 100 });
  conflicts = 0;
  await until(
    () => shaky.run("notes:list"),
    (texts) => (texts as string[]).includes("persistent"),
  );
  expect(conflicts).toBeGreaterThan(12);
  expect((await shaky.run("notes:list")) as string[]).toEqual(["persistent"]);
  expect(await shaky.run("jobs:state", { id: text(id) })).toMatchObject({
    state: { kind: "success" },
  });
  await shaky.close();
});

test("many jobs of one moment all run, and the queue drains", async () => {
  await host.run("jobs:scheduleMany", { tag: "crowd", from: 0, count: 300, delayMs: 0 });
  await until(
    () => host.run("jobs:pending"),
    (left) => left === 0,
    20_000,
  );
  const crowd = (await notes()).filter((text) => text.startsWith("crowd "));
  expect(new Set(crowd).size).toBe(300);
  expect(crowd).toHaveLength(300);
});

describe("a cron", () => {
  test("runs at its interval and keeps its beat over a restart", async () => {
    const dataDir = scratch("cron");
    let nowMs = Date.now();
    const start = () =>
      startHost({ functionsDir: FIXTURE, dataDir, injection: { nowMs: () => nowMs } });
    const first = await start();
    const ticks = (from: typeof first) => from.run("notes:counter", { name: "tick" });
    expect(
      await until(
        () => ticks(first),
        (count) => count === 1,
      ),
    ).toBe(1);
    await first.close();
    // Many runs were missed: one is made up for, the rest are skipped.
    nowMs += 100_500;
    const second = await start();
    expect(
      await until(
        () => ticks(second),
        (count) => count === 2,
      ),
    ).toBe(2);
    nowMs += 10;
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(await ticks(second)).toBe(2);
    await second.close();
  });
});

test("a crash repeats no mutation, loses none, and fails actions that were in progress", async () => {
  const dataDir = scratch("crash");
  const first = await spawnHost(dataDir);
  const actionId = await first.run("jobs:scheduleWork", { tag: "cut", workMs: 60_000 });
  await until(
    () => first.run("notes:list"),
    (texts) => (texts as string[]).includes("cut started"),
  );
  for (let batch = 0; batch < 8; batch++)
    await first.run("jobs:scheduleMany", { tag: "kept", from: batch * 50, count: 50, delayMs: 1 });
  expect(await first.kill("SIGKILL")).toBe("SIGKILL");
  const second = await spawnHost(dataDir);
  await until(
    () => second.run("jobs:pending"),
    (left) => left === 0,
    20_000,
  );
  const kept = ((await second.run("notes:list")) as string[]).filter((text) =>
    text.startsWith("kept "),
  );
  expect([kept.length, new Set(kept).size]).toEqual([400, 400]);
  expect(await second.run("jobs:state", { id: actionId })).toMatchObject({
    state: { kind: "failed", error: "Transient error while executing action" },
  });
  expect(await second.kill("SIGTERM")).toBe(0);
});
