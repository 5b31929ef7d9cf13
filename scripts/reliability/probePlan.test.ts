import * as z from "zod";
import { describe, expect, test } from "vitest";
import { ERRORS } from "../../src/errors/table";
import { guardsOf } from "../../src/http/guards";
import { allowedMethods, ROUTE_IDS, routeRow, type RouteRow } from "../../src/http/routes";
import type { Sent } from "./exchange";
import { acceptable, unsentLimits } from "./limitProbes";
import { answersOf } from "./probeAnswers";
import { credentialsFrom } from "./probeCredentials";
import { probesOfGuard } from "./probeGuards";
import { maker, type Planned } from "./probeParts";
import { planProbes } from "./probePlan";
import { refusedText, sampleOf } from "./sample";
import type { Target } from "./target";

const KNOWN = credentialsFrom({
  origin: "https://app.example",
  token: "a.user.token",
  secret: (name) => `secret of ${name}`,
});
const UNKNOWN = credentialsFrom({ origin: null, token: null, secret: () => null });

describe("the plan", () => {
  const plan = [...planProbes(KNOWN), ...unsentLimits()];

  test("has a probe for every guard of every route, and knows how to send each", () => {
    for (const id of ROUTE_IDS)
      for (const { name } of guardsOf(routeRow(id))) {
        const probes = plan.filter(({ route, guard }) => route === id && guard === name);
        expect([id, name, probes.length > 0]).toEqual([id, name, true]);
        expect(probes.filter(({ sent }) => sent === null)).toEqual([]);
      }
  });

  test("provokes every code that a guard refuses with, but for those that need a fault", () => {
    for (const id of ROUTE_IDS)
      for (const { name, refuses } of guardsOf(routeRow(id))) {
        const codes = plan
          .filter(({ route, guard }) => route === id && guard === name)
          .map(({ expected }) => expected.code);
        expect(new Set(codes)).toEqual(new Set([refuses[0]]));
      }
  });

  test("names each probe once, and the five of old as they were", () => {
    const names = plan.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(name).toMatch(/^[a-z0-9_]+$/);
    expect(names).toEqual(
      expect.arrayContaining([
        "chat_options_cors",
        "chat_requires_auth",
        "gmail_push_guard",
        "whatsapp_verify_guard",
        "whatsapp_post_guard",
      ]),
    );
  });

  test("expects the status that the error table says", () => {
    for (const { expected } of plan)
      if (expected.code !== null) expect(expected.statuses).toEqual([ERRORS[expected.code].status]);
  });

  test("never sends what would be accepted: no body that fulfils its contract with its credentials", () => {
    for (const { route, sent, expected } of planProbes(KNOWN)) {
      if (route === null || sent === null || typeof sent === "string") continue;
      const isAccepted = expected.code === null && sent.method === "POST";
      expect([route, isAccepted]).toEqual([route, false]);
    }
  });

  test("without credentials says of each probe what it needs, and sends the others", () => {
    const blind = planProbes(UNKNOWN);
    expect(blind.map(({ name }) => name)).toEqual(planProbes(KNOWN).map(({ name }) => name));
    const unsent = blind.filter(({ sent }) => typeof sent === "string");
    expect([...new Set(unsent.map(({ sent }) => sent))].sort()).toEqual([
      "GMAIL_PUBSUB_VERIFY_TOKEN is not known: give --gmail-token",
      "WHATSAPP_APP_SECRET is not known: give --whatsapp-secret",
      "its token is not known",
      "no allowed origin is known: give --origin",
      "no user's token is known: give --auth-token",
    ]);
    expect(blind.length - unsent.length).toBeGreaterThan(90);
  });

  test("sends limits only to a host of its own", () => {
    for (const { sent } of unsentLimits())
      expect(sent).toContain("only on a host of the run's own");
    expect(unsentLimits().length).toBe(
      ROUTE_IDS.reduce((sum, id) => sum + routeRow(id).guards.length, 0),
    );
  });
});

