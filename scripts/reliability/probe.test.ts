import { readFileSync, writeFileSync } from "node:fs";
import { request as httpRequest, type RequestListener } from "node:http";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openIssuer } from "../../src/host/devIssuer";
import { type Host, startHost } from "../../src/host/index";
import { Environment } from "../../src/host/env";
import { ROUTE_IDS, routeRow } from "../../src/http/routes";
import { ballast } from "../ballast";
import { DEV_ISSUER } from "../issuer";
import { ProbeReport } from "./artifacts";
import { probeLimits, unsentLimits } from "./limitProbes";
import { main } from "./probe";
import { newSyntheticRun } from "./probeRun";
import type { Target } from "./target";
import { ranScript, scratchDirectory, stub } from "./testing";

const PROJECT = path.resolve(import.meta.dirname, "../..");
const scratch = scratchDirectory("probe");
/** The project's baseline with latencies that the slowest machine keeps: what is timed is no test. */
const PATIENT = path.join(scratch.dir, "patient.json");
let host: Host;
let environment: Environment;
let token = "";
beforeAll(async () => {
  writePatientBaseline();
  const dataDir = path.join(scratch.dir, "host");
  environment = await Environment.load({
    names: [],
    processEnvironment: {},
    projectDir: null,
    dataDir,
  });
  const app = ballast(PROJECT);
  host = await startHost({
    functionsDir: path.join(PROJECT, app.functionsDir),
    dataDir,
    environment,
    prepare: async (started) => await app.surroundings(started, dataDir),
  });
  token = await (await openIssuer(dataDir, DEV_ISSUER)).token("prober");
});
afterAll(async () => {
  await host.close();
  scratch.remove();
});

function writePatientBaseline(): void {
  const file = path.join(PROJECT, "scripts/reliability/slo-baseline.json");
  const maxP95Ms = 3_600_000;
  const patient = JSON.parse(readFileSync(file, "utf8"), (name, value: unknown) =>
    name === "maxP95Ms" ? maxP95Ms : value,
  ) as unknown;
  writeFileSync(PATIENT, JSON.stringify(patient));
}

const limits = ROUTE_IDS.reduce((sum, id) => sum + routeRow(id).guards.length, 0);

let files = 0;
const probe = async (
  argv: readonly string[],
  more: { readonly env?: Record<string, string>; readonly stopped?: Promise<void> } = {},
) =>
  await ranScript({
    main,
    argv,
    file: path.join(scratch.dir, `${files++}.json`),
    parse: (value) => ProbeReport.parse(value),
    ...more,
  });

const secrets = () => ({
  WHATSAPP_APP_SECRET: environment.get("WHATSAPP_APP_SECRET") ?? "",
  WHATSAPP_VERIFY_TOKEN: environment.get("WHATSAPP_VERIFY_TOKEN") ?? "",
  GMAIL_PUBSUB_VERIFY_TOKEN: environment.get("GMAIL_PUBSUB_VERIFY_TOKEN") ?? "",
});

const UNTIMED = ["--slo-baseline", PATIENT, "--timeout-ms", "120000"];

describe("a sound deployment", () => {
  test("passes every probe, and nothing is left of them", async () => {
    const before = await left();
    const argv = ["--base-url", host.siteUrl, "--auth-token", token, ...UNTIMED];
    const { code, report, out } = await probe(argv, { env: secrets() });
    expect(report.probes.filter(({ pass }) => !pass)).toEqual([]);
    expect([code, report.verdict, report.passed]).toEqual([0, "PASS", true]);
    expect(report.counts).toMatchObject({ failed: 0, skipped: limits });
    expect(report.counts.passed).toBeGreaterThan(100);
    expect(report.reasons).toEqual([
      `${limits} not sent: it would refuse others: only on a host of the run's own`,
    ]);
    expect(report.checks.map(({ name, pass }) => [name, pass])).toEqual([
      ["clock_skew", true],
      ["latency_p95 /api/chat", true],
      ["latency_p95 /api/gmail/push", true],
      ["latency_p95 /api/whatsapp/webhook", true],
    ]);
    expect(report).toMatchObject({
      baseUrl: host.siteUrl,
      probeOrigin: "http://localhost:3000",
      environment: "local",
      deployment: { version: "0.1.0" },
    });
    expect(report.policyHash).toMatch(/^[0-9a-f]{64}$/);
    expect(out.at(-1)).toMatch(/^Report: /);
    for (const secret of [...Object.values(secrets()), token])
      expect(JSON.stringify([report, out])).not.toContain(secret);
    expect(await left()).toEqual(before);
  });

  test("is probed as far as it can be without credentials, and the rest is named", async () => {
    const { code, report } = await probe(["--base-url", host.siteUrl, ...UNTIMED]);
    expect([code, report.counts.failed]).toEqual([0, 0]);
    expect(report.reasons).toHaveLength(5);
    const unsent = report.probes.filter(({ skipped }) => skipped !== null);
    expect(unsent.length).toBe(report.counts.skipped);
    for (const { actual, status, latencyMs } of unsent)
      expect([actual, status, latencyMs]).toEqual(["not sent", null, null]);
  });
});

