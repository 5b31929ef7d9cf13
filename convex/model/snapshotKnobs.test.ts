import { describe, expect, test, vi } from "vitest";
import { KNOB_NAMES, type KnobName, knobRow } from "../../src/config/knobs";
import { publicConfig, REDACTED } from "../../src/config/read";
import { TEXT_BYTES_MAX } from "../../src/config/rows";
import { backend, useStillClock } from "../../test/edge/backend";
import { internal } from "../_generated/api";

useStillClock();

/** A value beyond what a knob's row allows, and one that is not of its kind at all. */
function badValues(name: KnobName): readonly string[] {
  const row = knobRow(name);
  switch (row.kind) {
    case "int":
      return [String(row.max + 1), String(row.min - 1), "garbage"];
    case "enum":
    case "url":
    case "list":
      return ["* garbage *"];
    case "text":
    case "secret":
      // Without a form of its own any text will do, up to what a variable holds.
      return row.pattern === null ? ["x".repeat(TEXT_BYTES_MAX + 1)] : ["* garbage *"];
  }
}

const isSecurity = (name: KnobName): boolean => knobRow(name).security;
const CAPACITY = KNOB_NAMES.filter((name) => !isSecurity(name));
const SECURITY = KNOB_NAMES.filter(isSecurity);

const snapshot = () => backend().query(internal.ops.getReliabilitySnapshot, {});
const knobsOf = (said: Awaited<ReturnType<typeof snapshot>>) =>
  (said.config as { readonly knobs: Readonly<Record<string, unknown>> }).knobs;

describe("knobs with bad values", () => {
  // The public original: another value was used, and nobody was told.
  test.each([0, 1, 2])("of capacity are reported and not used (way %i)", async (way) => {
    const bad = CAPACITY.flatMap((name) => {
      const value = badValues(name)[way];
      return value === undefined ? [] : [[name, value] as const];
    });
    expect(bad.length).toBeGreaterThan(50);
    for (const [name, value] of bad) vi.stubEnv(name, value);
    const said = await snapshot();
    const names = bad.map(([name]) => name);
    expect(said.configWarnings.map(({ name }) => name).sort()).toEqual([...names].sort());
    const defaults = publicConfig({});
    for (const { name, security, used } of said.configWarnings) {
      expect([name, security, used]).toEqual([name, false, shown(defaults[name as KnobName])]);
      expect([name, knobsOf(said)[name]]).toEqual([name, defaults[name as KnobName]]);
    }
    expect(said.verdict).toBe("degraded");
    expect(said.causes.map(({ id, severity }) => `${id} ${severity}`).sort()).toEqual(
      names.map((name) => `config:${name} degraded`).sort(),
    );
    expect([said.windowMinutes, said.clamped]).toEqual([15, []]);
  });

  test("of security are critical, and nothing is used in their place", async () => {
    for (const name of SECURITY) vi.stubEnv(name, badValues(name)[0] ?? "");
    const said = await snapshot();
    const reported = said.configWarnings.filter(({ used }) => used !== "as set");
    expect(reported.map(({ name }) => name).sort()).toEqual([...SECURITY].sort());
    for (const { name, used } of reported)
      expect([name, used, knobsOf(said)[name]]).toEqual([
        name,
        "nothing: what depends on it answers misconfigured",
        knobRow(name as KnobName).secret ? REDACTED : null,
      ]);
    expect(said.verdict).toBe("critical");
    expect(new Set(said.causes.map(({ severity }) => severity))).toEqual(new Set(["critical"]));
  });

  test("that are empty are as good as unset", async () => {
    for (const name of KNOB_NAMES) vi.stubEnv(name, " ");
    const said = await snapshot();
    expect([said.verdict, said.configWarnings]).toEqual(["ok", []]);
    expect(knobsOf(said)).toEqual(publicConfig({}));
  });
});

const shown = (value: unknown): string => (Array.isArray(value) ? value.join(", ") : String(value));
