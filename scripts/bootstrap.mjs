#!/usr/bin/env node
// The first thing that runs in a clean clone: it needs nothing but Node, installs what is missing,
// compiles the TypeScript command and runs it in this very process, so that signals arrive.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";

/**
 * The first minor version that works of the lines in which not all do. "engines" in package.json leaves
 * 23 out as well, which vitest does not promise to run on; it does, so that it is not refused here.
 */
const NODE_MINORS_MIN = { 20: 19, 22: 12 };
const PROJECT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
const MODULES = path.join(PROJECT, "node_modules");
const NOTE = path.join(MODULES, ".ballast-lockfile-hash");
const INSTALL_LOCK = path.join(PROJECT, ".ballast-install");
const LOCK_POLL_MS = 200;
const PARENT_POLL_MS = 500;
/** A lock whose owner died before noting its process id. */
const LOCK_UNOWNED_MS_MAX = 10_000;

// Whoever reads may have read enough (`| head -1`): the command goes on to its own end and code.
for (const stream of [process.stdout, process.stderr])
  stream.on("error", (error) => {
    if (error.code !== "EPIPE") throw error;
  });

const [command = "", ...argv] = process.argv.slice(2);
process.exitCode = await run(command, argv);

async function run(name, args) {
  if (!isSupported(process.versions.node))
    return fail(
      `Ballast needs Node 20 from 20.19 on, 22 from 22.12 on, or 24 and newer; this is ${process.versions.node}.`,
    );
  if (name === "note") return note();
  const scripts = { start: "start.ts", host: "start.ts", token: "token.ts", sim: "sim.ts" };
  if (!(name in scripts) && name !== "test" && name !== "run")
    return fail("Usage: bootstrap.mjs start | token | sim | host | test | run <script.ts> | note");
  const installed = await ensureInstalled();
  if (installed !== 0) return installed;
  if (name === "test") return test(args);
  if (name === "run") return runScript(path.resolve(PROJECT, args[0] ?? ""), args.slice(1));
  return runScript(
    path.join(PROJECT, "scripts", scripts[name]),
    name === "start" ? ["start", ...args] : args,
  );
}

function isSupported(version) {
  const [major, minor] = version.split(".").map(Number);
  return major > 22 || minor >= (NODE_MINORS_MIN[major] ?? Infinity);
}

function fail(line) {
  process.stderr.write(`${line}\n`);
  return 1;
}

/** The postinstall hook: notes which lockfile the modules were installed from. */
function note() {
  if (existsSync(MODULES)) writeFileSync(NOTE, lockfileHash());
  return 0;
}

function lockfileHash() {
  return createHash("sha256")
    .update(readFileSync(path.join(PROJECT, "package-lock.json")))
    .digest("hex");
}

function isFresh() {
  return existsSync(NOTE) && readFileSync(NOTE, "utf8").trim() === lockfileHash();
}

async function ensureInstalled() {
  if (isFresh()) return 0;
  await takeInstallLock();
  try {
    // Whoever held the lock may have installed meanwhile.
    if (isFresh()) return 0;
    process.stderr.write("Installing packages (npm ci)…\n");
    const code = await spawned(
      process.platform === "win32" ? "npm.cmd" : "npm",
      ["ci", "--no-audit", "--no-fund", "--loglevel=error"],
      "stderr",
    );
    if (code !== 0) return fail(`npm ci failed with code ${code}.`);
    return note();
  } finally {
    rmSync(INSTALL_LOCK, { recursive: true, force: true });
  }
}

