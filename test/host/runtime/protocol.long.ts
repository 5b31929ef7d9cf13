import { spawn } from "node:child_process";
import { cpSync, mkdirSync, rmSync } from "node:fs";
import path from "node:path";
import { ConvexHttpClient } from "convex/browser";
import { makeFunctionReference } from "convex/server";
import { ConvexError } from "convex/values";
import type { Value } from "convex/values";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { bundleApp } from "../../../src/host/bundle";
import { startPushStub } from "./pushStub";
import type { Push } from "./pushStub";
import { FIXTURE, PROJECT, scratch, startFixture } from "./support";
import type { Fixture } from "./support";

type Args = Record<string, Value>;
const queryOf = makeFunctionReference<"query", Args, Value>;
const mutationOf = makeFunctionReference<"mutation", Args, Value>;
const actionOf = makeFunctionReference<"action", Args, Value>;

let host: Fixture;
beforeAll(async () => {
  host = await startFixture();
});
afterAll(() => host.close());

/** Runs the real command line with a home inside the project; `cwd` is a Convex project. */
async function convex(
  args: readonly string[],
  cwd: string,
): Promise<{ code: number | null; out: string; all: string }> {
  const home = scratch("home");
  const child = spawn(
    process.execPath,
    [path.join(PROJECT, "node_modules/convex/bin/main.js"), ...args],
    {
      cwd,
      env: {
        HOME: home,
        USERPROFILE: home,
        XDG_CONFIG_HOME: home,
        TMPDIR: home,
        CI: "1",
        NO_COLOR: "1",
      },
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  let out = "";
  let all = "";
  child.stdout.on("data", (text: Buffer) => {
    out += text.toString();
    all += text.toString();
  });
  child.stderr.on("data", (text: Buffer) => (all += text.toString()));
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  rmSync(home, { recursive: true, force: true });
  return { code, out, all };
}

/** The fixture as a project that the command line accepts. */
function fixtureProject(): string {
  const dir = scratch("project");
  cpSync(FIXTURE, path.join(dir, "convex"), { recursive: true });
  cpSync(path.join(PROJECT, "package.json"), path.join(dir, "package.json"));
  return dir;
}

describe("the HTTP client", () => {
  test("runs functions and gets values, errors and their data", async () => {
    const client = new ConvexHttpClient(host.cloudUrl);
    await client.mutation(mutationOf("notes:add"), { text: "by the client" });
    expect(await client.query(queryOf("notes:list"), {})).toContain("by the client");
    expect(await client.action(actionOf("onNode:hash"), { text: "abc" })).toMatch(/^ba7816bf/);
    const value = {
      big: 7n,
      bytes: new Uint8Array([1, 2]).buffer,
      odd: [Number.NaN, -0],
      nothing: null,
    };
    expect(await client.query(queryOf("notes:echo"), { value })).toEqual(value);
    const failure: unknown = await client
      .mutation(mutationOf("notes:fail"), { text: "x", kind: "convex" })
      .catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(ConvexError);
    expect((failure as ConvexError<Value>).data).toEqual({ code: "refused", text: "x" });
    await expect(client.mutation(mutationOf("notes:hidden"), {})).rejects.toThrow(
      "Could not find public function",
    );
  });

  test("reads everything at the moment of its first consistent query", async () => {
    const client = new ConvexHttpClient(host.cloudUrl);
    const consistent = () =>
      // eslint-disable-next-line @typescript-eslint/no-deprecated -- it is part of the protocol
      client.consistentQuery(queryOf("notes:list"), {}) as Promise<string[]>;
    const before = await consistent();
    await client.mutation(mutationOf("notes:add"), { text: "too late for it" });
    expect(await consistent()).toEqual(before);
    expect(await client.query(queryOf("notes:list"), {})).toContain("too late for it");
  });
});

describe("the command line of Convex", () => {
  test("runs public and internal functions, and as a user", async () => {
    const project = fixtureProject();
    const on = ["--url", host.cloudUrl, "--admin-key", host.adminKey];
    const hidden = await convex(["run", ...on, "notes:hidden"], project);
    expect([hidden.code, hidden.out.trim()]).toEqual([0, '"seen"']);
    const asUser = await convex(
      ["run", ...on, "--identity", '{"subject":"u9","name":"Nine"}', "notes:whoAmI"],
      project,
    );
    expect(JSON.parse(asUser.out)).toMatchObject({ subject: "u9", name: "Nine" });
  });

  test("sets variables", async () => {
    const project = fixtureProject();
    const on = ["--url", host.cloudUrl, "--admin-key", host.adminKey];
    const set = await convex(["env", "set", ...on, "FROM_CLI", "yes"], project);
    expect(set.code, set.all).toBe(0);
    expect(await host.run("notes:variables", { name: "FROM_CLI" })).toMatchObject({ value: "yes" });
  });
});

/** Paths, where they run, and sizes: what a deployment is made of. */
function summary(push: Push) {
  const modules = push.appDefinition.changedModules.filter(
    ({ path: file }) => !file.startsWith("_deps/") && file !== "auth.config.js",
  );
  const paths = (environment: string) =>
    modules
      .filter((module) => module.environment === environment)
      .map((module) => module.path)
      .sort();
  const bytes = push.appDefinition.changedModules.reduce(
    (sum, { source }) => sum + Buffer.byteLength(source),
    0,
  );
  return { isolate: paths("isolate"), node: paths("node"), bytes };
}

async function pushed(cwd: string): Promise<Push> {
  const stub = await startPushStub();
  const flags = ["--dry-run", "--typecheck", "disable", "--codegen", "disable"];
  const { code, all } = await convex(
    ["deploy", ...flags, "--url", stub.url, "--admin-key", stub.adminKey],
    cwd,
  );
  await stub.close();
  expect(code, all).toBe(0);
  const push = stub.pushes.at(-1);
  if (push === undefined) throw new Error(all);
  return push;
}

describe("what the real command line would push", () => {
  const CODE_BYTES_MAX = 32 * 1024 * 1024;

  test.each([
    ["the fixture", fixtureProject, []],
    ["the project", () => PROJECT, ["@sentry/node"]],
  ])("of %s is what the host serves", async (_, cwd, packages) => {
    const dir = cwd();
    mkdirSync(path.join(dir, "convex"), { recursive: true });
    const push = await pushed(dir);
    const { isolate, node, bytes } = summary(push);
    const { entries } = await bundleApp(path.join(dir, "convex"));
    expect(isolate).toEqual([...entries.isolate].sort());
    expect(node).toEqual([...entries.node].sort());
    expect(bytes).toBeLessThan(CODE_BYTES_MAX);
    expect(push.nodeDependencies.map(({ name }) => name)).toEqual(packages);
    expect(push.appDefinition.schema).not.toBeNull();
  });
});
