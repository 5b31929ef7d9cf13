import { readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { decodeJwt } from "jose";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readDeployment } from "../../src/host/deployment";
import { command, type Ran, run, scratch, type Server, start } from "./process";
import { parseFrames, terminals } from "./sse";

// What somebody does who has just cloned this: the README's lines, mistakes included.
const { dir, remove } = scratch("newcomer");
let server: Server;
beforeAll(async () => {
  server = await start(dir);
});
afterAll(async () => {
  await server.kill("SIGKILL");
  remove();
});

const shell = async (line: string): Promise<Ran> =>
  await command(["-c", line], { npm_config_update_notifier: "false" }, "/bin/sh").exit;

/** The README's block of lines to try, for this server's ports and directory. */
function readmeLines(): string[] {
  const [, block = ""] =
    /## Three lines to try[\s\S]*?```sh\n([\s\S]*?)```/.exec(readFileSync("README.md", "utf8")) ??
    [];
  return block
    .replaceAll("http://127.0.0.1:3210", server.deployment.cloudUrl)
    .replaceAll("http://127.0.0.1:3211", server.deployment.siteUrl)
    .replaceAll(".ballast/", `${dir}/`)
    .replaceAll("token -- alice", `token -- alice --data-dir ${dir}`)
    .replaceAll('whatsapp "hello"', `whatsapp "hello" --data-dir ${dir}`)
    .split(/\n\n/)
    .map((lines) => lines.trim())
    .filter((lines) => lines !== "");
}

test("the README's three lines work as they are written", async () => {
  const lines = readmeLines();
  expect(lines).toHaveLength(3);
  const [chat, whatsapp, snapshot] = await Promise.all(lines.map(shell));
  const frames = parseFrames(chat?.stdout ?? "");
  const types = frames.map(({ event }) => event.type);
  expect(types).toContain("tool-output-partially-available");
  expect(types).toContain("content");
  expect(terminals(frames).map(({ event }) => event.type)).toEqual(["done"]);
  expect(whatsapp?.stdout).toMatch(/-> 200 OK/);
  expect(JSON.parse(snapshot?.stdout ?? "")).toMatchObject({
    windowMinutes: 15,
    configWarnings: [],
    truncated: [],
  });
  expect([chat, whatsapp, snapshot].map((ran) => ran?.code)).toEqual([0, 0, 0]);
});

test("the banner's own line works, and it says what is simulated and where the secrets are", async () => {
  const line = server
    .said()
    .split("\n")
    .find((said) => said.startsWith("curl "));
  const { stdout } = await shell(line ?? "false");
  expect(terminals(parseFrames(stdout)).map(({ event }) => event.type)).toEqual(["done"]);
  for (const text of [
    server.deployment.cloudUrl,
    server.deployment.siteUrl,
    server.deployment.adminKey,
    "Simulated",
    "OpenRouter",
    "secrets.json",
  ])
    expect(server.said()).toContain(text);
});

test("a token is printed and nothing else", async () => {
  const { code, stdout, stderr } = await run(["token", "bob", "--data-dir", dir]);
  expect([code, stderr]).toEqual([0, ""]);
  expect(stdout).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+\n$/);
  expect(decodeJwt(stdout.trim()).sub).toBe("bob");
});

/**
 * What a program said without the warnings of the Node under it: Convex's command line looks for a
 * `localStorage`, and Node 26 warns each program that does. Our own commands must cause none.
 */
const withoutNodesOwn = (stderr: string): string =>
  stderr.replace(
    /^\(node:\d+\) (?:\[DEP\d+\] )?\w*Warning: .*\n(?:\(Use `node --trace-\w+ \.\.\.` .*\)\n)?/gm,
    "",
  );

test("the Convex command line pages what was stored", async () => {
  const ran = await shell(
    `npx convex run --url ${server.deployment.cloudUrl} --admin-key '${server.deployment.adminKey}' ` +
      `integrations/whatsapp:listStoredMessages '{"limit": 500}'`,
  );
  expect([ran.code, withoutNodesOwn(ran.stderr)]).toEqual([0, ""]);
  expect(JSON.parse(ran.stdout)).toMatchObject({ cursor: null });
});

