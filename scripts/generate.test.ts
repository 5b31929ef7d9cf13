import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { Validator } from "@seriousme/openapi-schema-validator";
import { afterEach, describe, expect, test } from "vitest";
import { KNOB_NAMES, knobRow } from "../src/config/knobs";
import { VERSION } from "../src/config/version";
import { ERROR_CODES } from "../src/errors/table";
import { openApiDocument } from "../src/http/openapi";
import { ROUTE_IDS, routeRow } from "../src/http/routes";
import { GENERATED_FILES, main } from "./generate";
import type { Io } from "./main";

const PROJECT = path.resolve(import.meta.dirname, "..");
const scratch: string[] = [];

afterEach(async () => {
  for (const dir of scratch.splice(0)) await rm(dir, { recursive: true, force: true });
});

/** What a run said, and its exit code. */
async function run(projectDir: string, ...argv: string[]) {
  const said: string[] = [];
  const print = (line: string): void => void said.push(line);
  const code = await main(argv, { projectDir, print, printError: print } as Io);
  return { code, said };
}

async function project(): Promise<string> {
  const dir = await mkdtemp(path.join(PROJECT, ".output", "tmp", "generate-"));
  scratch.push(dir);
  // The formatter's settings belong to the project.
  await writeFile(
    path.join(dir, ".prettierrc.json"),
    await readFile(path.join(PROJECT, ".prettierrc.json")),
  );
  return dir;
}

describe("generated files", () => {
  test("are fresh in the project", async () => {
    expect(await run(PROJECT, "--check")).toEqual({
      code: 0,
      said: ["All generated files are up to date."],
    });
  });

  test("are named one by one when stale, and written without --check", async () => {
    const dir = await project();
    const missing = await run(dir, "--check");
    expect(missing.code).toBe(1);
    expect(missing.said).toEqual(
      Object.keys(GENERATED_FILES).map((name) => `${name} is stale; run npm run generate.`),
    );
    expect((await run(dir)).code).toBe(0);
    expect((await run(dir, "--check")).code).toBe(0);
    await writeFile(path.join(dir, "docs/api.md"), "edited by hand");
    expect(await run(dir, "--check")).toEqual({
      code: 1,
      said: ["docs/api.md is stale; run npm run generate."],
    });
  });

  test("an unknown flag is refused, not ignored", async () => {
    expect((await run(PROJECT, "--chekc")).code).toBe(2);
  });

  test("name every knob, route and error code", () => {
    const page = (name: string): string => GENERATED_FILES[name]?.() ?? "";
    for (const name of KNOB_NAMES) {
      expect(page("docs/configuration.md")).toContain(`\`${name}\``);
      expect(page(".env.example")).toContain(`\n# ${name}=`);
    }
    for (const id of ROUTE_IDS) {
      const { method, path: route } = routeRow(id);
      expect(page("docs/api.md")).toContain(`### ${method} ${route}\n`);
      expect(page("scripts/reliability/phase-2-surface-matrix.md")).toContain(`${method} ${route}`);
    }
    for (const code of ERROR_CODES) expect(page("docs/api.md")).toContain(`| \`${code}\` |`);
  });

  test("a copy of .env.example sets nothing", () => {
    const lines = (GENERATED_FILES[".env.example"]?.() ?? "").split("\n");
    expect(lines.filter((line) => line !== "" && !line.startsWith("#"))).toEqual([]);
    for (const name of KNOB_NAMES.filter((knob) => knobRow(knob).secret))
      expect(lines).toContain(`# ${name}=`);
  });
});

describe("the API description", () => {
  test("is valid OpenAPI 3.1", async () => {
    const validator = new Validator();
    const result = await validator.validate(structuredClone(openApiDocument(VERSION)));
    expect([result.errors, result.valid, validator.version]).toEqual([undefined, true, "3.1"]);
  });

  test("a broken document is noticed", async () => {
    const document = { ...openApiDocument(VERSION), paths: { "no slash": { get: {} } } };
    expect((await new Validator().validate(document)).valid).toBe(false);
  });

  test("has every route as an operation with a problem for every status it may answer", () => {
    const { paths } = openApiDocument(VERSION) as {
      paths: Record<string, Record<string, { operationId: string; responses: object }>>;
    };
    for (const id of ROUTE_IDS) {
      const { method, path: route } = routeRow(id);
      const operation = paths[route]?.[method.toLowerCase()];
      expect(operation?.operationId).toBe(id);
      expect(Object.keys(operation?.responses ?? {})).toContain("500");
    }
  });

  test("says the version of the package", async () => {
    const text = await readFile(path.join(PROJECT, "package.json"), "utf8");
    expect((JSON.parse(text) as { version: string }).version).toBe(VERSION);
  });
});
