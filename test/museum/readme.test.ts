import { expect, test } from "vitest";

const sources = import.meta.glob<string>(["./*.test.ts", "./host/*.test.ts", "!./readme.test.ts"], {
  eager: true,
  query: "?raw",
  import: "default",
});
const [readme = ""] = Object.values(
  import.meta.glob<string>("./README.md", { eager: true, query: "?raw", import: "default" }),
);

/** Titles as they stand in the sources, the only place where they are written by hand. */
const titles = (source: string): string[] =>
  [...source.matchAll(/^test(?:\.each\([^)]*\))?\(\s*"((?:[^"\\]|\\.)*)"/gm)].map(
    ([, title = ""]) => title.replaceAll("\\", ""),
  );

test("every exhibit is in the list, and nothing else is", () => {
  const exhibits = Object.entries(sources)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([file, source]) => [file.replace("./", ""), titles(source)] as const);
  const list = exhibits.map(
    ([file, all]) => `## ${file}\n\n${all.map((title) => `- ${title}`).join("\n")}\n`,
  );
  expect(exhibits.every(([, all]) => all.length > 0)).toBe(true);
  expect(readme.slice(readme.indexOf("## "))).toBe(list.join("\n"));
});

test("every exhibit says whose bug it was", () => {
  const unnamed = Object.values(sources)
    .flatMap(titles)
    .filter(
      (title) =>
        !/#\d+|^the original|^Portkey|^rate-limiter-flexible|^upstash|^no signed|^convex /.test(
          title,
        ),
    );
  expect(unnamed).toEqual([]);
});