test("deployment.json says where, with which key and who, for the owner's eyes", () => {
  const file = path.join(dir, "deployment.json");
  const deployment = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
  expect(deployment).toEqual({
    cloudUrl: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/) as unknown,
    siteUrl: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/) as unknown,
    adminKey: expect.stringMatching(/^ballast\|[0-9a-f]+$/) as unknown,
    pid: server.pid,
    simUrl: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/) as unknown,
  });
  for (const name of ["deployment.json", "secrets.json", "admin-key", "issuer-key.json"])
    expect([name, statSync(path.join(dir, name)).mode & 0o077]).toEqual([name, 0]);
});

test("a mistake is one clear line and exit 1", async () => {
  const port = new URL(server.deployment.cloudUrl).port;
  const other = scratch("newcomer-other");
  const mistakes: readonly (readonly [readonly string[], RegExp])[] = [
    [["start", "--data-dir", dir, "--port", "0", "--site-port", "0"], /in use by process \d+/],
    [["start", "--data-dir", other.dir, "--port", port, "--site-port", "0"], /port|in use/i],
    [["start", "--port", "http"], /--port http is not a port/],
    [["start", "--nonsense"], /nonsense/],
    [["start", "now"], /^Usage/],
    [["token"], /^Usage/],
    [["sim", "dance", "--data-dir", dir], /no command dance/],
    [["host", "run", "ops:getReliabilitySnapshot", "--data-dir", other.dir], /No host runs on/],
    [["host", "reset", "--data-dir", dir], /is using/],
  ];
  const ran = await Promise.all(mistakes.map(([args]) => run(args)));
  for (const [i, [args, line]] of mistakes.entries()) {
    const { code, stdout = "", stderr = "" } = ran[i] ?? {};
    expect([args, code, stdout]).toEqual([args, 1, ""]);
    expect(stderr).toMatch(line);
    expect([args, /\n\s+at /.test(stderr)]).toEqual([args, false]);
  }
  other.remove();
});

test("variables of the process are what the server runs with, and an empty one is set to nothing", async () => {
  const { dir: own, remove: removeOwn } = scratch("newcomer-env");
  const second = await start(own, {
    WHATSAPP_APP_SECRET: "",
    RATE_LIMIT_CHAT_STREAM_MAX: "7",
    NOT_A_KNOB: "x",
  });
  const { stdout } = await run(["host", "run", "ops:getReliabilitySnapshot", "--data-dir", own]);
  const { config } = JSON.parse(stdout) as { config: { knobs: Record<string, unknown> } };
  expect(config.knobs).toMatchObject({
    RATE_LIMIT_CHAT_STREAM_MAX: 7,
    WHATSAPP_APP_SECRET: null,
    WHATSAPP_VERIFY_TOKEN: "***redacted***",
  });
  const response = await fetch(`${second.deployment.siteUrl}/api/whatsapp/webhook`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: "{}",
  });
  expect(response.headers.get("x-error-code")).toBe("misconfigured");
  // A note that kill -9 left behind is replaced, with what was stored kept.
  await second.kill("SIGKILL");
  expect((await readDeployment(own))?.pid).toBe(second.pid);
  const third = await start(own);
  expect(third.deployment.pid).toBe(third.pid);
  expect(third.deployment.adminKey).toBe(second.deployment.adminKey);
  const { code, stderr } = await third.kill("SIGTERM");
  expect([code, stderr]).toEqual([0, ""]);
  expect(await readDeployment(own)).toBeNull();
  removeOwn();
});

test("nothing was written to the home directory but npm's own files", () => {
  const home = path.resolve(".output/tmp/home");
  expect(readdirSync(home).filter((name) => name !== ".npm")).toEqual([]);
});
