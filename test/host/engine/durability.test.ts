import { setImmediate as turn } from "node:timers/promises";
import { expect, test } from "vitest";
import { openDatabase } from "../../../src/host/engine";
import { scratchDir, withDatabase } from "./harness";
import * as seam from "./seam";

const TURNS = 50;

/** A promise and what resolves it. */
function latch(): { opened: Promise<void>; open: () => void } {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

test("while the flush is held back no commit resolves and nobody is told", async () => {
  const { opened, open } = latch();
  await withDatabase(
    async (database) => {
      const heard: string[] = [];
      database.onCommit("items", (ids) => heard.push(...ids));
      const done: number[] = [];
      const commits = [1, 2, 3].map(async (n) => {
        const writer = database.begin("mutation");
        await seam.insert(writer, "items", { n });
        await database.commit(writer);
        done.push(n);
        writer.end();
      });
      for (let i = 0; i < TURNS; i++) await turn();
      expect(done).toEqual([]);
      expect(heard).toEqual([]);
      expect(database.latestTs()).toBe(0);
      open();
      await Promise.all(commits);
      expect(done).toEqual([1, 2, 3]);
      expect(heard).toHaveLength(3);
    },
    { holdFlush: () => opened },
  );
});

test("commits that wait for one flush go to the disk together", async () => {
  let flushes = 0;
  const { opened, open } = latch();
  await withDatabase(
    async (database) => {
      const commit = async () => {
        const writer = database.begin("mutation");
        await seam.insert(writer, "items", {});
        const { ts } = await database.commit(writer);
        writer.end();
        return ts;
      };
      const first = commit();
      for (let i = 0; i < TURNS; i++) await turn();
      const rest = Array.from({ length: 20 }, commit);
      for (let i = 0; i < TURNS; i++) await turn();
      open();
      const timestamps = [await first, ...(await Promise.all(rest))];
      expect(flushes).toBe(2);
      expect(new Set(timestamps).size).toBe(21);
      expect(timestamps).toEqual([...timestamps].sort((a, b) => a - b));
    },
    {
      holdFlush: () => {
        flushes += 1;
        return opened;
      },
    },
  );
});

test("an injected failure fails one commit and leaves nothing of it", async () => {
  let fails = true;
  await withDatabase(
    async (database) => {
      const attempt = async () => {
        const writer = database.begin("mutation");
        await seam.insert(writer, "items", {});
        await database.commit(writer).finally(() => {
          writer.end();
        });
      };
      await expect(attempt()).rejects.toThrow("the disk is full");
      fails = false;
      await attempt();
      const reader = database.begin("query");
      expect(await seam.collect(reader, seam.tableQuery("items"))).toHaveLength(1);
      reader.end();
    },
    { commitFailure: () => (fails ? new Error("the disk is full") : undefined) },
  );
});

test("a crash before the batch leaves nothing of it, a crash after it leaves all", async () => {
  for (const point of ["beforeCommit", "afterCommit"] as const) {
    const { dir, remove } = scratchDir();
    const injection = {
      crash: (reached: string) => {
        if (reached === point) throw new Error("killed");
      },
    };
    let database = await openDatabase({ dir, injection });
    const writer = database.begin("mutation");
    await seam.insert(writer, "items", { a: 1 });
    await seam.insert(writer, "items", { a: 2 });
    await expect(database.commit(writer)).rejects.toThrow("killed");
    writer.end();
    await database.close();
    database = await openDatabase({ dir });
    const reader = database.begin("query");
    const rows = await seam.collect(reader, seam.tableQuery("items"));
    expect(rows).toHaveLength(point === "beforeCommit" ? 0 : 2);
    reader.end();
    await database.close();
    remove();
  }
});

test("each operation waits for the injected latency", async () => {
  const waits: string[] = [];
  await withDatabase(
    async (database) => {
      const writer = database.begin("mutation");
      await seam.collect(writer, seam.tableQuery("items"));
      await seam.insert(writer, "items", {});
      await database.commit(writer);
      writer.end();
      expect(waits).toEqual(["1.0/queryStreamNext", "1.0/insert", "commit"]);
    },
    {
      databaseLatency: async (op) => {
        await turn();
        waits.push(op);
      },
    },
  );
});

test("ids come from the injected randomness, times from the injected clock", async () => {
  const made: seam.Stored[][] = [];
  for (let run = 0; run < 2; run++) {
    let state = 1;
    await withDatabase(
      async (database) => {
        const writer = database.begin("mutation");
        await seam.insert(writer, "items", {});
        await seam.insert(writer, "items", {});
        made.push(await seam.collect(writer, seam.tableQuery("items")));
        expect((await database.commit(writer)).ts).toBe(5_000_000);
        writer.end();
      },
      {
        nowMs: () => 5_000,
        random: () => {
          state = (state * 48_271) % 2_147_483_647;
          return state / 2_147_483_647;
        },
      },
    );
  }
  expect(made[0]).toEqual(made[1]);
  expect(made[0]?.map(({ _id }) => _id)).toHaveLength(2);
});

test("closing waits for what is under way and refuses what comes after", async () => {
  const { dir, remove } = scratchDir();
  let database = await openDatabase({ dir });
  const writer = database.begin("mutation");
  await seam.insert(writer, "items", {});
  const committing = database.commit(writer);
  await database.close();
  await committing;
  writer.end();
  expect(() => database.begin("query")).toThrow("The database is closed.");
  await database.close();
  database = await openDatabase({ dir });
  const reader = database.begin("query");
  expect(await seam.collect(reader, seam.tableQuery("items"))).toHaveLength(1);
  reader.end();
  await database.close();
  remove();
});
