import { spawn } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const PROJECT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");

/** A clone with nothing installed, and an `npm` that takes its time and counts its calls. */
function clone({ npmFails = false } = {}) {
  mkdirSync(path.join(PROJECT, ".output/tmp"), { recursive: true });
  const dir = mkdtempSync(path.join(PROJECT, ".output/tmp/clone-"));
  for (const name of ["scripts", "bin"]) mkdirSync(path.join(dir, name));
  copyFileSync(
    path.join(PROJECT, "scripts/bootstrap.mjs"),
    path.join(dir, "scripts/bootstrap.mjs"),
  );
  writeFileSync(path.join(dir, "package.json"), '{"type":"module"}');
  writeFileSync(path.join(dir, "package-lock.json"), "one");
  const say =
    "export const main = async (argv, io) => { io.print(JSON.stringify(argv)); return Number(argv.at(-1) ?? 0); };";
  writeFileSync(path.join(dir, "scripts/say.ts"), say);
  const wait =
    "export const main = async (argv, io) => { const { stopped } = io; io.print('waiting'); await stopped; io.print('told'); return 0; };";
  writeFileSync(path.join(dir, "scripts/wait.ts"), wait);
  const npm = npmFails
    ? "#!/bin/sh\nexit 7\n"
    : `#!/bin/sh\necho "$@" >> "${dir}/npm.log"\necho "npm talks"\nsleep 0.5\nmkdir -p node_modules\nln -sfn "${PROJECT}/node_modules/esbuild" node_modules/esbuild\n`;
  writeFileSync(path.join(dir, "bin/npm"), npm);
  chmodSync(path.join(dir, "bin/npm"), 0o755);
  return dir;
}

interface Outcome {
  readonly code: number | null;
  readonly out: string;
  readonly errors: string;
}

