import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { KNOB_NAMES, type KnobName, knobRow } from "../../src/config/knobs";
import { parseValue } from "../../src/config/parse";
import { BASELINE } from "../../src/slo/objectives";
import { PLAYBOOKS, type PlaybookId, playbookLink } from "../../src/slo/playbooks";
import { SnapshotReport } from "./artifacts";
import { quickTools } from "./quickTools";
import {
  inlineCommands,
  type RunbookHost,
  runbookSections,
  runbookText,
  runSection,
} from "./runbook";
import { startRunbookHost } from "./runbookHost";
import { main as snapshot } from "./snapshot";
import { ranScript } from "./testing";

const PROJECT = path.resolve(import.meta.dirname, "../..");
const sections = runbookSections(PROJECT);
const [setup] = sections;
const section = (heading: string) => sections.find((one) => one.heading === heading);
const all = sections.map(({ text }) => text).join("\n");

describe("every command of the runbook works as it stands", () => {
  let host: RunbookHost & { readonly close: () => Promise<void> };
  let tools: Awaited<ReturnType<typeof quickTools>>;
  beforeAll(async () => {
    host = await startRunbookHost(PROJECT);
    tools = await quickTools(PROJECT);
  });
  afterAll(async () => {
    await tools.close();
    await host.close();
  });

  test.each(
    sections.filter(({ blocks }) => blocks.length > 0).map((one) => [one.heading, one] as const),
  )("%s", async (_, one) => {
    if (setup === undefined) throw new Error("no setup");
    const { code, output } = await runSection(one, setup, { host, prelude: tools.prelude });
    expect([code, code === 0 ? "" : output]).toEqual([0, ""]);
  });

  test("the first look finds the host by its directory and reads its verdict", async () => {
    const { code, report, out } = await ranScript({
      main: snapshot,
      argv: ["--data-dir", host.dataDir],
      file: path.join(host.dataDir, "snapshot.json"),
      parse: (value) => SnapshotReport.parse(value),
    });
    expect([code, report.verdict, report.environment]).toEqual([0, "PASS", "local"]);
    expect(report.snapshotVerdict).toMatch(/^(ok|degraded)$/);
    // Every line of figures found its section.
    for (const name of ["Circuits", "Refused", "Alerts", "Webhooks", "Objectives"])
      expect(out.join("\n")).toContain(`\n  ${name} `);
  });

  test("a command that is wrong is noticed", async () => {
    if (setup === undefined) throw new Error("no setup");
    const run = async (block: string) =>
      (await runSection({ blocks: [block] }, setup, { host, prelude: tools.prelude })).code;
    expect(await run("npx convex run ops:getReliabilitySnapshot '{\"minutes\":5}'")).toBe(0);
    expect(await run("npx convex run ops:getReliabilitySnapshot '{\"minuts\":5}'")).not.toBe(0);
    expect(await run("npx convex run ops:noSuchFunction")).not.toBe(0);
    expect(await run("npm run -s no:such:script")).not.toBe(0);
    expect(await run("npm run -s reliability:snapshot -- --minutes 5")).toBe(0);
    expect(await run("npm run -s reliability:snapshot -- --minuts 5")).not.toBe(0);
    expect(await run("npm run -s reliability:probe -- extra")).not.toBe(0);
    expect(await run("npm run -s host -- run ops:noSuchFunction")).not.toBe(0);
    expect(await run("npx convex frobnicate")).not.toBe(0);
  });
});

