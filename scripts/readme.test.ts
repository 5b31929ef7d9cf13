import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";

const PROJECT = path.resolve(import.meta.dirname, "..");
const PAGES = [
  "README.md",
  ...readdirSync(path.join(PROJECT, "docs"))
    .filter((name) => name.endsWith(".md"))
    .map((name) => `docs/${name}`),
];

const read = (file: string): string => readFileSync(path.join(PROJECT, file), "utf8");
const texts = PAGES.map(read).join("\n");
const testFiles = ["convex", "scripts", "src", "test"].flatMap((dir) =>
  readdirSync(path.join(PROJECT, dir), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".test.ts"))
    .map((name) => `${dir}/${name}`),
);

test("every script that the pages name is one of the package's", () => {
  const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
  const named = [...texts.matchAll(/npm run (?:-s )?([a-z:]+)/g)].map(([, name = ""]) => name);
  expect(named.length).toBeGreaterThan(20);
  expect(named.filter((name) => !Object.hasOwn(scripts, name))).toEqual([]);
});

test("every choice of tests that the pages name finds some", () => {
  const named = [...texts.matchAll(/`npm test -- ([^`]+)`/g)].map(([, words = ""]) => words);
  expect(named.length).toBeGreaterThan(30);
  const finds = (word: string): boolean => testFiles.some((file) => file.includes(word));
  for (const words of named) {
    const [, name] = /^-t (\w+)$/.exec(words) ?? [];
    // A name is sought in what tests are called and in what they are called with.
    const found =
      name === undefined
        ? words.split(" ").every(finds)
        : testFiles.some((file) => read(file).includes(name));
    expect([words, found]).toEqual([words, true]);
  }
});

test("every file and folder that the pages name is there", () => {
  const roots = "convex|docs|scripts|src|test";
  const paths = [
    ...texts.matchAll(new RegExp(`\\b(?:${roots})/[\\w./-]*\\.(?:json|md|mjs|ts)\\b`, "g")),
  ].map(([file]) => file);
  expect(paths.length).toBeGreaterThan(10);
  for (const file of new Set(paths)) expect(read(file).length).toBeGreaterThan(0);
});