/** All that an operator can see but the time: what is refused must not show in any of it. */
async function left(): Promise<unknown> {
  const seen = async (name: string): Promise<Record<string, unknown>> =>
    (await host.run(name)) as Record<string, unknown>;
  const { generatedAt, ...snapshot } = await seen("ops:getReliabilitySnapshot");
  expect(generatedAt).toEqual(expect.any(Number));
  return { snapshot, metrics: (await seen("metrics:read"))["keys"] };
}

describe("a deployment that breaks one promise", () => {
  /** Passes everything on to the host, but for what `spoil` does to the answer's head. */
  async function spoiled(
    spoil: (head: { status: number; headers: Record<string, unknown> }, url: string) => void,
  ) {
    const { hostname, port } = new URL(host.siteUrl);
    const pass: RequestListener = (request, response) => {
      const { url = "/", method = "GET", headers } = request;
      const parts: Buffer[] = [];
      request.on("data", (part: Buffer) => parts.push(part));
      request.on("end", () => {
        // Sent on only when it is whole, so that an early refusal meets nobody who still sends.
        const onward = { hostname, port, path: url, method, headers, agent: false };
        httpRequest(onward, (answer) => {
          const head = { status: answer.statusCode ?? 0, headers: { ...answer.headers } };
          spoil(head, url);
          response.writeHead(head.status, head.headers as Record<string, string>);
          answer.pipe(response);
        }).end(Buffer.concat(parts));
      });
    };
    const server = await stub(pass);
    try {
      return await probe(["--base-url", server.url, ...UNTIMED]);
    } finally {
      await server.close();
    }
  }

  test("an open door is found", async () => {
    const { code, report, out } = await spoiled((head, url) => {
      if (url.startsWith("/api/chat/abort") && head.status === 401) head.status = 204;
    });
    const failed = report.probes.filter(({ pass }) => !pass);
    expect(failed.map(({ name }) => name)).toEqual([
      "chat_abort_identity_missing",
      "chat_abort_identity_forged",
    ]);
    expect([code, report.verdict]).toEqual([1, "FAIL"]);
    expect(report.reasons[0]).toBe(
      "POST /api/chat/abort without a token: expected 401 unauthorized, got 204 unauthorized",
    );
    expect(out.join("\n")).toContain("  FAIL  POST /api/chat/abort without a token");
  });

  test("a missing Allow and a door open to every origin are found on every route", async () => {
    const { report } = await spoiled((head) => {
      if (head.status === 405) delete head.headers["allow"];
      else head.headers["access-control-allow-origin"] = "*";
    });
    const failed = report.probes.filter(({ pass }) => !pass);
    const ofMethods = failed.filter(({ guard }) => guard === "method");
    expect(new Set(ofMethods.map(({ route }) => route)).size).toBe(ROUTE_IDS.length);
    expect(ofMethods[0]?.details).toEqual(["allow is missing"]);
    // Status and code are right there: what is not is said instead.
    expect(report.reasons[0]).toMatch(/^\w+ \/api\/chat as \w+: allow is missing$/);
    expect(failed.map(({ name }) => name)).toEqual(
      expect.arrayContaining([
        "chat_post_origin_foreign",
        "chat_options_cors",
        "chat_post_preflight_foreign",
        "whatsapp_receive_preflight_none",
      ]),
    );
  });
});