function start(dir: string, args: readonly string[], nodeArgs: readonly string[] = []) {
  const child = spawn(
    process.execPath,
    [...nodeArgs, path.join(dir, "scripts/bootstrap.mjs"), ...args],
    {
      env: { PATH: `${path.join(dir, "bin")}:/usr/bin:/bin` },
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  let out = "";
  let errors = "";
  child.stdout.on("data", (text: Buffer) => (out += text.toString()));
  child.stderr.on("data", (text: Buffer) => (errors += text.toString()));
  const outcome = new Promise<Outcome>((resolve) => {
    child.on("close", (code) => {
      resolve({ code, out, errors });
    });
  });
  return { child, outcome, said: () => out };
}

const run = (dir: string, ...args: string[]) => start(dir, args).outcome;
const installs = (dir: string) =>
  existsSync(path.join(dir, "npm.log"))
    ? readFileSync(path.join(dir, "npm.log"), "utf8").trim().split("\n").length
    : 0;

test("two first commands at once install once, and only the script's own words are on its output", async () => {
  const dir = clone();
  const [one, two] = await Promise.all([
    run(dir, "run", "scripts/say.ts", "a"),
    run(dir, "run", "scripts/say.ts", "3"),
  ]);
  expect(one).toMatchObject({ out: '["a"]\n' });
  expect(two).toMatchObject({ code: 3, out: '["3"]\n' });
  expect(installs(dir)).toBe(1);
  expect(readFileSync(path.join(dir, "npm.log"), "utf8")).toMatch(/^ci /);
  expect(readdirSync(dir).sort()).toEqual([
    "bin",
    "node_modules",
    "npm.log",
    "package-lock.json",
    "package.json",
    "scripts",
  ]);
  expect(readdirSync(path.join(dir, "node_modules/.cache/ballast"))).toEqual([]);
  rmSync(dir, { recursive: true });
});

test("an installation is repeated when the lockfile has changed, and not otherwise", async () => {
  const dir = clone();
  await run(dir, "run", "scripts/say.ts");
  await run(dir, "run", "scripts/say.ts");
  expect(installs(dir)).toBe(1);
  writeFileSync(path.join(dir, "package-lock.json"), "two");
  await run(dir, "run", "scripts/say.ts");
  expect(installs(dir)).toBe(2);
  // `npm install` by hand notes the lockfile itself.
  writeFileSync(path.join(dir, "package-lock.json"), "three");
  expect((await run(dir, "note")).code).toBe(0);
  await run(dir, "run", "scripts/say.ts");
  expect(installs(dir)).toBe(2);
  rmSync(dir, { recursive: true });
});

test("a lock of an installation that was killed is taken over", async () => {
  const dir = clone();
  const gone = start(dir, ["note"]);
  await gone.outcome;
  mkdirSync(path.join(dir, ".ballast-install"));
  writeFileSync(path.join(dir, ".ballast-install/pid"), String(gone.child.pid));
  expect((await run(dir, "run", "scripts/say.ts", "0")).code).toBe(0);
  rmSync(dir, { recursive: true });
});

test("mistakes are one clear line and a non-zero exit", async () => {
  const failing = clone({ npmFails: true });
  const failed = await run(failing, "run", "scripts/say.ts");
  expect(failed).toMatchObject({
    code: 1,
    errors: expect.stringContaining("npm ci failed with code 7.") as unknown,
  });
  expect(existsSync(path.join(failing, ".ballast-install"))).toBe(false);
  const dir = clone();
  expect(await run(dir, "nonsense")).toMatchObject({
    code: 1,
    errors: expect.stringMatching(/^Usage: .*\n$/) as unknown,
  });
  expect((await run(dir, "run", "scripts/none.ts")).errors).toContain(
    "There is no scripts/none.ts.",
  );
  rmSync(dir, { recursive: true });
  rmSync(failing, { recursive: true });
});

test.each([
  ["18.20.8", false],
  ["20.18.3", false],
  ["20.19.0", true],
  ["21.7.3", false],
  ["22.11.0", false],
  ["22.12.0", true],
  ["23.0.0", true],
  ["24.0.0", true],
  ["26.12.1", true],
])(
  "Node %s: works is %j, and another is told so before anything is installed",
  async (version, works) => {
    const dir = clone();
    const preload = path.join(dir, "version.cjs");
    writeFileSync(
      preload,
      `Object.defineProperty(process.versions, "node", { value: "${version}" });`,
    );
    const ran = await start(dir, ["run", "scripts/say.ts", "0"], ["--require", preload]).outcome;
    if (works) expect(ran).toMatchObject({ code: 0, out: '["0"]\n' });
    else
      expect(ran).toEqual({
        code: 1,
        out: "",
        errors: `Ballast needs Node 20 from 20.19 on, 22 from 22.12 on, or 24 and newer; this is ${version}.\n`,
      });
    expect(installs(dir)).toBe(works ? 1 : 0);
    rmSync(dir, { recursive: true });
  },
);

test("a script that npm started ends when npm is gone", async () => {
  const dir = clone();
  // A shell between us and the script, as npm has one; it does not pass its signal on.
  const command = `"${process.execPath}" scripts/bootstrap.mjs run scripts/wait.ts; true`;
  const shell = spawn("/bin/sh", ["-c", command], {
    cwd: dir,
    env: { PATH: `${path.join(dir, "bin")}:/usr/bin:/bin`, npm_lifecycle_event: "start" },
    stdio: ["ignore", "pipe", "ignore"],
  });
  let said = "";
  shell.stdout.on("data", (text: Buffer) => (said += text.toString()));
  while (!said.includes("waiting")) await new Promise((resolve) => setTimeout(resolve, 20));
  shell.kill("SIGTERM");
  // The output stays open as long as the script lives.
  await new Promise((resolve) => shell.on("close", resolve));
  expect(said).toBe("waiting\ntold\n");
  rmSync(dir, { recursive: true });
});

test("a script that fails while it could still be told to end is over", async () => {
  const dir = clone();
  const text =
    "export const main = async (argv, io) => { void io.stopped; io.printError('taken'); return 1; };";
  writeFileSync(path.join(dir, "scripts/fail.ts"), text);
  expect(await run(dir, "run", "scripts/fail.ts")).toMatchObject({
    code: 1,
    errors: expect.stringMatching(/taken\n$/) as unknown,
  });
  rmSync(dir, { recursive: true });
});

test("a signal reaches the script, which ends in its own way", async () => {
  const dir = clone();
  const { child, outcome, said } = start(dir, ["run", "scripts/wait.ts"]);
  while (!said().includes("waiting")) await new Promise((resolve) => setTimeout(resolve, 20));
  child.kill("SIGTERM");
  expect(await outcome).toMatchObject({ code: 0, out: "waiting\ntold\n" });
  rmSync(dir, { recursive: true });
});

test.each(["stdout", "stderr"] as const)(
  "a script whose %s nobody reads any more goes on to its own end",
  async (closed) => {
    const dir = clone();
    const words = 'const say = () => { io.print("out"); io.printError("error"); };';
    const pause = "await new Promise((resolve) => setTimeout(resolve, 20));";
    writeFileSync(
      path.join(dir, "scripts/talk.ts"),
      `export const main = async (argv, io) => { ${words} say(); ${pause} say(); ${pause} return 3; };`,
    );
    // Installed before, so that nothing but the script speaks.
    await run(dir, "run", "scripts/say.ts");
    const { child, outcome } = start(dir, ["run", "scripts/talk.ts"]);
    child[closed].destroy();
    expect(await outcome).toEqual({
      code: 3,
      out: closed === "stdout" ? "" : "out\nout\n",
      errors: closed === "stderr" ? "" : "error\nerror\n",
    });
    rmSync(dir, { recursive: true });
  },
);
