import type { RequestListener } from "node:http";
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { SnapshotReport } from "./artifacts";
import { main } from "./snapshot";
import { openTarget } from "./target";
import { ranScript, scratchDirectory, stub } from "./testing";

const scratch = scratchDirectory("snapshot");
const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});
afterAll(() => {
  scratch.remove();
});

const isClone = existsSync(path.resolve(import.meta.dirname, "../../.git"));
let files = 0;
const look = async (
  argv: readonly string[],
  more: { readonly env?: Record<string, string>; readonly stopped?: Promise<void> } = {},
) =>
  await ranScript({
    main,
    argv,
    file: path.join(scratch.dir, `${files++}.json`),
    parse: (value) => SnapshotReport.parse(value),
    ...more,
  });

/** A deployment whose function answers as given, and which notes what it was asked. */
async function deployment(answer: { readonly status?: number; readonly body: unknown }) {
  const asked: { readonly url: string; readonly key: string; readonly body: string }[] = [];
  const listener: RequestListener = (request, response) => {
    let body = "";
    request.on("data", (part: Buffer) => (body += part.toString()));
    request.on("end", () => {
      const { url = "", headers } = request;
      asked.push({ url, key: headers.authorization ?? "", body });
      if (url === "/instance_name") return response.end("stubbed-deployment");
      if (url === "/api/health") return response.end('{"ok":true,"version":"9.9.9"}');
      response.statusCode = answer.status ?? 200;
      return response.end(JSON.stringify(answer.body));
    });
  };
  const server = await stub(listener);
  closing.push(server.close);
  const flags = ["--base-url", server.url, "--cloud-url", server.url, "--admin-key", "the|key"];
  return { ...server, asked, flags };
}

const snapshotOf = (verdict: string, reasons: readonly string[] = []) => ({
  status: "success",
  value: {
    verdict,
    reasons,
    causes: [],
    nextAction: {
      what: "See why serper_search fails.",
      command: verdict === "ok" ? null : "npx convex run circuitBreaker:listStatuses",
      playbook: verdict === "ok" ? null : "scripts/reliability/RUNBOOK.md#b",
    },
    generatedAt: 1,
    windowMinutes: 30,
    config: { bulkheads: { serper_search: { maxConcurrent: 12 } } },
    circuitBreakers: {
      recent: [{ provider: "serper_search", state: "open", cooldownUntil: 1_000 }],
      openCount: 1,
    },
    bulkheads: { activeLeaseCount: 3, inFlightByProvider: { serper_search: 3, ebay_search: 0 } },
    toolJobs: { byStatus: { queued: 2, deadLetter: 1 }, oldestQueuedAgeMs: 150_000 },
    rateLimitPressure: { byBucketOutcome: { "whatsapp:blocked": 12 } },
    alerts: { active: 1, waiting: 2, undelivered: 0 },
    replayProtection: { keysInWindow: 14, duplicateHitsInWindow: 2 },
    toolCache: { sampledActiveEntries: 31, byNamespace: { search_web_v1: 31 } },
    slo: [
      { key: "route:chatPost", name: "/api/chat", state: "breached" },
      { key: "route:gmailPush", name: "/api/gmail/push", state: "met" },
      { key: "provider:p", name: "p", state: "insufficient" },
    ],
    configWarnings: [{ name: "TOOL_JOB_WAIT_MS", problem: "x", used: "8000" }],
    truncated: ["toolCache"],
  },
});

describe("the verdict decides the exit code", () => {
  test.each([
    ["ok", [], 0, "PASS"],
    ["degraded", [], 0, "PASS"],
    ["critical", [], 1, "FAIL"],
    ["ok", ["--strict"], 0, "PASS"],
    ["degraded", ["--strict"], 1, "FAIL"],
    ["critical", ["--strict"], 1, "FAIL"],
  ])("%s with %j", async (verdict, flags, code, wanted) => {
    const target = await deployment({ body: snapshotOf(verdict, ["It is so."]) });
    const ran = await look([...target.flags, ...flags]);
    expect([ran.code, ran.report.verdict, ran.report.passed]).toEqual([code, wanted, code === 0]);
    expect(ran.report).toMatchObject({
      snapshotVerdict: verdict,
      reasons: ["It is so."],
      baseUrl: target.url,
      environment: "local",
      deployment: { name: "stubbed-deployment", version: "9.9.9" },
      snapshot: { windowMinutes: 30 },
    });
    // What was downloaded as an archive has no commit.
    if (isClone) expect(ran.report.commit).toMatch(/^[0-9a-f]{40}\+?$/);
    else expect(ran.report.commit).toBeNull();
  });
});

test("asks for what the flags say, as the operator who has the key, which is kept nowhere", async () => {
  const target = await deployment({ body: snapshotOf("ok") });
  const ran = await look([...target.flags, "--minutes", "30", "--limit", "7"]);
  const [call] = target.asked.filter(({ url }) => url === "/api/query");
  expect(call?.key).toBe("Convex the|key");
  expect(JSON.parse(call?.body ?? "")).toEqual({
    path: "ops:getReliabilitySnapshot",
    args: { minutes: 30, limit: 7 },
    format: "json",
  });
  expect(JSON.stringify([ran.report, ran.out, ran.errors])).not.toContain("the|key");
});