test("every limit refuses where it is used up, and every variable is as it was", async () => {
  const issuer = await openIssuer(path.join(scratch.dir, "host"), DEV_ISSUER);
  const target: Target = {
    ...host,
    environment: "embedded",
    setting: (name) => environment.get(name) ?? null,
    token: async (user) => await issuer.token(user),
  };
  const probed = await probeLimits(target, {
    baseUrl: host.siteUrl,
    syntheticRun: newSyntheticRun(),
    timeoutMs: 60_000,
    signal: new AbortController().signal,
  });
  expect(probed.map(({ result: { name, details } }) => [name, details])).toEqual(
    unsentLimits().map(({ name }) => [name, []]),
  );
  expect(probed.map(({ result }) => result.status)).toEqual(probed.map(() => 429));
  for (const { knobs } of ROUTE_IDS.flatMap((id) => routeRow(id).guards))
    for (const knob of knobs) expect(environment.get(knob)).toBeUndefined();
});

describe("what cannot be probed is inconclusive, with a report", () => {
  test("nobody answers", async () => {
    const { url, close } = await stub((_, response) => response.end());
    await close();
    const { code, report, out } = await probe(["--base-url", url]);
    expect([code, report.verdict, report.passed]).toEqual([2, "INCONCLUSIVE", false]);
    expect(report.reasons).toEqual([`Nothing answers at ${url}: no answer (ECONNREFUSED).`]);
    expect(report.probes.length).toBeGreaterThan(50);
    expect(out.length).toBeLessThan(6);
  });

  test("nobody answers in time", async () => {
    const silent = await stub(() => undefined);
    const { code, report } = await probe(["--base-url", silent.url, "--timeout-ms", "5"]);
    await silent.close();
    expect([code, report.reasons]).toEqual([
      2,
      [`Nothing answers at ${silent.url}: no answer (nothing within 5 ms).`],
    ]);
  });

  test("it is interrupted, with what was found until then", async () => {
    let stop = (): void => undefined;
    const stopped = new Promise<void>((resolve) => (stop = resolve));
    let answers = 0;
    const server = await stub((_, response) => {
      response.end();
      // The two questions of who it is come first.
      if (++answers === 12) stop();
    });
    const { code, report } = await probe(["--base-url", server.url], { stopped });
    await server.close();
    expect([code, report.reasons]).toEqual([2, ["It was interrupted."]]);
    expect(report.probes.length).toBeGreaterThan(0);
    expect(report.probes.length).toBeLessThan(60);
  });

  test("the thresholds are no thresholds", async () => {
    const file = "scripts/reliability/slo-baseline.schema.json";
    const { code, report } = await probe(["--base-url", host.siteUrl, "--slo-baseline", file]);
    expect(code).toBe(2);
    expect(report.reasons.join()).toContain(`${file} is no baseline. `);
    expect(report.reasons.join()).toContain("version: ");
  });

  test.each([
    [["--no-such-flag"], "Unknown option '--no-such-flag'"],
    [["--timeout-ms", "0"], "--timeout-ms 0 is no whole number"],
    [["--slo-baseline", "nowhere.json"], "There is no baseline nowhere.json."],
  ])("%j", async (argv, reason) => {
    const out: string[] = [];
    const io = {
      projectDir: scratch.dir,
      print: (line: string) => out.push(line),
      printError: (line: string) => out.push(line),
      processEnvironment: {},
      stopped: new Promise<void>(() => undefined),
    };
    expect(await main(argv, io)).toBe(2);
    const file = /^Report: (.*)$/.exec(out.at(-1) ?? "")?.[1] ?? "";
    const report = ProbeReport.parse(
      JSON.parse(readFileSync(path.join(scratch.dir, file), "utf8")),
    );
    expect(file).toMatch(/^\.output\/reliability\/synthetic-probes-[\dTZ-]+\.json$/);
    expect(report.reasons.join()).toContain(reason);
  });
});
