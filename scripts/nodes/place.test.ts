import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { failedTests } from "./commands";
import { copyOf, NotHad, removeCopy, versionIn } from "./place";

const PROJECT = path.resolve(import.meta.dirname, "../..");
const TMP = path.join(PROJECT, ".output/tmp");
let dir = "";

beforeAll(() => {
  mkdirSync(TMP, { recursive: true });
  dir = mkdtempSync(path.join(TMP, "place-"));
});
afterAll(() => {
  rmSync(dir, { recursive: true, force: true });
});

test("a copy has what is in the tree, without packages, data, reports, history and secrets", async () => {
  const project = path.join(dir, "project");
  const left = [".git", "node_modules", ".output", ".ballast", ".ballast-two", "coverage"];
  for (const name of [...left, "src/coverage", "src/node_modules"])
    mkdirSync(path.join(project, name), { recursive: true });
  for (const name of [".env.local", ".env.prod.local", ".env.example", "src/coverage/a.ts"])
    writeFileSync(path.join(project, name), "x");
  const copy = await copyOf(project);
  expect(path.relative(project, copy)).toMatch(/^\.\./);
  expect(readdirSync(copy).sort()).toEqual([".env.example", "src"]);
  // Only the top of the tree is cut: a folder of ours may have such a name.
  expect(readdirSync(path.join(copy, "src/coverage"))).toEqual(["a.ts"]);
  await removeCopy(copy);
  expect(existsSync(copy)).toBe(false);
});

const place = () => ({
  environment: { PATH: "/usr/local/bin:/usr/bin:/bin", HOME: dir },
  logFile: path.join(dir, "log"),
  stopped: new AbortController().signal,
});

test("the running Node is one on which npm runs", async () => {
  expect(await versionIn(path.dirname(process.execPath), place())).toBe(process.version);
});

test("a binary that does not run here, and an npm that does not run under it, are NOT RUN", async () => {
  const broken = path.join(dir, "broken");
  mkdirSync(broken);
  writeFileSync(path.join(broken, "node"), "#!/bin/sh\necho wrong format; exit 1\n", {
    mode: 0o755,
  });
  await expect(versionIn(broken, place())).rejects.toThrow(NotHad);
  const other = path.join(dir, "other");
  mkdirSync(other);
  writeFileSync(path.join(other, "node"), "#!/bin/sh\necho v1.2.3\n", { mode: 0o755 });
  const npm = `#!/bin/sh\necho '{ "node": "9.9.9" }'\n`;
  writeFileSync(path.join(other, "npm"), npm, { mode: 0o755 });
  await expect(versionIn(other, place())).rejects.toThrow(/npm does not run under it/);
});

test("the tests that failed are told by name, each once, without colours", () => {
  const red = `${String.fromCharCode(27)}[31m`;
  const said = `✓ fine\n${red} FAIL  node a.test.ts > one\n FAIL  edge b.test.ts > two\n FAIL  node a.test.ts > one\n`;
  expect(failedTests(said)).toEqual(["node a.test.ts > one", "edge b.test.ts > two"]);
});