test("a person reads what is wrong, what to do, and the figures", async () => {
  const reason = "serper_search: its circuit is open and every call is refused.";
  const target = await deployment({ body: snapshotOf("degraded", [reason]) });
  const { out } = await look(target.flags);
  expect(out).toEqual([
    `Reliability snapshot of ${target.url} (local, version 9.9.9), last 30 minutes`,
    "",
    "  DEGRADED",
    `  - ${reason}`,
    "",
    "  Next: See why serper_search fails.",
    "        npm run -s host -- run circuitBreaker:listStatuses",
    "        scripts/reliability/RUNBOOK.md#b",
    "",
    "  Circuits    serper_search open (probes from 00:00:01 UTC)",
    "  Bulkheads   3 in flight: serper_search 3 of 12",
    "  Tool jobs   queued 2, dead letter 1, the oldest waits 3 min",
    "  Refused     whatsapp blocked 12",
    "  Alerts      active 1, waiting 2, undelivered 0",
    "  Replays     14 keys, 2 duplicates",
    "  Cache       31 entries (search_web_v1 31)",
    "  Objectives  1 kept, 1 missed (/api/chat), 1 with too little traffic",
    "  Settings    TOOL_JOB_WAIT_MS",
    "  Cut short   toolCache",
    "",
    expect.stringMatching(/^Report: \.output\/tmp\/snapshot-\w+\/\d+\.json$/),
  ]);
});

test("with --json only the report is on the output", async () => {
  const target = await deployment({ body: snapshotOf("ok") });
  const { out, errors, report } = await look([...target.flags, "--json"]);
  expect(JSON.parse(out.join("\n"))).toEqual(report);
  expect(errors).toEqual([expect.stringMatching(/^Report: /)]);
});

describe("what cannot be had is inconclusive, with a report that says why", () => {
  const refused = async (argv: readonly string[], env: Record<string, string> = {}) => {
    const { code, report } = await look(argv, { env });
    expect([code, report.verdict, report.snapshot]).toEqual([2, "INCONCLUSIVE", null]);
    return report.reasons.join();
  };

  test("nobody answers", async () => {
    const { url, close } = await stub((_, response) => response.end());
    await close();
    expect(await refused(["--base-url", url])).toMatch(`Nothing answers at ${url}`);
  });

  test.each([
    [
      { status: 403, body: { code: "BadDeployKey", message: "no" } },
      "does not accept this operator's key",
    ],
    [{ status: 404, body: "nothing" }, "is it where functions answer?"],
    [
      {
        body: {
          status: "error",
          errorMessage: "[Request ID: 1] Server Error\nCould not find it\n at x",
          logLines: [],
        },
      },
      "ops:getReliabilitySnapshot failed: [Request ID: 1] Server Error Could not find it",
    ],
  ])("%j", async (answer, reason) => {
    const target = await deployment(answer);
    expect(await refused(target.flags)).toContain(reason);
  });

  test("no key is given", async () => {
    const target = await deployment({ body: snapshotOf("ok") });
    expect(await refused(["--base-url", target.url, "--cloud-url", target.url])).toContain(
      "give --admin-key",
    );
  });

  test.each([
    [["--minutes", "0"], "--minutes 0 is no whole number from 1 to 1440"],
    [["--minutes", "1441"], "--minutes 1441"],
    [["--limit", "4"], "--limit 4"],
    [["--limit", "ten"], "--limit ten"],
    [["--base-url", "ftp://x"], "--base-url ftp://x is no http or https address"],
    [["--data-dir", ".output/tmp/nobody-is-here"], "No host runs on"],
  ])("%j", async (argv, reason) => {
    expect(await refused(argv)).toContain(reason);
  });

  test("a snapshot without a verdict is shown, and decides nothing", async () => {
    const target = await deployment({ body: { status: "success", value: { windowMinutes: 5 } } });
    const { code, report } = await look(target.flags);
    expect([code, report.verdict, report.snapshot]).toEqual([
      2,
      "INCONCLUSIVE",
      { windowMinutes: 5 },
    ]);
  });

  test("it is interrupted while the deployment thinks", async () => {
    const server = await stub((request, response) => {
      if (request.url !== "/api/query") response.end('{"version":"1"}');
      else stop();
    });
    closing.push(server.close);
    let stop = (): void => undefined;
    const stopped = new Promise<void>((resolve) => (stop = resolve));
    const flags = ["--base-url", server.url, "--cloud-url", server.url, "--admin-key", "k"];
    const { code, report } = await look(flags, { stopped });
    expect([code, report.verdict, report.reasons]).toEqual([
      2,
      "INCONCLUSIVE",
      ["It was interrupted."],
    ]);
  });
});

