import { describe, expect, test } from "vitest";
import { PROVIDERS } from "../providers/table";
import { routeRow, ROUTE_IDS } from "../http/routes";
import { readBaseline } from "./baselineFile";
import { BASELINE, type SloBaseline } from "./objectives";

const read = (change: object = {}) => readBaseline(JSON.stringify({ ...BASELINE, ...change }));
const chat = BASELINE.endpoints["/api/chat"];
const problemsOf = (change: object): readonly string[] => {
  const found = read(change);
  return found.ok ? [] : found.problems;
};

describe("the baseline", () => {
  test("is read back as it stands", () => {
    expect(read()).toEqual({ ok: true, baseline: BASELINE });
  });

  test("holds what was promised from the start", () => {
    const webhook = { maxP95Ms: 1_500, maxFiveXxRate: 0.01, maxNetworkErrorRate: 0.02 };
    expect(BASELINE.endpoints).toMatchObject({
      "/api/chat": {
        maxP95Ms: 12_000,
        maxFiveXxRate: 0.05,
        maxNetworkErrorRate: 0.05,
        maxUnknownStatusRate: 0.1,
        minTwoXxRate: 0.95,
        allowedStatuses: [200, 401, 429, 503],
      },
      "/api/gmail/push": { ...webhook, maxUnknownStatusRate: 0.05 },
      "/api/whatsapp/webhook": { ...webhook, maxUnknownStatusRate: 0.05 },
    });
    expect(BASELINE.alerting).toEqual({
      webhook: {
        warning: { p95LatencyMs: 1_200, fiveXxRate: 0.005 },
        critical: { p95LatencyMs: 1_500, fiveXxRate: 0.01 },
      },
      chat: {
        warning: { p95LatencyMs: 10_000, fiveXxRate: 0.03 },
        critical: { p95LatencyMs: 12_000, fiveXxRate: 0.05 },
      },
    });
  });

  test("names routes by the paths they have, and providers that exist", () => {
    for (const [path, { route }] of Object.entries(BASELINE.endpoints)) {
      const id = ROUTE_IDS.find((known) => known === route);
      expect([path, id === undefined ? null : routeRow(id).path]).toEqual([path, path]);
    }
    for (const id of Object.keys(BASELINE.providers)) expect(PROVIDERS).toHaveProperty(id);
  });
});

describe("a bad file is refused by name", () => {
  test.each<[string, object, string]>([
    ["another version", { version: 2 }, "version: "],
    ["a key that nobody reads", { surprise: 1 }, "the file: Unrecognized key"],
    [
      "a rate above 1",
      { endpoints: { "/x": { ...chat, maxUnknownStatusRate: 5 } } },
      "endpoints./x.maxUnknownStatusRate: ",
    ],
    [
      "a promise of everything",
      { providers: { p: { minAvailability: 1, maxP95Ms: 1, maxDegradedRate: 0 } } },
      "providers.p.minAvailability: ",
    ],
    [
      "5xx beyond the budget",
      { endpoints: { "/x": { ...chat, maxFiveXxRate: 0.06 } } },
      "endpoints./x: maxFiveXxRate is more than the error budget",
    ],
    ["an endpoint that is no path", { endpoints: { chat } }, "endpoints.chat: "],
    [
      "no status allowed",
      { endpoints: { "/x": { ...chat, allowedStatuses: [] } } },
      "endpoints./x.allowedStatuses: ",
    ],
    [
      "a status that is none",
      { endpoints: { "/x": { ...chat, allowedStatuses: [20] } } },
      "endpoints./x.allowedStatuses.0: ",
    ],
    [
      "no time at all",
      { endpoints: { "/x": { ...chat, maxP95Ms: 0 } } },
      "endpoints./x.maxP95Ms: ",
    ],
    [
      "a warning above the critical level",
      {
        alerting: {
          chat: {
            warning: { p95LatencyMs: 2, fiveXxRate: 0 },
            critical: { p95LatencyMs: 1, fiveXxRate: 0 },
          },
        },
      },
      "alerting.chat: warning is above critical",
    ],
    ["an empty window", { windowDays: 0 }, "windowDays: "],
  ])("%s", (_, change, problem) => {
    expect(problemsOf(change).join("\n")).toContain(problem);
  });

  test.each([
    ["", "It is not JSON"],
    ["{", "It is not JSON"],
    ["[]", "the file: "],
    ["null", "the file: "],
  ])("text %j", (text, problem) => {
    const found = readBaseline(text);
    expect(found.ok ? "" : found.problems.join()).toContain(problem);
  });

  test("with twenty problems at most", () => {
    const many: Record<string, unknown> = {};
    for (let i = 0; i < 100; i++) many[`p${i}`] = {};
    expect(
      problemsOf({ providers: many } satisfies Partial<Record<keyof SloBaseline, unknown>>),
    ).toHaveLength(20);
  });
});
