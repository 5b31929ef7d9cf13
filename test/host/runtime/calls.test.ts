import { writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WriteConflict } from "../../../src/host/database";
import { readDeployment } from "../../../src/host/deployment";
import { scratch, startFixture, until } from "./support";
import type { Fixture } from "./support";

let host: Fixture;
beforeAll(async () => {
  host = await startFixture();
});
afterAll(() => host.close());

const post = async (path: string, body: unknown, headers: Record<string, string> = {}) => {
  const response = await fetch(`${host.cloudUrl}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
};
const admin = () => ({ authorization: `Convex ${host.adminKey}` });

describe("a call", () => {
  test("runs queries, mutations and actions, and validates arguments and results", async () => {
    await host.run("notes:add", { text: "hello" });
    expect(await host.run("notes:list")).toContain("hello");
    expect(await host.run("onNode:hash", { text: "abc" })).toMatch(/^ba7816bf/);
    await expect(host.run("notes:add", { text: 7 })).rejects.toThrow("ArgumentValidationError");
    await expect(host.run("notes:add", { text: "a", more: 1 })).rejects.toThrow(
      "ArgumentValidationError",
    );
    await expect(host.run("notes:badReturn")).rejects.toThrow("ReturnsValidationError");
    await expect(host.run("notes:nothing")).rejects.toThrow(
      "Could not find function for 'notes:nothing'",
    );
  });

  test("of a mutation that throws leaves nothing behind, and its stack names the source", async () => {
    const failing = host.run("notes:fail", { text: "gone", kind: "plain" });
    await expect(failing).rejects.toThrow(
      /Uncaught TypeError: refused gone\n[\s\S]*\(convex\/notes\.ts:\d+:\d+/,
    );
    expect(await host.run("notes:list")).not.toContain("gone");
  });

  test("sees a clock that stands still and randomness of its own", async () => {
    const first = (await host.run("notes:clock")) as {
      frozen: boolean;
      random: number[];
      uuid: string;
      bytes: number[];
    };
    const second = (await host.run("notes:clock")) as typeof first;
    expect(first.frozen).toBe(true);
    expect(first.random.every((value) => value >= 0 && value < 1)).toBe(true);
    expect(first.uuid).toMatch(
      /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    );
    expect([second.random, second.uuid, second.bytes]).not.toEqual([
      first.random,
      first.uuid,
      first.bytes,
    ]);
  });

  test.each([
    ["fetch", "Can't use fetch() in queries and mutations"],
    ["timer", "Can't use setTimeout in queries and mutations"],
    ["key", "Can't use cryptographic randomness in queries and mutations"],
  ])("of a query may not use %s", async (what, message) => {
    await expect(host.run("notes:forbidden", { what })).rejects.toThrow(message);
  });

  test("nests: what failed is dropped, what succeeded is kept, a stale read sees neither", async () => {
    const { caught, seen, stale } = (await host.run("notes:nested")) as Record<string, unknown>;
    expect(caught).toEqual({ code: "refused", text: "dropped" });
    expect(seen).toContain("kept");
    expect(seen).not.toContain("dropped");
    expect(stale).not.toContain("kept");
    expect(await host.run("notes:list")).toContain("kept");
  });

  test("nests at most eight deep", async () => {
    expect(await host.run("notes:deep", { left: 7 })).toBe(7);
    await expect(host.run("notes:deep", { left: 8 })).rejects.toThrow("call depth limit exceeded");
  });

  test("of an action catches what a mutation threw, with the data of a ConvexError", async () => {
    expect(await host.run("notes:catchFromAction", { kind: "convex" })).toEqual({
      data: { code: "refused", text: "from an action" },
    });
    const { message } = (await host.run("notes:catchFromAction", { kind: "plain" })) as {
      message: string;
    };
    expect(message).toContain("Uncaught TypeError: refused from an action");
  });

  test("sees variables by name only", async () => {
    await post(
      "/api/update_environment_variables",
      { changes: [{ name: "GREETING", value: "hi" }] },
      admin(),
    );
    expect(await host.run("notes:variables", { name: "GREETING" })).toEqual({
      value: "hi",
      keys: [],
      isIn: false,
    });
    expect(await host.run("notes:variables", { name: "PATH" })).toMatchObject({ value: null });
    expect(await host.run("notes:variables", { name: "CONVEX_SITE_URL" })).toMatchObject({
      value: host.siteUrl,
    });
  });
});

test("mutations at the same moment each count once, or say that they gave up", async () => {
  const calls = Array.from({ length: 12 }, () => host.run("notes:increment", { name: "busy" }));
  const outcomes = await Promise.allSettled(calls);
  const done = outcomes.filter(({ status }) => status === "fulfilled");
  expect(done.length).toBeGreaterThan(1);
  expect(await host.run("notes:counter", { name: "busy" })).toBe(done.length);
  for (const outcome of outcomes)
    if (outcome.status === "rejected")
      expect(outcome.reason).toMatchObject({
        status: 503,
        code: "OptimisticConcurrencyControlFailure",
      });
});

test("a conflict that does not go away is given up on after five attempts, with the platform's words", async () => {
  let attempts = 0;
  let armed = false;
  const conflicting = await startFixture({
    injection: {
      random: () => Math.random() / 50,
      commitFailure: () => (attempts++ >= 0 && armed ? new WriteConflict("notes") : undefined),
    },
  });
  armed = true;
  attempts = 0;
  const response = await fetch(`${conflicting.cloudUrl}/api/mutation`, {
    method: "POST",
    body: JSON.stringify({ path: "notes:add", args: { text: "x" } }),
  });
  armed = false;
  expect(attempts).toBe(5);
  expect(response.status).toBe(503);
  expect(await response.json()).toEqual({
    code: "OptimisticConcurrencyControlFailure",
    message: expect.stringMatching(
      /^Documents read from or written to the "notes" table changed/,
    ) as unknown,
  });
  await conflicting.close();
});

test("a query that the platform would have ended is reported", async () => {
  let latencyMs = 0;
  const slow = await startFixture({
    injection: { databaseLatency: () => new Promise((resolve) => setTimeout(resolve, latencyMs)) },
  });
  latencyMs = 1_100;
  await slow.run("notes:list");
  expect(slow.printed.join()).toMatch(/notes:list took \d+ ms; Convex ends a query after 1000 ms/);
  latencyMs = 0;
  await slow.close();
});

test("a note of a host that was killed is gone before the ports of the next one can be asked", async () => {
  const dataDir = scratch("stale");
  writeFileSync(path.join(dataDir, "deployment.json"), JSON.stringify({ pid: 1 }));
  const notes: unknown[] = [];
  const next = await startFixture({
    dataDir,
    prepare: async () => {
      notes.push(await readDeployment(dataDir));
      return {
        env: { GIVEN: "by the app" },
        deployment: { simUrl: "http://sim" },
        close: async () => undefined,
      };
    },
  });
  notes.push(await readDeployment(dataDir));
  expect(notes).toEqual([
    null,
    {
      cloudUrl: next.cloudUrl,
      siteUrl: next.siteUrl,
      adminKey: next.adminKey,
      pid: process.pid,
      simUrl: "http://sim",
    },
  ]);
  expect(await next.run("notes:variables", { name: "GIVEN" })).toMatchObject({
    value: "by the app",
  });
  await next.close();
  expect(await readDeployment(dataDir)).toBeNull();
});

test("what an action left running may finish its call, but can make no further one", async () => {
  await host.run("notes:leaveRunning");
  await until(
    () => host.run("notes:list"),
    (texts) => (texts as string[]).includes("in flight"),
  );
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(await host.run("notes:list")).not.toContain("too late");
});

describe("the wire", () => {
  test("answers a failed function with 200, its message, data and log lines", async () => {
    const { status, body } = await post("/api/mutation", {
      path: "notes:fail",
      args: { text: "x", kind: "convex" },
      format: "json",
    });
    expect(status).toBe(200);
    expect(body).toMatchObject({ status: "error", errorData: { code: "refused", text: "x" } });
    expect(body["errorMessage"]).toMatch(
      /^\[Request ID: [0-9a-f]{16}\] Server Error\nUncaught ConvexError/,
    );
  });

  test("hides internal functions from all but the admin key", async () => {
    const call = { path: "notes:hidden", args: {} };
    const hidden = await post("/api/function", call);
    expect(hidden.body["errorMessage"]).toContain(
      "Could not find public function for 'notes:hidden'",
    );
    expect((await post("/api/function", call, admin())).body).toEqual({
      status: "success",
      value: "seen",
    });
    expect((await post("/api/run/notes/hidden", { args: {} }, admin())).body).toEqual({
      status: "success",
      value: "seen",
    });
    const wrong = await post("/api/function", call, { authorization: `Convex ${host.adminKey}0` });
    expect(wrong).toMatchObject({ status: 403, body: { code: "BadDeployKey" } });
  });

  test("acts as a user with the admin key", async () => {
    const claims = { subject: "u", issuer: "https://i", name: "Üser" };
    const encoded = Buffer.from(JSON.stringify(claims)).toString("base64");
    const { body } = await post(
      "/api/query",
      { path: "notes:whoAmI" },
      { authorization: `Convex ${host.adminKey}:${encoded}` },
    );
    expect(body["value"]).toEqual({ ...claims, tokenIdentifier: "https://i|u" });
  });

  test("writes plain JSON or Convex's own", async () => {
    const value = {
      n: { $integer: "BwAAAAAAAAA=" },
      b: { $bytes: "AQI=" },
      x: [{ $float: "AAAAAAAA8H8=" }],
      plain: "$",
    };
    const call = (format?: string) =>
      post("/api/query", {
        path: "notes:echo",
        args: [{ value }],
        ...(format === undefined ? {} : { format }),
      });
    expect((await call("convex_encoded_json")).body["value"]).toEqual(value);
    expect((await call()).body["value"]).toEqual({
      n: "7",
      b: "AQI=",
      x: ["Infinity"],
      plain: "$",
    });
    expect((await call("xml")).status).toBe(400);
    const byGet = await fetch(
      `${host.cloudUrl}/api/query?path=notes:echo&args=${encodeURIComponent('{"value":1}')}`,
    );
    expect(await byGet.json()).toEqual({ status: "success", value: 1 });
  });

  test.each<[string, unknown, number, string]>([
    ["/api/query", "{", 400, "BadJsonBody"],
    ["/api/query", "null", 400, "BadJsonBody"],
    ["/api/query", { args: {} }, 400, "BadJsonBody"],
    ["/api/query", { path: "notes:echo", args: [1] }, 400, "InvalidArgs"],
    ["/api/query_at_ts", { path: "notes:list", ts: "AA==" }, 400, "InvalidTimestamp"],
    ["/api/nothing", {}, 404, "NotFound"],
    ["/api/update_environment_variables", { changes: [] }, 403, "BadDeployKey"],
    ["/api/deploy2/start_push", {}, 400, "NothingToPush"],
  ])("answers %s with %j by %i %s", async (path, body, status, code) => {
    expect(await post(path, body)).toMatchObject({ status, body: { code } });
  });

  test("refuses a bad token with 401 and answers preflights of any origin", async () => {
    const { status, body } = await post(
      "/api/query",
      { path: "notes:list" },
      { authorization: "Bearer abc.def.ghi" },
    );
    expect([status, body["code"]]).toEqual([401, "InvalidAuthHeader"]);
    const preflight = await fetch(`${host.cloudUrl}/api/query`, {
      method: "OPTIONS",
      headers: {
        origin: "http://a.test",
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-a",
      },
    });
    expect(preflight.headers.get("access-control-allow-origin")).toBe("*");
    expect(preflight.headers.get("access-control-allow-headers")).toBe("x-a");
    expect(await (await fetch(`${host.cloudUrl}/instance_name`)).text()).toBe("local");
    expect(await (await fetch(`${host.cloudUrl}/version`)).text()).toMatch(/^\d+\.\d+\.\d+$/);
  });

  test("tells an action who asked", async () => {
    const { body } = await post(
      "/api/action",
      { path: "notes:metadata" },
      { "x-forwarded-for": "6.6.6.6" },
    );
    expect(body["value"]).toMatchObject({
      name: "notes:metadata",
      request: { ip: "127.0.0.1", userAgent: "node", scheduledFunctionId: null },
    });
  });
});