describe("a route that was added today", () => {
  const row: RouteRow = {
    method: "POST",
    path: "/api/whatsapp/webhook",
    summary: "new",
    tag: "Webhooks",
    auth: { kind: "user" },
    cors: "allowlist",
    body: z.strictObject({ name: z.string().min(3), tags: z.array(z.string()).min(2) }),
    bodyBytesMax: 10,
    query: null,
    headers: [],
    guards: [],
    errors: [],
    success: [],
  };
  const probe = maker("whatsappReceive", row);
  const probes = guardsOf(row).flatMap(({ name, refuses }) =>
    probesOfGuard(name, refuses, { row, probe, credentials: KNOWN }),
  );

  const SAMPLE = '{"name":"xxx","tags":["x","x"]}';
  const TARGET: Target = {
    environment: "embedded",
    siteUrl: "",
    cloudUrl: "",
    adminKey: null,
    setting: () => null,
    token: async (user) => `token of ${user}`,
    close: async () => undefined,
  };
  const sentBy = ({ sent }: Planned): Sent => {
    if (sent === null || typeof sent === "string") throw new Error(`not sent: ${String(sent)}`);
    return sent;
  };

  test("has its guards probed with requests that fit its own contract", () => {
    const bodies = probes
      .filter(({ guard }) => guard === "identity")
      .map(({ sent }) => (sent === null || typeof sent === "string" ? null : sent.body));
    expect(bodies).toEqual(['{"name":"xxx","tags":["x","x"]}', '{"name":"xxx","tags":["x","x"]}']);
    const large = probes.filter(({ guard }) => guard === "body bytes");
    for (const { sent } of large)
      expect(sent !== null && typeof sent !== "string" ? sent.body?.length : 0).toBe(11);
    const methods = probes.filter(({ guard }) => guard === "method");
    expect(methods).toHaveLength(6 - (allowedMethods(row.path).length - 1));
  });

  test("with a body and a query has each refused for itself", async () => {
    const query = z.strictObject({ at: z.string().min(4) });
    const both: RouteRow = { ...row, query };
    const setting = { row: both, probe, credentials: KNOWN };
    const sent = probesOfGuard("contract", ["invalid_request"], setting).map(sentBy);
    expect(sent.map(({ path, body, headers }) => [path, body, headers])).toEqual([
      [row.path, "null", { "content-type": "application/json" }],
      [`${row.path}?at=1&at=2`, SAMPLE, { "content-type": "application/json" }],
    ]);
    const limit = { name: "new", per: "user", knobs: [], onFault: "reject" } as const;
    expect(await acceptable(both, "1", { target: TARGET, limit })).toEqual({
      method: "POST",
      path: `${row.path}?at=xxxx`,
      headers: { "content-type": "application/json", authorization: "Bearer token of probe-new" },
      body: SAMPLE,
    });
  });

  test("that is open and limited has its limit used up by anybody", async () => {
    const open: RouteRow = { ...row, auth: { kind: "none" } };
    const limit = { name: "new", per: "everyone", knobs: [], onFault: "reject" } as const;
    const sent = await acceptable(open, "1", { target: TARGET, limit });
    expect(sent).toMatchObject({ headers: { "content-type": "application/json" }, body: SAMPLE });
  });

  test("that asks for a query is asked with one", () => {
    const query = z.strictObject({ at: z.string().min(4) });
    const open = { ...row, method: "GET", auth: { kind: "none" }, body: null, query } as const;
    const answered = { status: 200, description: "", contentType: null, contract: null };
    const withQuery: RouteRow = { ...open, success: [{ ...answered, headers: [] }] };
    const setting = { row: withQuery, probe, credentials: KNOWN };
    const sent = answersOf("health", setting).map(sentBy);
    expect(sent.map(({ method, path }) => [method, path])).toEqual([
      ["GET", `${row.path}?at=xxxx`],
      ["HEAD", `${row.path}?at=xxxx`],
    ]);
  });

  test("with a guard that nobody has taught the probes has a probe that fails", () => {
    const [unknown] = probesOfGuard("moon phase", ["forbidden"], {
      row,
      probe,
      credentials: KNOWN,
    });
    expect(unknown).toMatchObject({ guard: "moon phase", sent: null });
  });
});

describe("a sample", () => {
  test("fits the contract of every route, body and query, smallest and whole", () => {
    for (const id of ROUTE_IDS) {
      const { body, query } = routeRow(id);
      for (const contract of [body, query]) {
        if (contract === null) continue;
        for (const whole of [false, true])
          expect(contract.safeParse(sampleOf(contract, { whole })).success).toBe(true);
      }
      if (body !== null)
        expect(body.safeParse(JSON.parse(refusedText(body) ?? "")).success).toBe(false);
    }
  });

  test.each([
    [z.string().min(2), "xx"],
    [z.int().min(5), 5],
    [z.literal("a"), "a"],
    [z.enum(["b", "c"]), "b"],
    [z.union([z.object({ d: z.null() }), z.string()]), { d: null }],
    [z.object({ e: z.boolean(), f: z.string().optional() }), { e: false }],
    [z.string().regex(/^\d+$/), null],
  ])("of contract %#", (contract, value) => {
    expect(sampleOf(contract)).toEqual(value);
  });

  test("that breaks a contract which takes everything is none", () => {
    expect(refusedText(z.unknown())).toBeNull();
  });
});
