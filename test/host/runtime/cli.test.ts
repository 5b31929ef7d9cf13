import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { readDeployment } from "../../../src/host/deployment";
import { FIXTURE, scratch, spawnHost, spawnServe, until } from "./support";

const lines = (text: string) => text.trim().split("\n");

/** A start that is expected to fail: its exit code and what it said. */
async function failing(args: readonly string[], projectDir?: string) {
  const { said, exit } = await spawnServe(["start", ...args], projectDir);
  return { code: await exit, said: lines(said()) };
}

const anyPorts = ["--port", "0", "--site-port", "0"];

describe("a start", () => {
  test("notes where it answers, once it does, and takes the note away when it ends", async () => {
    const dataDir = scratch("cli");
    const host = await spawnHost(dataDir);
    const { cloudUrl, siteUrl, adminKey, pid } = host.deployment;
    expect(pid).toBe(host.pid);
    expect(adminKey).toMatch(/^fixture\|[0-9a-f]{64}$/);
    expect((await fetch(`${siteUrl}/hello`)).status).toBe(200);
    expect(await (await fetch(`${cloudUrl}/instance_name`)).text()).toBe("fixture");
    expect(await host.kill("SIGTERM")).toBe(0);
    expect(await readDeployment(dataDir)).toBeNull();
    expect(readdirSync(dataDir).filter((name) => name.startsWith("lock"))).toEqual([]);
  });

  test("keeps its data, its key and its port over kill -9, and replaces the stale note", async () => {
    const dataDir = scratch("cli");
    const first = await spawnHost(dataDir);
    await first.run("notes:add", { text: "kept" });
    await first.kill("SIGKILL");
    expect((await readDeployment(dataDir))?.pid).toBe(first.pid);
    const port = new URL(first.deployment.cloudUrl).port;
    const second = await spawnHost(dataDir, ["--port", port]);
    expect(second.deployment).toMatchObject({
      cloudUrl: first.deployment.cloudUrl,
      adminKey: first.deployment.adminKey,
    });
    expect(await second.run("notes:list")).toEqual(["kept"]);
    await second.kill("SIGTERM");
  });

  test("on a directory in use is one line, exit 1, and harms nothing; other directories are free", async () => {
    const dataDir = scratch("cli");
    const [host, other] = await Promise.all([spawnHost(dataDir), spawnHost(scratch("cli"))]);
    const refused = await failing([...anyPorts, "--data-dir", dataDir]);
    expect(refused).toEqual({
      code: 1,
      said: [expect.stringContaining(`in use by process ${host.pid}`)],
    });
    expect((await readDeployment(dataDir))?.pid).toBe(host.pid);
    await other.run("notes:add", { text: "only here" });
    expect(await host.run("notes:list")).toEqual([]);
    expect(await Promise.all([host.kill("SIGTERM"), other.kill("SIGINT")])).toEqual([0, "SIGINT"]);
  });

  test("with a mistake is one clear line and exit 1", async () => {
    const taken = net.createServer();
    await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
    const { port } = taken.address() as net.AddressInfo;
    const dir = ["--data-dir", scratch("cli")];
    const badEnv = scratch("project");
    writeFileSync(path.join(badEnv, ".env.local"), "GOOD=1\nnot an assignment\n");
    const badCode = scratch("project");
    mkdirSync(path.join(badCode, "convex"));
    writeFileSync(
      path.join(badCode, "convex", "a.ts"),
      'import fs from "fs";\nexport default fs;\n',
    );
    const [onTaken, withEnv, withCode, withFlag, withPort] = await Promise.all([
      failing(["--port", String(port), "--site-port", "0", ...dir]),
      failing([...anyPorts, "--data-dir", scratch("cli")], badEnv),
      failing([...anyPorts, "--data-dir", scratch("cli")], badCode),
      failing(["--prot", "1"]),
      failing(["--port", "x"]),
    ]);
    taken.close();
    const line = (text: string) => ({ code: 1, said: [expect.stringContaining(text)] });
    expect(onTaken).toEqual(line(`Port ${port} is in use`));
    expect(withEnv).toEqual(line(".env.local line 2: expected NAME=value."));
    expect(withCode).toEqual(
      line('convex/a.ts:1:15: Could not resolve "fs" Node APIs need a file of their own'),
    );
    expect(withFlag).toEqual(line("Unknown option '--prot'"));
    expect(withPort).toEqual(line("--port x is not a port"));
  });

  test("that is told to end while it starts ends with 0", async () => {
    const { child, said, exit } = await spawnServe([
      "start",
      ...anyPorts,
      "--data-dir",
      scratch("cli"),
    ]);
    await until(async () => said() !== "" || child.exitCode !== null, Boolean, 300);
    await new Promise((resolve) => setTimeout(resolve, 150));
    child.kill("SIGTERM");
    // Before Node has even loaded the program, the signal itself ends it.
    expect([0, "SIGTERM"]).toContain(await exit);
  });
});

