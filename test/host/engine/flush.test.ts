import { setImmediate as turn } from "node:timers/promises";
import { expect, test, vi } from "vitest";
import { withDatabase } from "./harness";
import * as seam from "./seam";

const flush = vi.hoisted(() => {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
});

// The library's own word that a batch is on disk, late. A kill of the process could not show
// whether anyone waits for it, because the operating system keeps what was only written.
vi.mock("lmdb", async (importOriginal) => {
  const original = await importOriginal<typeof import("lmdb")>();
  const open = (...args: Parameters<typeof original.open>) =>
    new Proxy(original.open(...args), {
      get(target, property) {
        if (property === "flushed") {
          const { flushed } = target;
          return flush.opened.then(() => flushed);
        }
        const value: unknown = Reflect.get(target, property);
        return typeof value === "function" ? (value.bind(target) as unknown) : value;
      },
    });
  return { ...original, open };
});

test("a commit waits until the store says that its batch is on disk", async () => {
  await withDatabase(async (database) => {
    let isDone = false;
    const writer = database.begin("mutation");
    await seam.insert(writer, "items", {});
    const committing = database.commit(writer).then(() => {
      isDone = true;
    });
    for (let i = 0; i < 200; i++) await turn();
    expect(isDone).toBe(false);
    expect(database.latestTs()).toBe(0);
    flush.open();
    await committing;
    expect(database.latestTs()).toBeGreaterThan(0);
    writer.end();
  });
});