describe("the runbook", () => {
  test("has every command in a block that is run", () => {
    // What comes before the first heading is in no section.
    const [before = ""] = runbookText(PROJECT).split(/^## /m);
    expect(before).not.toContain("`");
    for (const one of sections) {
      const fences = one.text.match(/^ *(```|~~~).*$/gm) ?? [];
      expect([one.heading, fences.length]).toEqual([one.heading, 2 * one.blocks.length]);
      // `npm start` is how the host came to be that all blocks are run against.
      const others = inlineCommands(one).filter((command) => command !== "npm start");
      expect([one.heading, others]).toEqual([one.heading, []]);
    }
    const text = "Type `npx convex run ops:x` or\n\n```bash\nnpm run y\n```\n";
    expect(inlineCommands({ text })).toEqual(["npx convex run ops:x"]);
  });

  test("has the sections that a verdict sends somebody to, under those names", () => {
    for (const [id, heading] of Object.entries(PLAYBOOKS)) {
      expect(sections.map((one) => one.heading)).toContain(heading);
      const link = playbookLink(id as PlaybookId);
      expect(link).toMatch(/^scripts\/reliability\/RUNBOOK\.md#[a-z-]+$/);
    }
    expect(playbookLink("circuit")).toBe(
      "scripts/reliability/RUNBOOK.md#playbook-b-a-circuit-opens",
    );
  });

  test("has playbooks A to F, each with all its parts", () => {
    const playbooks = sections.filter(({ heading }) => heading.startsWith("Playbook "));
    expect(playbooks.map(({ heading }) => heading.slice(0, 10))).toEqual(
      ["A", "B", "C", "D", "E", "F"].map((letter) => `Playbook ${letter}`),
    );
    for (const { heading, text } of playbooks)
      for (const part of ["Signal", "Decide", "Act", "Verify", "Escalate", "Roll back"])
        expect([heading, part, text.includes(`**${part}`)]).toEqual([heading, part, true]);
  });

  test("takes back every setting that it changes, in the same playbook", () => {
    for (const { heading, text } of sections) {
      const names = (command: string) =>
        [...text.matchAll(new RegExp(`npx convex env ${command} (\\w+)`, "g"))].map(
          ([, name]) => name,
        );
      expect([heading, names("remove").sort()]).toEqual([heading, names("set").sort()]);
    }
  });

  test("sets what the knob allows, and never by leaps", () => {
    const changes = [...all.matchAll(/npx convex env set (\w+) (\S+)/g)];
    expect(changes.length).toBeGreaterThan(4);
    for (const [, name = "", value = ""] of changes) {
      const row = knobRow(name as KnobName);
      expect([name, parseValue(row, value).ok]).toEqual([name, true]);
      if (row.kind !== "int" || row.unit === "ms") continue;
      const rise = Number(value) - row.default;
      expect([name, rise <= Math.max(1, row.default / 4)]).toEqual([name, true]);
    }
  });

  test("names only knobs that there are", () => {
    const named = [...all.matchAll(/`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)`/g)].map(
      ([, name = ""]) => name,
    );
    const others = ["CONVEX_DEPLOY_KEY", "RELIABILITY_BASE_URL"];
    for (const name of named)
      expect([name, others.includes(name) || KNOB_NAMES.some((knob) => knob === name)]).toEqual([
        name,
        true,
      ]);
  });

  test("says what is promised as the baseline has it", () => {
    const percent = (rate: number | undefined) =>
      rate === undefined ? "–" : `${Number((rate * 100).toFixed(4))} %`;
    const time = (ms: number | undefined) => (ms === undefined ? "–" : `${ms} ms`);
    const rows = Object.entries(BASELINE.endpoints).map(([name, promise]) => [
      `\`${name}\``,
      time(promise.maxP95Ms),
      time(promise.maxP95FirstTokenMs),
      percent(promise.minAvailability),
      percent(promise.maxFiveXxRate),
      percent(promise.maxNetworkErrorRate),
      percent(promise.maxUnknownStatusRate),
      percent(promise.maxDegradedRate),
      percent(promise.minTwoXxRate),
    ]);
    const text = section("What is promised")?.text ?? "";
    const table = text
      .split("\n")
      .filter((line) => line.startsWith("| `"))
      .map((line) =>
        line
          .split("|")
          .slice(1, -1)
          .map((cell) => cell.trim()),
      );
    expect(table).toEqual(rows);
    expect(text).toContain(`for ${BASELINE.windowDays} days. Below ${BASELINE.minEvents} events`);
    const { webhook, chat } = BASELINE.alerting;
    expect(text.replaceAll("\n", " ")).toContain(
      `at a p95 of ${webhook?.warning.p95LatencyMs} ms or ${percent(webhook?.warning.fiveXxRate)} of 5xx on a webhook, ` +
        `${chat?.warning.p95LatencyMs} ms or ${percent(chat?.warning.fiveXxRate)} on chat`,
    );
  });
});