test("a listener of a function that throws does not take the host with it", async () => {
  const host = await spawnHost(scratch("cli"));
  const controller = new AbortController();
  const { siteUrl } = host.deployment;
  const response = await fetch(`${siteUrl}/stream?count=20&everyMs=20&tag=throw`, {
    signal: controller.signal,
  });
  await response.body?.getReader().read();
  controller.abort();
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect((await fetch(`${siteUrl}/hello`)).status).toBe(200);
  expect(await host.kill("SIGTERM")).toBe(0);
});

test("run and reset work on a data directory", async () => {
  const dataDir = scratch("cli");
  const dir = ["--data-dir", dataDir];
  const command = async (...args: string[]) => {
    const { said, exit } = await spawnServe([...args, ...dir]);
    return { code: await exit, said: said().trim() };
  };
  expect(await command("run", "notes:list")).toMatchObject({
    code: 1,
    said: expect.stringContaining("No host runs on") as unknown,
  });
  const host = await spawnHost(dataDir);
  expect(await command("run", "notes:hidden")).toEqual({ code: 0, said: '"seen"' });
  expect((await command("run", "notes:fail", '{"text":"x","kind":"plain"}')).code).toBe(1);
  expect(await command("reset")).toMatchObject({
    code: 1,
    said: expect.stringContaining("is using") as unknown,
  });
  await host.kill("SIGTERM");
  expect((await command("reset")).code).toBe(0);
  expect(() => readdirSync(dataDir)).toThrow("ENOENT");
});

test("--watch serves changed functions, and keeps the old ones when the change is broken", async () => {
  const project = scratch("project");
  const file = path.join(project, "convex", "say.ts");
  const write = (text: string) => {
    const source =
      'import { queryGeneric } from "convex/server";\nexport const say = queryGeneric({ args: {}, handler: async () => "TEXT" });\n';
    writeFileSync(file, source.replace('"TEXT"', text));
  };
  mkdirSync(path.dirname(file));
  write('"one"');
  const dataDir = scratch("cli");
  const host = await spawnHost(dataDir, ["--watch"], project);
  expect(await host.run("say:say")).toBe("one");
  write("(");
  await until(
    async () => host.said(),
    (said) => said.includes("Not reloaded"),
  );
  expect(await host.run("say:say")).toBe("one");
  write('"two"');
  expect(
    await until(
      () => host.run("say:say"),
      (said) => said === "two",
    ),
  ).toBe("two");
  await host.kill("SIGTERM");
  rmSync(project, { recursive: true });
});

test("what a function finds in the process environment wins over .env.local", async () => {
  const project = scratch("project");
  mkdirSync(path.join(project, "convex"));
  for (const name of ["notes.ts", "builders.ts", "schema.ts"])
    writeFileSync(path.join(project, "convex", name), readFileSync(path.join(FIXTURE, name)));
  writeFileSync(path.join(project, ".env.local"), "FIXTURE_VALUE=file\nONLY_FILE=file\n");
  const host = await spawnHost(scratch("cli"), [], project, {
    FIXTURE_VALUE: "process",
    UNDECLARED: "process",
  });
  const value = async (name: string) =>
    ((await host.run("notes:variables", { name })) as { value: unknown }).value;
  expect(await value("FIXTURE_VALUE")).toBe("process");
  expect(await value("ONLY_FILE")).toBe("file");
  expect(await value("UNDECLARED")).toBeNull();
  await host.kill("SIGTERM");
});
