import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { decodeJwt } from "jose";
import { afterAll, describe, expect, test } from "vitest";
import { Authenticator } from "../src/host/auth";
import { Environment } from "../src/host/env";
import { SIMULATED_PROVIDERS } from "../src/sim/index";
import { ballast } from "./ballast";

const PROJECT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
mkdirSync(path.join(PROJECT, ".output/tmp"), { recursive: true });
const scratch = mkdtempSync(path.join(PROJECT, ".output/tmp/ballast-"));
afterAll(() => {
  rmSync(scratch, { recursive: true });
});

let directories = 0;
const newDirectory = () => {
  const dir = path.join(scratch, String(directories++));
  mkdirSync(dir);
  return dir;
};

/** What surrounds the app on a data directory, with variables set by a person. */
async function surroundings(dataDir: string, set: Readonly<Record<string, string>> = {}) {
  const environment = await Environment.load({
    names: Object.keys(set),
    processEnvironment: set,
    projectDir: null,
    dataDir,
  });
  const started = {
    cloudUrl: "http://cloud",
    siteUrl: "http://site",
    adminKey: "key",
    environment,
  };
  const app = ballast(PROJECT);
  const around = await app.surroundings(started, dataDir);
  environment.setDefaults(around.env);
  await around.close();
  return { app, started, around, environment };
}

const SECRETS = [
  "WHATSAPP_APP_SECRET",
  "WHATSAPP_VERIFY_TOKEN",
  "GMAIL_PUBSUB_VERIFY_TOKEN",
  "ENCRYPTION_KEY",
];

describe("the development secrets", () => {
  test("are made once per data directory, for its owner alone, and named without their values", async () => {
    const dataDir = newDirectory();
    const first = await surroundings(dataDir);
    const second = await surroundings(dataDir);
    const other = await surroundings(newDirectory());
    for (const name of SECRETS) {
      const value = first.environment.get(name) ?? "";
      expect(value.length).toBeGreaterThanOrEqual(32);
      expect(second.environment.get(name)).toBe(value);
      expect(other.environment.get(name)).not.toBe(value);
      expect(first.around.notes.join()).toContain(name);
      expect(first.around.notes.join()).not.toContain(value);
    }
    expect(first.environment.get("ENCRYPTION_KEY")).toMatch(/^[0-9a-f]{64}$/);
    expect(statSync(path.join(dataDir, "secrets.json")).mode & 0o777).toBe(0o600);
    const stored = JSON.parse(readFileSync(path.join(dataDir, "secrets.json"), "utf8")) as object;
    expect(Object.keys(stored)).toEqual(expect.arrayContaining(SECRETS));
  });

  test("leave alone what a person set, also to nothing", async () => {
    const set = { WHATSAPP_APP_SECRET: "", ENCRYPTION_KEY: "mine" };
    const { environment, around } = await surroundings(newDirectory(), set);
    expect(environment.get("WHATSAPP_APP_SECRET")).toBe("");
    expect(environment.get("ENCRYPTION_KEY")).toBe("mine");
    expect(Object.keys(around.env)).not.toContain("WHATSAPP_APP_SECRET");
    expect(environment.get("WHATSAPP_VERIFY_TOKEN")).toBeTruthy();
  });
});

describe("the simulated providers", () => {
  test("stand in for those without a key, and for no other", async () => {
    const [real, ...simulated] = SIMULATED_PROVIDERS;
    const keyName = real?.keyNames[0] ?? "";
    const { around } = await surroundings(newDirectory(), { [keyName]: "a real key" });
    const foreign = simulated.flatMap(({ envNames }) => envNames);
    for (const name of real?.envNames ?? [])
      if (!foreign.includes(name)) expect(around.env).not.toHaveProperty(name);
    for (const name of foreign) expect(around.env).toHaveProperty(name);
    expect(around.notes.find((note) => note.startsWith("Real"))).toContain(real?.title);
    expect(around.notes.find((note) => note.startsWith("Simulated"))).not.toContain(
      `${real?.title},`,
    );
    expect(around.deployment?.["simUrl"]).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
  });
});

describe("the development issuer", () => {
  test("gives way to a configured identity provider", async () => {
    const { around, environment } = await surroundings(newDirectory(), {
      AUTH_ISSUER: "https://real.test",
    });
    expect(environment.get("AUTH_JWKS_URL")).toBeUndefined();
    expect(around.notes.join()).toContain("AUTH_ISSUER");
  });

  test("prints a token and nothing else, which the running host accepts", async () => {
    const dataDir = newDirectory();
    const { environment } = await surroundings(dataDir);
    const child = spawn(
      process.execPath,
      ["scripts/bootstrap.mjs", "token", "bob", "--data-dir", dataDir],
      {
        cwd: PROJECT,
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    let out = "";
    let errors = "";
    child.stdout.on("data", (text: Buffer) => (out += text.toString()));
    child.stderr.on("data", (text: Buffer) => (errors += text.toString()));
    const code = await new Promise((resolve) => child.on("close", resolve));
    expect([code, errors]).toEqual([0, ""]);
    expect(out).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+\n$/);
    const config = () => ({
      providers: [
        {
          type: "customJwt",
          issuer: environment.get("AUTH_ISSUER"),
          jwks: environment.get("AUTH_JWKS_URL"),
          applicationID: environment.get("AUTH_AUDIENCE"),
          algorithm: "RS256",
        },
      ],
    });
    const identity = await new Authenticator(config, fetch).verify(out.trim());
    expect(identity).toMatchObject({ claims: { subject: "bob" } });
  });
});

test("the banner gives the addresses, the key, a token and one curl line to try", async () => {
  const dataDir = newDirectory();
  const { app, started, around } = await surroundings(dataDir);
  const lines = await app.banner(started, dataDir, around.notes);
  const text = lines.join("\n");
  for (const part of ["http://cloud", "http://site", "key", dataDir]) expect(text).toContain(part);
  const curls = lines.filter((line) => line.startsWith("curl "));
  expect(curls).toHaveLength(1);
  const token = /Bearer ([\w.-]+)/.exec(curls[0] ?? "")?.[1] ?? "";
  expect(lines).toContain(token);
  expect(decodeJwt(token)).toMatchObject({ sub: "alice", aud: "ballast" });
});

test("the banner names each setting that is not in use as it was set, and no other", async () => {
  const dataDir = newDirectory();
  const settings = async (set: Readonly<Record<string, string>>) => {
    const { app, started, around } = await surroundings(dataDir, set);
    const lines = await app.banner(started, dataDir, around.notes);
    const first = lines.findIndex((line) => line.startsWith("  Settings "));
    return first === -1 ? [] : lines.slice(first, lines.indexOf("", first));
  };
  expect(await settings({ TOOL_JOB_MAX_PER_RUN: "4", CIRCUIT_SERPER_THRESHOLD: "" })).toEqual([]);
  expect(
    await settings({ TOOL_JOB_MAX_PER_RUN: "abc", ALLOWED_ORIGINS: "everybody's-secret" }),
  ).toEqual([
    expect.stringMatching(/^ {2}Settings {6}ALLOWED_ORIGINS .*; in use: nothing: /),
    "                TOOL_JOB_MAX_PER_RUN is not a whole number from 1 to 20; in use: 3",
  ]);
});
