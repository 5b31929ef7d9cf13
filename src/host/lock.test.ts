import { spawn } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import { holderOf, lockDirectory } from "./lock";

const directory = () => mkdtempSync(path.join(tmpdir(), "lock-"));

test("one holder at a time, also when two try at once", async () => {
  const dir = directory();
  const attempts = await Promise.allSettled([
    lockDirectory(dir),
    lockDirectory(dir),
    lockDirectory(dir),
  ]);
  const won = attempts.filter((attempt) => attempt.status === "fulfilled");
  expect(won).toHaveLength(1);
  expect(await holderOf(dir)).toBe(process.pid);
  for (const attempt of attempts)
    if (attempt.status === "rejected")
      expect(String(attempt.reason)).toContain("is in use by process");
  await won[0]?.value();
  expect(await holderOf(dir)).toBeNull();
  await (
    await lockDirectory(dir)
  )();
});

test("a lock of a process that is gone is taken over", async () => {
  const dir = directory();
  const child = spawn(process.execPath, ["-e", ""]);
  await new Promise((resolve) => child.on("exit", resolve));
  writeFileSync(
    path.join(dir, "lock.json"),
    JSON.stringify({ pid: child.pid, port: 1, token: "x" }),
  );
  await (
    await lockDirectory(dir)
  )();
});

test("a lock whose process id now belongs to another program is taken over", async () => {
  const dir = directory();
  const other = createServer((socket) => socket.end("something else"));
  await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
  const { port } = other.address() as AddressInfo;
  writeFileSync(
    path.join(dir, "lock.json"),
    JSON.stringify({ pid: process.pid, port, token: "x" }),
  );
  await (
    await lockDirectory(dir)
  )();
  other.close();
});

test("a half-written lock is taken over", async () => {
  const dir = directory();
  writeFileSync(path.join(dir, "lock.json"), '{"pid":');
  await (
    await lockDirectory(dir)
  )();
});