test("the base URL comes from the flag, then from each variable in turn", async () => {
  const named = ["RELIABILITY_BASE_URL", "CONVEX_SITE_URL", "VITE_CONVEX_SITE_URL"];
  const targets = await Promise.all(
    ["--base-url", ...named].map(async () => await deployment({ body: snapshotOf("ok") })),
  );
  const urls = targets.map(({ url }) => url);
  for (const [i, url] of urls.entries()) {
    const env = Object.fromEntries(named.map((name, at) => [name, urls[at + 1] ?? ""]));
    for (const earlier of named.slice(0, Math.max(0, i - 1))) env[earlier] = "";
    const { report } = await look([...(i === 0 ? ["--base-url", url] : []), "--admin-key", "k"], {
      env: { ...env, RELIABILITY_CLOUD_URL: url },
    });
    expect(report.baseUrl).toBe(url);
  }
});

describe("a deployment that Convex's own variables name is the one that is looked at", () => {
  const env = (url: string) => ({
    CONVEX_SELF_HOSTED_URL: url,
    CONVEX_SELF_HOSTED_ADMIN_KEY: "the|key",
  });

  test("by its address and key, with the site one port above", async () => {
    const target = await deployment({ body: snapshotOf("critical") });
    const { code, report } = await look([], { env: env(target.url) });
    expect([code, report.environment, report.snapshotVerdict]).toEqual([1, "local", "critical"]);
    expect(report.baseUrl).toBe(target.url.replace(/\d+$/, (port) => String(Number(port) + 1)));
    expect(target.asked.find(({ url }) => url === "/api/query")?.key).toBe("Convex the|key");
  });

  test("by --cloud-url, whatever the variables say", async () => {
    const [target, other] = await Promise.all([
      deployment({ body: snapshotOf("critical") }),
      deployment({ body: snapshotOf("ok") }),
    ]);
    const flags = ["--cloud-url", target.url, "--admin-key", "mine"];
    const variables = { ...env(other.url), CONVEX_SITE_URL: other.url };
    const { code } = await look(flags, { env: variables });
    expect([code, other.asked]).toEqual([1, []]);
    expect(target.asked.find(({ url }) => url === "/api/query")?.key).toBe("Convex mine");
  });

  test("but not beside a flag that names another", async () => {
    const [target, other] = await Promise.all([
      deployment({ body: snapshotOf("critical") }),
      deployment({ body: snapshotOf("ok") }),
    ]);
    await look(["--base-url", target.url], { env: env(other.url) });
    expect(other.asked).toEqual([]);
  });

  test("a silent one is never replaced by a host of the run's own", async () => {
    const { url, close } = await stub((_, response) => response.end());
    await close();
    const { code, report } = await look([], { env: env(url) });
    expect([code, report.environment, report.snapshot]).toEqual([2, "local", null]);
  });

  test("a key without an address is a mistake", async () => {
    const { code, report } = await look(["--admin-key", "the|key"]);
    expect([code, report.environment]).toEqual([2, null]);
    expect(report.reasons.join()).toContain("--admin-key is of no use without --base-url");
  });
});

test("the deployment of a deploy key of the cloud is the one that is looked at", async () => {
  const closed = new Promise<void>(() => undefined);
  const io = {
    projectDir: scratch.dir,
    print: () => undefined,
    printError: () => undefined,
    env: {},
    cwd: scratch.dir,
    now: Date.now,
    processEnvironment: { CONVEX_DEPLOY_KEY: "prod:happy-otter-123|secret" },
    stopped: closed,
  };
  expect(await openTarget({}, io)).toMatchObject({
    environment: "remote",
    siteUrl: "https://happy-otter-123.convex.site",
    cloudUrl: "https://happy-otter-123.convex.cloud",
    adminKey: "prod:happy-otter-123|secret",
  });
});

test("a mistaken line still says where its report goes, and how it is shown", async () => {
  const { code, out, report } = await look(["--nonsense", "--json"]);
  expect([code, report.reasons.join()]).toEqual([2, expect.stringContaining("'--nonsense'")]);
  expect(JSON.parse(out.join("\n"))).toEqual(report);
});

test("a report that cannot be written is one line, and no sound run", async () => {
  const target = await deployment({ body: snapshotOf("ok") });
  const errors: string[] = [];
  const io = {
    projectDir: scratch.dir,
    print: () => undefined,
    printError: (line: string) => errors.push(line),
    processEnvironment: {},
    stopped: new Promise<void>(() => undefined),
  };
  // A directory is no place for a file.
  const code = await main([...target.flags, "--out", scratch.dir], io);
  expect([code, errors]).toEqual([
    2,
    [expect.stringMatching(/^The report could not be written to .*: EISDIR/)],
  ]);
  expect(readdirSync(path.dirname(scratch.dir)).join()).not.toContain(".part");
});

test("help is on the output and no report is made", async () => {
  const out: string[] = [];
  const code = await main(["--help"], { print: (line: string) => out.push(line) } as never);
  expect([code, out[0]]).toEqual([0, "Usage: npm run reliability:snapshot -- [flags]"]);
});
