import { KNOB_NAMES, type KnobName, knobRow, type KnobRow } from "../../src/config/knobs";
import { code, GENERATED, page, table } from "./markdown";

/** `docs/configuration.md`: every variable, by group. */
export function configurationPage(): string {
  return page([
    "# Configuration",
    "",
    GENERATED,
    "",
    ...INTRODUCTION,
    ...groups().flatMap(([group, names]) => [
      "",
      `## ${group}`,
      "",
      ...table(["Variable", "Default", "Allowed", "Meaning"], names.map(rowOf)),
    ]),
  ]);
}

const INTRODUCTION = [
  "Every variable is set with `npx convex env set NAME value` on a deployment, or in `.env.local` and",
  "the process environment on the embedded host. All are optional: unset and empty mean the default.",
  "",
  "A value that is not allowed is never used. Where it is a capacity, the default is used and the",
  "start banner and `ops:getReliabilitySnapshot` say so under `configWarnings`. Where it guards",
  "something (marked **guards**), the requests that depend on it answer `misconfigured` until it is",
  "mended. A secret that is unset or empty matches nothing: what needs it answers `misconfigured`.",
];

/** Names by group, in the order of the table. */
export function groups(): readonly (readonly [string, readonly KnobName[]])[] {
  const byGroup = new Map<string, KnobName[]>();
  for (const name of KNOB_NAMES) {
    const { group } = knobRow(name);
    byGroup.set(group, [...(byGroup.get(group) ?? []), name]);
  }
  return [...byGroup];
}

function rowOf(name: KnobName): readonly string[] {
  const row = knobRow(name);
  const guards = row.security && !row.secret ? " **guards**" : "";
  return [code(name), defaultOf(row), allowedOf(row), `${row.meaning}${guards}`];
}

function defaultOf(row: KnobRow): string {
  if (row.secret) return "–";
  return code(Array.isArray(row.default) ? row.default.join(", ") : String(row.default));
}

/** What a knob's value may be, in words. */
export function allowedOf(row: KnobRow): string {
  switch (row.kind) {
    case "int":
      return `${row.min} to ${row.max}${row.unit === null ? "" : ` ${row.unit}`}`;
    case "enum":
      return row.options.map(code).join(", ");
    case "url":
      return "http or https address";
    case "list":
      return `comma list of ${code(row.pattern)}`;
    case "text":
      return row.pattern === null ? "text" : code(row.pattern);
    case "secret":
      return row.pattern === null ? "secret" : `secret, ${code(row.pattern)}`;
  }
}
