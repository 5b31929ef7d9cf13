import { mkdtempSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { Environment, parseDotEnv } from "./env";
import { UserMistake } from "./errors";

function directory(dotEnv?: string): string {
  const dir = mkdtempSync(path.join(tmpdir(), "env-"));
  if (dotEnv !== undefined) writeFileSync(path.join(dir, ".env.local"), dotEnv);
  return dir;
}

describe("a .env file", () => {
  test("may hold comments, quotes, exports and values over lines", () => {
    const text = [
      "# a comment",
      "PLAIN=value # with a comment",
      "export HASH=a#b",
      "EMPTY=",
      'DOUBLE="a \\"b\\"\\nc # d"',
      "SINGLE='a\\nb'",
      'LONG="first',
      'second"',
      "SPACED =  x  ",
      "",
    ].join("\r\n");
    expect(parseDotEnv(text, ".env.local")).toEqual({
      PLAIN: "value",
      HASH: "a#b",
      EMPTY: "",
      DOUBLE: 'a "b"\nc # d',
      SINGLE: "a\\nb",
      LONG: "first\nsecond",
      SPACED: "x",
    });
  });

  test.each([
    ["A=1\nnonsense", ".env.local line 2: expected NAME=value."],
    ["1A=x", '.env.local line 1: "1A" is no variable name'],
    ['A="never closed\nB=1', ".env.local line 1: the quote of A is never closed."],
    [`A=${"x".repeat(8_193)}`, ".env.local line 1: The value of A is larger than 8 KiB."],
    [`${"N".repeat(257)}=1`, "is longer than 256 characters."],
  ])("with a mistake is refused by its line, without its value", (text, expected) => {
    const attempt = () => parseDotEnv(text, ".env.local");
    expect(attempt).toThrow(UserMistake);
    expect(attempt).toThrow(expected);
    expect(attempt).not.toThrow(/xxxx/);
  });
});

describe("the environment", () => {
  test("prefers run time, then the process for declared names, then the file, then defaults", async () => {
    const dir = directory("A=file\nB=file\nC=file\nEMPTY=\n");
    const load = () =>
      Environment.load({
        names: ["A", "B"],
        processEnvironment: { A: "process", B: "process", PATH: "secret" },
        projectDir: dir,
        dataDir: dir,
      });
    const environment = await load();
    environment.setDefaults({ A: "default", C: "default", D: "default", EMPTY: "default" });
    environment.setBuiltIn({ CONVEX_SITE_URL: "http://site" });
    let told = 0;
    environment.onChange(() => (told += 1));
    await environment.update([{ name: "A", value: "run time" }]);
    const seen = (names: string) => names.split(" ").map((name) => environment.get(name));
    expect(seen("A B C D PATH")).toEqual(["run time", "process", "file", "default", undefined]);
    expect(seen("EMPTY CONVEX_SITE_URL")).toEqual(["", "http://site"]);
    expect(environment.configured("D")).toBeUndefined();
    expect(environment.all()).toMatchObject({
      A: "run time",
      B: "process",
      C: "file",
      D: "default",
    });
    expect((await load()).get("A")).toBe("run time");
    await environment.update([{ name: "A", value: null }]);
    expect(environment.get("A")).toBe("process");
    expect(told).toBe(2);
  });

  test("keeps what is set at run time in a file of its owner alone, and refuses bad names whole", async () => {
    const dir = directory();
    const environment = await Environment.load({
      names: [],
      processEnvironment: {},
      projectDir: null,
      dataDir: dir,
    });
    await environment.update([{ name: "GOOD", value: "1" }]);
    const refused = environment.update([
      { name: "OTHER", value: "1" },
      { name: "not a name", value: "1" },
    ]);
    await expect(refused).rejects.toMatchObject({ status: 400, code: "EnvVarInvalid" });
    expect(environment.get("OTHER")).toBeUndefined();
    const file = path.join(dir, "environment.json");
    expect(JSON.parse(readFileSync(file, "utf8"))).toEqual({ GOOD: "1" });
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });
});
