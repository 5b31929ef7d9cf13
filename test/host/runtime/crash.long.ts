import { expect, test } from "vitest";
import { scratch, spawnHost, until } from "./support";
import type { HostProcess } from "./support";

const ROUNDS = 25;
const WRITERS = 8;
const JOBS_PER_CALL = 3;

/** Schedules jobs until the host dies; returns the tags whose call was acknowledged. */
async function writeUntilDeath(host: HostProcess, round: number): Promise<string[]> {
  const acknowledged: string[] = [];
  const writer = async (id: number) => {
    for (let n = 0; ; n++) {
      const tag = `${round}.${id}.${n}`;
      try {
        const args = {
          tag,
          from: 0,
          count: JOBS_PER_CALL,
          delayMs: Math.floor(Math.random() * 40),
        };
        await host.run("jobs:scheduleMany", args);
        acknowledged.push(tag);
      } catch {
        return;
      }
    }
  };
  const writers = Array.from({ length: WRITERS }, (_, id) => writer(id));
  await new Promise((resolve) => setTimeout(resolve, 50 + Math.random() * 400));
  await host.kill("SIGKILL");
  await Promise.all(writers);
  return acknowledged;
}

test(`${ROUNDS} kills under load lose no acknowledged job and repeat none`, async () => {
  const dataDir = scratch("crash-long");
  const acknowledged: string[] = [];
  let acted = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const host = await spawnHost(dataDir);
    await host.run("jobs:scheduleWork", { tag: `action ${round}`, workMs: 20 });
    acknowledged.push(...(await writeUntilDeath(host, round)));
  }
  const host = await spawnHost(dataDir);
  await until(
    () => host.run("jobs:pending"),
    (left) => left === 0,
    120_000,
  );
  const texts = (await host.run("notes:texts")) as string[];
  const runs = new Map<string, number>();
  for (const text of texts) runs.set(text, (runs.get(text) ?? 0) + 1);
  const repeated = [...runs].filter(([, count]) => count > 1);
  expect(repeated).toEqual([]);
  for (const tag of acknowledged)
    for (let n = 0; n < JOBS_PER_CALL; n++) expect(runs.get(`${tag} ${n}`), `${tag} ${n}`).toBe(1);
  // A call that was not acknowledged may have been done, but only as a whole.
  const calls = new Map<string, number>();
  for (const text of runs.keys()) {
    const call = /^(\d+\.\d+\.\d+) \d+$/.exec(text)?.[1];
    if (call !== undefined) calls.set(call, (calls.get(call) ?? 0) + 1);
    else acted++;
  }
  expect([...calls].filter(([, count]) => count !== JOBS_PER_CALL)).toEqual([]);
  expect(acted).toBeGreaterThan(0);
  expect(acknowledged.length).toBeGreaterThan(ROUNDS);
  await host.kill("SIGTERM");
});
