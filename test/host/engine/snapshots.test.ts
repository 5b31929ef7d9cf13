import { mkdirSync } from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Snapshots, SNAPSHOT_AGE_MS_MAX } from "../../../src/host/snapshots";
import { Store } from "../../../src/host/store";
import { scratchDir, withDatabase } from "./harness";
import * as seam from "./seam";

let nowMs = 0;
let store: Store;
let snapshots: Snapshots;
let cleanUp: () => Promise<void>;

beforeEach(() => {
  const { dir, remove } = scratchDir();
  const storeDir = path.join(dir, "store");
  mkdirSync(storeDir);
  nowMs = 0;
  store = new Store(storeDir);
  snapshots = new Snapshots(store, { monotonicMs: () => nowMs, keepsEarlier: false });
  cleanUp = async () => {
    snapshots.close();
    await store.close();
    remove();
  };
});

afterEach(async () => {
  await cleanUp();
});

async function commit(ts: number): Promise<void> {
  await store.write([["\u0001\u0001\u0001key", String(ts)]], ts);
  snapshots.publish();
}

test("transactions at one commit share a reader, which closes with the last of them", async () => {
  await commit(1);
  const first = snapshots.acquire(true);
  expect(snapshots.acquire(true)).toBe(first);
  await commit(2);
  const second = snapshots.acquire(true);
  expect(second).not.toBe(first);
  expect([first.ts, second.ts]).toEqual([1, 2]);
  expect(store.get(first, "\u0001\u0001\u0001key")).toBe("1");
  expect(snapshots.openCount).toBe(2);
  snapshots.release(first);
  expect(snapshots.openCount).toBe(2);
  snapshots.release(first);
  expect(snapshots.openCount).toBe(1);
  snapshots.release(second);
  expect(snapshots.openCount).toBe(1);
});

test("a batch on its way to the disk is not seen before it is published", async () => {
  await commit(1);
  await store.write([["\u0001\u0001\u0001key", "2"]], 2);
  nowMs += SNAPSHOT_AGE_MS_MAX;
  expect(snapshots.acquire(false).ts).toBe(1);
  snapshots.publish();
  expect(snapshots.acquire(false).ts).toBe(2);
});

test("a reader of an older commit is taken away after twenty seconds", async () => {
  await commit(1);
  const old = snapshots.acquire(true);
  await commit(2);
  nowMs += SNAPSHOT_AGE_MS_MAX;
  snapshots.sweep();
  expect(old.expired).toBe(false);
  nowMs += 1;
  snapshots.sweep();
  expect(old.expired).toBe(true);
  expect(snapshots.openCount).toBe(1);
  snapshots.release(old);
});

test("the newest commit stays readable, with a fresh reader for whoever comes", async () => {
  await commit(1);
  const early = snapshots.acquire(true);
  nowMs += 6_000;
  const later = snapshots.acquire(true);
  expect(later).not.toBe(early);
  expect(later.ts).toBe(early.ts);
  nowMs += SNAPSHOT_AGE_MS_MAX - 6_000 + 1;
  snapshots.sweep();
  expect([early.expired, later.expired]).toEqual([true, false]);
  nowMs += 6_000;
  snapshots.sweep();
  expect(later.expired).toBe(true);
  expect(snapshots.acquire(true)).toMatchObject({ ts: 1, expired: false });
});

test("an idle newest reader is left alone", async () => {
  await commit(1);
  nowMs += 10 * SNAPSHOT_AGE_MS_MAX;
  snapshots.sweep();
  expect(snapshots.openCount).toBe(1);
  expect(snapshots.acquire(false)).toMatchObject({ ts: 1, expired: false });
});

test("a held snapshot is readable for twenty seconds, and asking again extends that", async () => {
  await commit(1);
  const held = snapshots.hold(true);
  expect(held).toBe(1);
  nowMs += 15_000;
  expect(snapshots.hold(true)).toBe(1);
  await commit(2);
  nowMs += 15_000;
  expect(snapshots.acquireHeld(1).ts).toBe(1);
  nowMs += 6_000;
  expect(() => snapshots.acquireHeld(1)).toThrow("The snapshot at 1 is no longer held");
  expect(() => snapshots.acquireHeld(7)).toThrow("The snapshot at 7 is no longer held");
  expect(snapshots.acquireHeld(2).ts).toBe(2);
});

test("at most 32 snapshots are held at once", async () => {
  for (let ts = 1; ts <= 32; ts++) {
    await commit(ts);
    snapshots.hold(true);
  }
  await commit(33);
  expect(() => snapshots.hold(true)).toThrow(
    "Too many snapshots are held for query_at_ts (limit: 32)",
  );
  expect(snapshots.openCount).toBe(33);
  nowMs += SNAPSHOT_AGE_MS_MAX + 1;
  expect(snapshots.hold(true)).toBe(33);
  expect(snapshots.openCount).toBe(1);
});

test("far more readers than the library's default can be open at once", async () => {
  const open = [];
  for (let ts = 1; ts <= 300; ts++) {
    await commit(ts);
    open.push(snapshots.acquire(true));
  }
  expect(open.map((snapshot) => store.get(snapshot, "\u0001\u0001\u0001key"))).toEqual(
    open.map(({ ts }) => String(ts)),
  );
  for (const snapshot of open) snapshots.release(snapshot);
  expect(snapshots.openCount).toBe(1);
});

test("a transaction whose snapshot grew too old fails and says so", async () => {
  let clock = 0;
  await withDatabase(
    async (database) => {
      const slow = database.begin("mutation");
      await seam.collect(slow, seam.tableQuery("items"));
      const id = await seam.insert(slow, "items", {});
      const other = database.begin("mutation");
      await seam.insert(other, "others", {});
      await database.commit(other);
      other.end();
      clock += SNAPSHOT_AGE_MS_MAX + 1;
      // Asking for a timestamp sweeps, as the engine does by itself every second.
      database.holdSnapshot();
      const words = "The transaction ran for longer than 20 seconds and its snapshot was closed.";
      await expect(seam.get(slow, id)).rejects.toThrow(words);
      await expect(database.commit(slow)).rejects.toThrow(words);
      slow.end();
    },
    { monotonicMs: () => clock },
  );
});

test("a query at a held timestamp sees that state", async () => {
  await withDatabase(async (database) => {
    const atTs = database.holdSnapshot();
    const writer = database.begin("mutation");
    await seam.insert(writer, "items", {});
    await database.commit(writer);
    writer.end();
    const rows = [];
    for (const options of [{ atTs }, {}]) {
      const reader = database.begin("query", options);
      rows.push(await seam.collect(reader, seam.tableQuery("items")));
      reader.end();
    }
    expect(rows.map(({ length }) => length)).toEqual([0, 1]);
  });
});

test("a reader that lags joins no snapshot that leaves it too little time", async () => {
  const lagging = new Snapshots(store, { monotonicMs: () => nowMs, keepsEarlier: true });
  await store.write([["\u0001\u0001\u0001key", "1"]], 1);
  lagging.publish();
  const earlier = lagging.acquireLagging(1);
  expect(earlier?.ts).toBe(0);
  if (earlier !== null) lagging.release(earlier);
  nowMs += SNAPSHOT_AGE_MS_MAX - 1;
  expect(lagging.acquireLagging(1)).toBeNull();
  lagging.close();
});
