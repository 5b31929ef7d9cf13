import { expect, test } from "vitest";
import { SOURCES } from "./sources";

const files = import.meta.glob<string>(["./*.test.ts", "./host/*.test.ts", "!./readme.test.ts"], {
  eager: true,
  query: "?raw",
  import: "default",
});
const [readme = ""] = Object.values(
  import.meta.glob<string>("./README.md", { eager: true, query: "?raw", import: "default" }),
);

interface Exhibit {
  readonly title: string;
  readonly sources: readonly string[];
  readonly body: string;
}

const START = /^test\b/m;
const HEAD = /^test(?:\.each\([^)]*\))?\(\s*"((?:[^"\\]|\\.)*)"/;

/** The tests of a file as they stand there, each with the line above it: nothing is written twice. */
function exhibitsOf(file: string): Exhibit[] {
  const starts = [...file.matchAll(new RegExp(START, "gm"))].map(({ index }) => index);
  return starts.map((start, i) => {
    const body = file.slice(start, starts[i + 1]);
    const [, cited = ""] = /\n\/\/ Source: (.+)\n$/.exec(file.slice(0, start)) ?? [];
    const title = (HEAD.exec(body)?.[1] ?? "").replaceAll("\\", "");
    return { title, sources: cited.split(", ").filter((one) => one !== ""), body };
  });
}

const rooms = Object.entries(files)
  .sort(([a], [b]) => (a < b ? -1 : 1))
  .map(([path, file]) => ({ path: path.replace("./", ""), file, exhibits: exhibitsOf(file) }));
const all = rooms.flatMap(({ exhibits }) => exhibits);
const titled = (of: readonly Exhibit[]) => of.map(({ title }) => title);

test("every exhibit runs, and judges something", () => {
  expect(rooms.filter(({ exhibits }) => exhibits.length === 0)).toEqual([]);
  expect(
    titled(all.filter(({ title, body }) => title === "" || !body.includes("expect("))),
  ).toEqual([]);
  // Nothing is left out, nor expected to fail, nor put where this would not see it.
  const ways = /\b(?:test|describe|it)\.(?!each\b)\w|^\s*(?:describe|it)\(|^\s+test\(/m;
  expect(rooms.filter(({ file }) => ways.test(file)).map(({ path }) => path)).toEqual([]);
  expect(new Set(titled(all)).size).toBe(all.length);
});

test("every exhibit cites bugs that are in the list, and every bug of the list has an exhibit", () => {
  expect(titled(all.filter(({ sources }) => sources.length === 0))).toEqual([]);
  const cited = new Set(all.flatMap(({ sources }) => sources));
  expect([...cited].sort()).toEqual(Object.keys(SOURCES).sort());
  const weaknesses = Array.from({ length: 58 - 16 + 1 }, (_, i) => `W2-${16 + i}`);
  expect(weaknesses.filter((weakness) => !cited.has(weakness))).toEqual([]);
});

test("every title names the issues that are cited, and no others", () => {
  const numbers = (text: string): string[] =>
    [...text.matchAll(/#\d+/g)].map(([one]) => one).sort();
  const apart = all.filter(
    ({ sources, title }) =>
      numbers(title).join() !== numbers(sources.join()).join() ||
      (sources.every((one) => /^W\d/.test(one)) && !title.startsWith("the original")),
  );
  expect(titled(apart)).toEqual([]);
});

test("the list is what there is", () => {
  const shown = rooms.map(
    ({ exhibits, path }) =>
      `## ${path}\n\n${exhibits
        .map(({ sources, title }) => `- ${title} (${sources.join(", ")})`)
        .join("\n")}\n`,
  );
  const bugs = Object.entries(SOURCES).map(([source, bug]) => `- ${source}: ${bug}`);
  expect(readme.slice(readme.indexOf("## "))).toBe(
    [...shown, `## Sources\n\n${bugs.join("\n")}\n`].join("\n"),
  );
});