async function takeInstallLock() {
  const owner = path.join(INSTALL_LOCK, "pid");
  for (let waits = 0; ; waits++) {
    try {
      mkdirSync(INSTALL_LOCK);
      writeFileSync(owner, String(process.pid));
      return;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    if (isAbandoned(owner)) {
      rmSync(INSTALL_LOCK, { recursive: true, force: true });
      continue;
    }
    if (waits === 0) process.stderr.write("Waiting for another installation to finish…\n");
    await sleep(LOCK_POLL_MS);
  }
}

function isAbandoned(owner) {
  try {
    if (!existsSync(owner))
      return Date.now() - statSync(INSTALL_LOCK).mtimeMs > LOCK_UNOWNED_MS_MAX;
    process.kill(Number(readFileSync(owner, "utf8")), 0);
    return false;
  } catch (error) {
    return error.code === "ESRCH";
  }
}

/** Runs a program with our signals passed on; its exit code is ours. */
function spawned(program, args, out, env = process.env) {
  return new Promise((resolve) => {
    // What an installation says must not mix with what a command prints.
    const stdio = ["inherit", out === "stderr" ? 2 : "inherit", "inherit"];
    const child = spawn(program, args, {
      cwd: PROJECT,
      stdio,
      env,
      shell: process.platform === "win32",
    });
    const pass = (signal) => child.kill(signal);
    process.on("SIGTERM", pass).on("SIGINT", pass);
    child.on("error", (error) => resolve(fail(`${program} cannot be run: ${error.message}`)));
    child.on("exit", (code, signal) => {
      process.off("SIGTERM", pass).off("SIGINT", pass);
      resolve(code ?? (signal === null ? 1 : 128));
    });
  });
}

/** Temporary files of tests stay in the project. */
function test(args) {
  const tmp = path.join(PROJECT, ".output", "tmp");
  mkdirSync(tmp, { recursive: true });
  const vitest = path.join(MODULES, "vitest", "vitest.mjs");
  const env = { ...process.env, TMPDIR: tmp, TMP: tmp, TEMP: tmp };
  return spawned(process.execPath, [vitest, "run", ...args], "stdout", env);
}

/** Compiles a script and calls its `main`. Nothing is written outside the project. */
async function runScript(file, args) {
  if (!existsSync(file)) return fail(`There is no ${path.relative(PROJECT, file)}.`);
  const out = path.join(MODULES, ".cache", "ballast");
  const name = path.relative(PROJECT, file).replace(/[^\w]+/g, "-");
  // Two commands at once must not read a half-written file of each other.
  const compiled = path.join(out, `${name}-${process.pid}.mjs`);
  try {
    const esbuild = await import("esbuild");
    await esbuild.build({
      entryPoints: [file],
      outfile: compiled,
      absWorkingDir: PROJECT,
      bundle: true,
      platform: "node",
      format: "esm",
      target: "node20",
      packages: "external",
      sourcemap: "inline",
      logLevel: "error",
    });
    process.setSourceMapsEnabled(true);
    const loading = import(pathToFileURL(compiled).href);
    const { main } = await loading.finally(() => rmSync(compiled, { force: true }));
    const waiting = {};
    // A command that fails before it is told to end must not be kept alive by waiting for that.
    return await main(args, io(waiting)).finally(() => clearInterval(waiting.timer));
  } catch (error) {
    return fail(error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
}

function io(waiting) {
  return {
    projectDir: PROJECT,
    print: (line) => process.stdout.write(`${line}\n`),
    printError: (line) => process.stderr.write(`${line}\n`),
    processEnvironment: process.env,
    env: process.env,
    cwd: PROJECT,
    now: Date.now,
    // Asked for by commands that run until they are told to end; others die of a signal as usual.
    get stopped() {
      return new Promise((resolve) => {
        const told = () => {
          clearInterval(waiting.timer);
          resolve();
        };
        // npm passes a signal on to its shell, which dies of it and tells nobody. Also, waiting to
        // be told is something to stay alive for.
        const parent = process.ppid;
        const underNpm = process.env.npm_lifecycle_event !== undefined;
        waiting.timer = setInterval(() => {
          if (underNpm && process.ppid !== parent) told();
        }, PARENT_POLL_MS);
        // Only the first: a second signal ends a shutdown that hangs.
        process.once("SIGTERM", told).once("SIGINT", told);
      });
    },
  };
}
