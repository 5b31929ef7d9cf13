import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Child, environmentOf, ran } from "./child";

const TMP = path.resolve(import.meta.dirname, "../../.output/tmp");
const LONG_MS = 60_000;
let dir = "";

beforeAll(() => {
  mkdirSync(TMP, { recursive: true });
  dir = mkdtempSync(path.join(TMP, "child-"));
});
afterAll(() => {
  rmSync(dir, { recursive: true, force: true });
});

let logs = 0;
/** A program of Node with the given text. */
const asked = (text: string, stopped = new AbortController().signal) => ({
  command: [process.execPath, "--input-type=module", "--eval", text] as [string, ...string[]],
  dir,
  environment: {},
  logFile: path.join(dir, `${logs++}.log`),
  stopped,
});

/** Starts another that lives for ever, and says its id. */
const WITH_ANOTHER = `
  import { spawn } from "node:child_process";
  const other = spawn(process.execPath, ["--eval", "setInterval(() => {}, 1000)"]);
  console.log(other.pid);
`;

function lives(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  // One that has ended is there until its parent asks, and in a container may have none that does.
  const status = `/proc/${pid}/status`;
  return !existsSync(status) || !/^State:\s+Z/m.test(readFileSync(status, "utf8"));
}
const untilDead = async (pid: number): Promise<void> => {
  while (lives(pid)) await new Promise((resolve) => setTimeout(resolve, 10));
};

test("a command's code and last words are told, and all its words are in the log", async () => {
  const one = asked("console.log('out'); console.error('err'); process.exitCode = 3");
  const { code, tail } = await ran(one, LONG_MS);
  expect(code).toBe(3);
  for (const word of ["out", "err"]) expect(tail).toContain(word);
  for (const word of ["out", "err"]) expect(readFileSync(one.logFile, "utf8")).toContain(word);
});

test("a program that is not there is no success", async () => {
  const none = { ...asked(""), command: [path.join(dir, "none")] as [string] };
  expect(await ran(none, LONG_MS)).toMatchObject({ code: null });
});

test("one that takes too long ends with all that it started", async () => {
  const child = new Child(asked(`${WITH_ANOTHER} setInterval(() => {}, 1000);`));
  while (!child.tail.includes("\n")) await new Promise((resolve) => setTimeout(resolve, 10));
  const other = Number(child.tail);
  expect(lives(other)).toBe(true);
  expect(await child.end(1)).toMatchObject({ code: null });
  await untilDead(other);
});

test("what a command leaves running ends with it", async () => {
  const { code, tail } = await ran(
    asked(`${WITH_ANOTHER} other.unref(); other.stdin.unref(); process.exit(0);`),
    LONG_MS,
  );
  expect(code).toBe(0);
  await untilDead(Number(tail));
});

test("a command ends when this program is told to", async () => {
  const stopping = new AbortController();
  const child = new Child(asked("console.log('up'); setInterval(() => {}, 1000)", stopping.signal));
  while (!child.tail.includes("up")) await new Promise((resolve) => setTimeout(resolve, 10));
  stopping.abort();
  expect((await child.end(LONG_MS)).code).toBeNull();
  const late = new Child(asked("setInterval(() => {}, 1000)", stopping.signal));
  expect((await late.end(LONG_MS)).code).toBeNull();
});

test("one that is interrupted ends in its own way", async () => {
  const polite = new Child(
    asked(
      "process.once('SIGINT', () => process.exit(0)); setInterval(() => {}, 9); console.log('up')",
    ),
  );
  while (!polite.tail.includes("up")) await new Promise((resolve) => setTimeout(resolve, 10));
  expect(await polite.interrupt()).toBe(true);
  expect(polite.hasEnded).toBe(true);
});

test("its environment is a newcomer's: the Node first, no keys, nothing of this npm", () => {
  const given = {
    PATH: "/home/me/app/node_modules/.bin:/usr/lib/node-gyp-bin:/usr/bin::/bin",
    HOME: "/home/me",
    OPENROUTER_API_KEY: "secret",
    NODE_OPTIONS: "--require x",
    npm_config_registry: "https://registry.example",
    npm_config_node_gyp: "x",
    npm_lifecycle_event: "test:nodes",
  };
  expect(environmentOf(given, "/node/bin")).toEqual({
    PATH: "/node/bin:/usr/bin:/bin",
    HOME: "/home/me",
    npm_config_registry: "https://registry.example",
    npm_config_update_notifier: "false",
  });
});
