import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Io } from "./main";
import { main } from "./nodes";
import { NODES, packageFor, standsFor } from "./nodes/plan";

const TMP = path.resolve(import.meta.dirname, "../.output/tmp");
const PATH = [path.dirname(process.execPath), "/usr/local/bin", "/usr/bin", "/bin"].join(":");
let dir = "";

beforeAll(() => {
  mkdirSync(TMP, { recursive: true });
  dir = mkdtempSync(path.join(TMP, "nodes-"));
});
afterAll(() => {
  rmSync(dir, { recursive: true, force: true });
});

async function said(projectDir: string, ...argv: string[]) {
  const out: string[] = [];
  const errors: string[] = [];
  const io: Io = {
    projectDir,
    print: (line) => out.push(line),
    printError: (line) => errors.push(line),
    processEnvironment: { PATH, HOME: dir },
    stopped: new Promise(() => undefined),
  };
  return { code: await main(argv, io), out, errors };
}

test("help says the flags and every exit code; a mistake is one line and exit code 2", async () => {
  const { code, out, errors } = await said(dir, "--help");
  expect([code, errors]).toEqual([0, []]);
  for (const text of ["--only", "--command", "NOT RUN", "Exit code: 0", "1 ", "2 ", "130"])
    expect(out.join("\n")).toContain(text);
  expect(await said(dir, "--only", "19")).toEqual({
    code: 2,
    out: [],
    errors: ["--only 19 is not one of 20.19, 22, 24, 26. See npm run test:nodes -- --help."],
  });
});

/** What `npm start` is in these projects: a health route, and a chat route that answers one event. */
const serverThatEndsWith = (type: string) => `
  import { createServer } from "node:http";
  import { mkdirSync, writeFileSync } from "node:fs";
  const server = createServer((request, response) => {
    if (request.url === "/api/health") return response.end('{"ok":true}');
    const isKnown = request.headers.authorization === "Bearer the-token";
    response.writeHead(isKnown ? 200 : 401, { "content-type": "text/event-stream" });
    response.end('id: 1\\ndata: {"type":"${type}"}\\n\\n');
  });
  server.listen(0, "127.0.0.1", () => {
    mkdirSync(".ballast");
    const siteUrl = "http://127.0.0.1:" + server.address().port;
    writeFileSync(".ballast/deployment.json", JSON.stringify({ siteUrl, pid: process.pid }));
  });
`;

// Another than the one that runs this, so that it is taken from where npm would have put it.
const NODE = NODES.find((node) => !standsFor(process.version, node)) ?? "";

interface Project {
  readonly test?: string;
  readonly last?: string;
  /** What stands for the binary; the running Node. */
  readonly binary?: string;
}

/** A project with two commands, and a binary of a Node that was fetched before. */
function project({ test: command = "node -e 0", last = "done", binary }: Project = {}): string {
  const projectDir = mkdtempSync(path.join(dir, "project-"));
  const scripts = { test: command, start: "node start.mjs", token: `node -p "'the-token'"` };
  writeFileSync(path.join(projectDir, "package.json"), JSON.stringify({ scripts }));
  writeFileSync(path.join(projectDir, "start.mjs"), serverThatEndsWith(last));
  const name = packageFor(process.platform, process.arch) ?? "none";
  const bin = path.join(projectDir, ".output/nodes", `node-${NODE}`, "node_modules", name, "bin");
  mkdirSync(bin, { recursive: true });
  if (binary === undefined) symlinkSync(process.execPath, path.join(bin, "node"));
  else writeFileSync(path.join(bin, "node"), binary, { mode: 0o755 });
  return projectDir;
}

const copies = (): string[] =>
  readdirSync(os.tmpdir()).filter((name) => name.startsWith("ballast-node-"));

describe("on one Node", () => {
  test("both commands are run in a copy, which is gone afterwards", async () => {
    const projectDir = project({ test: "node -p 'process.cwd()'" });
    const before = copies();
    const { code, out, errors } = await said(projectDir, "--only", NODE);
    expect([code, errors]).toEqual([0, []]);
    expect(out.join("\n")).toMatch(/passed in \d+:\d\d {2}passed in \d+:\d\d$/m);
    expect(out.join("\n")).toContain(process.version);
    const log = path.join(projectDir, ".output/nodes", `node-${NODE}-test.log`);
    expect(readFileSync(log, "utf8")).toMatch(/ballast-node-\w+\n$/);
    expect(copies().filter((name) => !before.includes(name))).toEqual([]);
  });

  test("a failed one is told with its code and its tests, and the other is run all the same", async () => {
    const { code, out } = await said(
      project({ test: "echo '  FAIL  a.test.ts > one'; exit 3" }),
      ...["--only", NODE],
    );
    expect(code).toBe(1);
    expect(out.join("\n")).toMatch(/failed in \d+:\d\d {2}passed in/);
    expect(out.at(-1)).toMatch(/npm test failed: exit code 3, see .*; a\.test\.ts > one$/);
  });

  test.each([
    ["error", /a chat turn ended with error/],
    ["content", /a chat turn ended with/],
  ])("a turn that ends with %s is a failure of npm start", async (last, why) => {
    const { code, out } = await said(project({ last }), "--only", NODE, "--command", "start");
    expect(code).toBe(1);
    expect(out.at(-1)).toMatch(why);
  });

  test("a binary that does not run here is NOT RUN, and that alone is exit code 2", async () => {
    const binary = "#!/bin/sh\necho wrong format >&2; exit 126\n";
    const { code, out } = await said(project({ binary }), "--only", NODE);
    expect(code).toBe(2);
    expect(
      out.filter((line) => line.includes("NOT RUN: its binary does not run here")),
    ).toHaveLength(2);
  });
});
