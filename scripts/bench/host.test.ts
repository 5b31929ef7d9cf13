import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import path from "node:path";
import type { Value } from "convex/values";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startHost, type Host } from "../../src/host";
import { Backend } from "./engine/backend";
import { define } from "./engine/load";
import schema from "./functions/schema";
import * as touches from "./functions/touches";

const app = define({ touches }, schema);
const KEYS = [10, 20, 30, 40];

let dataDir: string;
let host: Host;
/** Holds the next insert back until it is called. */
let held: { readonly reached: () => void; readonly until: Promise<void> } | null = null;
let inserts = 0;

beforeAll(async () => {
  mkdirSync(".output/tmp", { recursive: true });
  dataDir = mkdtempSync(path.resolve(".output/tmp/bench-check-"));
  host = await startHost({
    functionsDir: "scripts/bench/functions",
    dataDir,
    injection: {
      databaseLatency: (op) => {
        if (op !== "1.0/insert") return undefined;
        inserts += 1;
        const hold = held;
        held = null;
        hold?.reached();
        return hold?.until;
      },
    },
  });
});

afterAll(async () => {
  await host.close();
  rmSync(dataDir, { recursive: true, force: true });
});

type Run = (name: string, args: Record<string, Value>) => Promise<unknown>;
const onHost: Run = (name, args) => host.run(name, args);
type Work = (run: Run, ids: readonly string[]) => Promise<unknown>;

/** Documents whose keys begin at an offset of their own, so that cases do not meet. */
async function fill(run: Run, offset: number): Promise<string[]> {
  const ids: string[] = [];
  for (const key of KEYS) ids.push(String(await run("touches:add", { key: offset + key })));
  return ids;
}

/** Attempts of a mutation that another one commits within. */
async function attemptsOnHost(reader: Work, writer: Work, offset: number): Promise<number> {
  const ids = await fill(onHost, offset);
  let go = (): void => undefined;
  const until = new Promise<void>((resolve) => (go = resolve));
  const reached = new Promise<void>((resolve) => (held = { reached: resolve, until }));
  inserts = 0;
  const reading = reader(onHost, ids);
  await reached;
  const before = inserts;
  await writer(onHost, ids);
  const byWriter = inserts - before;
  go();
  await reading;
  return inserts - byWriter;
}

async function attemptsInEngine(reader: Work, writer: Work, offset: number): Promise<number> {
  const options = { transactionMs: 15, jitter: 0, schedulerMs: 0, seed: 1 };
  const backend = new Backend(app, options);
  const run: Run = (name, args) => backend.mutation(name, args);
  return await backend.within(async () => {
    const ids = await fill(run, offset);
    await backend.clock.sleep(100);
    backend.stats.clear();
    const writing = writer(run, ids);
    await backend.clock.sleep(5);
    await Promise.all([writing, reader(run, ids)]);
    return backend.statsOf("touches:touchAndLog").attempts;
  });
}

const touch =
  (what: (o: number, ids: readonly string[]) => Record<string, Value>) =>
  (offset: number): Work =>
  (run, ids) =>
    run("touches:touchAndLog", { touch: what(offset, ids) });
const ranged = (kind: string, from: number, to: number, more: Record<string, Value> = {}) =>
  touch((o) => ({ kind, from: o + from, to: o + to, ...more }));
const add =
  (key: number) =>
  (offset: number): Work =>
  (run) =>
    run("touches:add", { key: offset + key });
const move =
  (place: number, key: number) =>
  (offset: number): Work =>
  (run, ids) =>
    run("touches:move", { id: ids[place] ?? "", key: offset + key });
const remove = (place: number) => (): Work => (run, ids) =>
  run("touches:remove", { id: ids[place] ?? "" });

const first = (from: number, to: number, descending = false) =>
  ranged("first", from, to, { descending });
const get = touch((_, ids) => ({ kind: "get", id: ids[1] ?? "" }));
const patch = touch((_, ids) => ({ kind: "patch", id: ids[1] ?? "" }));
const nothing = touch(() => ({ kind: "nothing" }));

test.each([
  ["an exhausted range, an insert into it", ranged("all", 0, 50), add(25), 2],
  ["an exhausted range, an insert below it", ranged("all", 15, 50), add(12), 1],
  ["an exhausted range, an insert at its excluded end", ranged("all", 0, 50), add(50), 1],
  ["an empty range, an insert into it", ranged("all", 21, 29), add(25), 2],
  ["the first of a range, an insert after it", first(0, 50), add(15), 1],
  ["the first of a range, an insert before it", first(0, 50), add(5), 2],
  ["the first of a range, a later one removed", first(0, 50), remove(2), 1],
  ["the first of a range, itself removed", first(0, 50), remove(0), 2],
  ["the last of a range, an insert after it", first(0, 50, true), add(45), 2],
  ["the last of a range, an insert before it", first(0, 50, true), add(35), 1],
  ["two of a range, an insert between them", ranged("take", 0, 50, { count: 2 }), add(15), 2],
  ["two of a range, an insert behind them", ranged("take", 0, 50, { count: 2 }), add(25), 1],
  ["more than a range has, an insert at its end", ranged("take", 0, 50, { count: 9 }), add(45), 2],
  ["what a filter drops, changed", ranged("filter", 0, 50), move(1, 21), 2],
  ["a range, a document moved out of it", ranged("all", 0, 35), move(1, 45), 2],
  ["a range, a document moved into it", ranged("all", 0, 35), move(3, 25), 2],
  ["a range, a document moved beside it", ranged("all", 0, 15), move(2, 45), 1],
  ["a document by its id, changed", get, move(1, 22), 2],
  ["a document by its id, another one changed", get, move(2, 22), 1],
  ["a document patched unread, changed", patch, move(1, 22), 2],
  ["a stale snapshot, an insert into it", ranged("stale", 0, 50), add(25), 1],
  ["nothing but an insert, another insert", nothing, add(25), 1],
])("conflicts as on the host: %s", async (_, reader, writer, attempts) => {
  const offset = (offsets += 1_000);
  expect(await attemptsInEngine(reader(offset), writer(offset), offset)).toBe(attempts);
  expect(await attemptsOnHost(reader(offset), writer(offset), offset)).toBe(attempts);
});
let offsets = 0;

test("counts as the host does", async () => {
  const backend = new Backend(app, { transactionMs: 0, jitter: 0, schedulerMs: 0, seed: 1 });
  const here = await backend.within(() => counted((name, args) => backend.mutation(name, args)));
  expect(here).toEqual(await counted(onHost));
});

async function counted(run: Run): Promise<Record<string, number>> {
  const ids = await fill(run, 0);
  const metrics = await run("touches:counted", { id: ids[0] ?? "" });
  const used = metrics as Record<string, { used: number }>;
  const figures = ["bytesRead", "bytesWritten", "documentsRead", "documentsWritten"];
  return Object.fromEntries(figures.map((name) => [name, used[name]?.used ?? Number.NaN]));
}
