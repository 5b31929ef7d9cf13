import { readFile } from "node:fs/promises";
import { connect } from "node:net";
import { importJWK, type JWK, SignJWT } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { allowedMethods, paths, ROUTE_IDS, routeRow, type RouteRow } from "../../src/http/routes";
import { hub256 } from "../../src/sim/deliveries";
import { type Backend, startBackend } from "./backend";
import { chat, startOf } from "./sse";
import { type Problem, problemOf, refusal, send, type WireAnswer, type WireRequest } from "./wire";

const ORIGIN = "http://localhost:3000";
const KIB = 1_024;

let backend: Backend;
beforeAll(async () => {
  backend = await startBackend({ env: { RATE_LIMIT_CHAT_STREAM_MAX: "1000" } });
});
afterAll(async () => {
  await backend.close();
});

const to = async (path: string, request: WireRequest = {}): Promise<WireAnswer> =>
  await send(`${backend.siteUrl}${path}`, request);

const rows: readonly RouteRow[] = ROUTE_IDS.map(routeRow);
const posts = rows.filter(({ body }) => body !== null);

/** Headers with which a route's guards before the contract agree, for these bytes. */
async function credentials(row: RouteRow, body: string): Promise<Record<string, string>> {
  const json = { "content-type": "application/json" };
  switch (row.auth.kind) {
    case "user":
      return { ...json, authorization: `Bearer ${await backend.token("alice")}` };
    case "signature":
      return row.auth.scheme === "hub-256"
        ? { ...json, "x-hub-signature-256": hub256(backend.secrets.WHATSAPP_APP_SECRET, body) }
        : { ...json, "x-pubsub-token": backend.secrets.GMAIL_PUBSUB_VERIFY_TOKEN };
    case "none":
    case "token":
      return json;
  }
}

async function post(row: RouteRow, body: string, more: WireRequest = {}): Promise<WireAnswer> {
  const headers = { ...(await credentials(row, body)), ...more.headers };
  return await to(row.path, { method: "POST", body, ...more, headers });
}

describe("method", () => {
  test("a method that a path does not answer is 405 with what it does", async () => {
    const wrong = paths().flatMap((path) =>
      ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
        .filter((method) => !allowedMethods(path).includes(method))
        .map((method) => ({ path, method })),
    );
    expect(wrong.length).toBeGreaterThan(20);
    const answers = await Promise.all(wrong.map(({ path, method }) => to(path, { method })));
    for (const [i, answer] of answers.entries()) {
      const { path = "", method } = wrong[i] ?? {};
      expect([method, path, answer.status, answer.headers["allow"]]).toEqual([
        method,
        path,
        405,
        allowedMethods(path).join(", "),
      ]);
      if (method !== "HEAD") expect(problemOf(answer).code).toBe("method_not_allowed");
    }
  });

  test.each([
    "/",
    "/api",
    "/api/",
    "/api/chat/",
    "/api/chatter",
    "/API/CHAT",
    "/api/chat/stream/1",
    "/api//chat",
    "/%2e%2e/etc/passwd",
    "/api/%63hat%00",
    "/.well-known/openid-configuration",
    `/${"a".repeat(4_000)}`,
  ])("%s is nobody's path, whatever the method", async (path) => {
    const methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    const answers = await Promise.all(methods.map((method) => to(path, { method })));
    expect(answers.map(refusal)).toEqual(methods.map(() => [404, "not_found"]));
  });

  test("HEAD answers as GET without the body", async () => {
    const answer = await to("/api/health", { method: "HEAD" });
    expect([answer.status, answer.text]).toEqual([200, ""]);
  });
});

describe("cross-origin", () => {
  const shared = rows.filter(({ cors }) => cors === "allowlist");
  const EXPOSED =
    "Retry-After, RateLimit, RateLimit-Policy, X-Request-Id, X-Error-Code, X-Idempotent-Replay";

  test("a preflight of an allowed origin is told everything", async () => {
    for (const { path, method } of shared) {
      const answer = await to(path, {
        method: "OPTIONS",
        headers: {
          origin: ORIGIN,
          "access-control-request-method": method,
          "access-control-request-headers": "authorization,content-type,idempotency-key",
        },
      });
      expect([answer.status, answer.text]).toEqual([204, ""]);
      expect(answer.headers).toMatchObject({
        vary: "Origin",
        "access-control-allow-origin": ORIGIN,
        "access-control-allow-methods": "POST, GET, OPTIONS",
        "access-control-allow-headers":
          "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, traceparent",
        "access-control-allow-credentials": "true",
        "access-control-expose-headers": EXPOSED,
      });
    }
  });

  test.each([
    "https://evil.example",
    "null",
    "http://localhost:3000.evil.example",
    "https://localhost:3000",
    "http://localhost",
    "HTTP://LOCALHOST:3000",
    "http://localhost:3000/",
    "*",
    "http://localhost:3000, https://evil.example",
  ])("origin %s gets a preflight without headers, and 403", async (origin) => {
    for (const row of shared) {
      const preflight = await to(row.path, { method: "OPTIONS", headers: { origin } });
      expect([preflight.status, preflight.headers["vary"]]).toEqual([204, "Origin"]);
      expect(corsOf(preflight)).toEqual([]);
      const answer =
        row.body === null
          ? await to(row.path, { headers: { origin } })
          : await post(row, "{}", { headers: { origin } });
      expect(refusal(answer)).toEqual([403, "forbidden"]);
      expect(corsOf(answer)).toEqual([]);
    }
  });

  test("a page can read every refusal", async () => {
    const token = `Bearer ${await backend.token("alice")}`;
    const json = { "content-type": "application/json", origin: ORIGIN };
    const answers = await Promise.all([
      to("/api/chat", { method: "PUT", headers: { origin: ORIGIN } }),
      to("/api/chat", { method: "POST", headers: { origin: ORIGIN } }),
      to("/api/chat", { method: "POST", headers: json, body: "x".repeat(65 * KIB) }),
      to("/api/chat", { method: "POST", headers: json, body: "{" }),
      to("/api/chat", { method: "POST", headers: json, body: "{}" }),
      to("/api/chat", { method: "POST", headers: json, body: '{"message":{"content":"hi"}}' }),
      to("/api/chat", {
        method: "POST",
        headers: { ...json, authorization: token },
        body: '{"threadId":"x","message":{"content":"hi"}}',
      }),
      to("/api/chat/stream?streamId=x", { headers: { origin: ORIGIN, authorization: token } }),
    ]);
    expect(answers.map(({ status }) => status)).toEqual([405, 415, 413, 400, 400, 401, 404, 404]);
    for (const answer of answers)
      expect(answer.headers).toMatchObject({
        vary: "Origin",
        "access-control-allow-origin": ORIGIN,
        "access-control-expose-headers": EXPOSED,
      });
  });

  test("preflights of the other paths say what is allowed and nothing of origins", async () => {
    for (const { path } of rows.filter(({ cors }) => cors === "none")) {
      const answer = await to(path, { method: "OPTIONS", headers: { origin: ORIGIN } });
      expect([answer.status, answer.headers["allow"]]).toEqual([
        204,
        allowedMethods(path).join(", "),
      ]);
      expect(corsOf(answer)).toEqual([]);
    }
  });
});

const corsOf = ({ headers }: WireAnswer): string[] =>
  Object.keys(headers).filter((name) => name.startsWith("access-control-"));

describe.each(posts.map((row) => [row.path, row] as const))("POST %s", (_, row) => {
  test.each([
    [undefined],
    ["text/plain"],
    ["text/plain; note=application/json"],
    ["application/jsonp"],
    ["application/json-patch+json"],
    ["application/x-www-form-urlencoded"],
    ["multipart/form-data; boundary=x"],
    ["application/json; charset=utf-16"],
    ["application/json, application/json"],
    [""],
  ])("as %s is 415", async (type) => {
    const body = "{}";
    const headers = await credentials(row, body);
    if (type === undefined) delete headers["content-type"];
    else headers["content-type"] = type;
    const answer = await to(row.path, { method: "POST", body, headers });
    expect(refusal(answer)).toEqual([415, "unsupported_media_type"]);
  });

  test("of compressed bytes is 415, in odd but right spelling it is read", async () => {
    const packed = await post(row, "{}", { headers: { "content-encoding": "gzip" } });
    expect(refusal(packed)).toEqual([415, "unsupported_media_type"]);
    for (const type of ["Application/JSON", 'application/json;charset="UTF-8"']) {
      const answer = await post(row, "[]", { headers: { "content-type": type } });
      expect(refusal(answer)).toEqual([400, "invalid_request"]);
    }
  });

  test("of more bytes than it takes is 413, declared or counted", async () => {
    const body = JSON.stringify({ filler: "é".repeat(row.bodyBytesMax / 2) });
    const large = JSON.stringify({ filler: "x".repeat(2 * row.bodyBytesMax) });
    const answers = await Promise.all([
      post(row, body),
      post(row, body, { chunkBytes: 16 * KIB }),
      post(row, large, { chunkBytes: 64 * KIB }),
      post(row, large, { chunkBytes: 1_000 }),
    ]);
    expect(answers.map(refusal)).toEqual(answers.map(() => [413, "payload_too_large"]));
    // One byte less than too much is read to its end.
    const most = `"${"x".repeat(row.bodyBytesMax - 2)}"`;
    expect(refusal(await post(row, most, { chunkBytes: 10_000 }))).toEqual([
      400,
      "invalid_request",
    ]);
  });

  test.each([
    "",
    " ",
    "{",
    "undefined",
    "{'a':1}",
    '{"a":1}}',
    "\uFEFF{}",
    "NaN",
    `${"[".repeat(33)}${"]".repeat(33)}`,
    "[".repeat(100_000 % (60 * KIB)),
    '{"__proto__":{}}',
    '{"a":{"\\u005f_proto__":1}}',
  ])("of %j is no JSON", async (body) => {
    expect(refusal(await post(row, body))).toEqual([400, "invalid_json"]);
  });

  test("of bytes that are no UTF-8 is no JSON", async () => {
    const bytes = Buffer.from([0x22, 0xff, 0xfe, 0x22]);
    const headers = await credentials(row, "{}");
    const signed = "x-hub-signature-256" in headers;
    const answer = await to(row.path, { method: "POST", body: bytes, headers });
    expect(refusal(answer)).toEqual(signed ? [403, "forbidden"] : [400, "invalid_json"]);
  });

  test.each(["null", "[]", "7", '"x"', "true"])("of %s breaks the contract", async (body) => {
    const answer = await post(row, body);
    expect(refusal(answer)).toEqual([400, "invalid_request"]);
    expect(problemOf(answer).issues?.length).toBeGreaterThan(0);
  });
});

describe("a chat body", () => {
  const issuesOf = async (body: unknown): Promise<Problem["issues"]> => {
    const answer = await post(routeRow("chatPost"), JSON.stringify(body));
    expect(refusal(answer)).toEqual([400, "invalid_request"]);
    return problemOf(answer).issues;
  };
  const message = { content: "hi" };

  test("is told field by field what is wrong", async () => {
    const wrong: readonly (readonly [object, string])[] = [
      [{}, "message"],
      [{ message: {} }, "message.content"],
      [{ message: { content: "" } }, "message.content"],
      [{ message: { content: "x".repeat(32_001) } }, "message.content"],
      [{ message: { content: 7 } }, "message.content"],
      [{ message: { content: "half \ud83d" } }, "message.content"],
      [{ message: { content: "hi", clientMessageId: "" } }, "message.clientMessageId"],
      [{ message: { content: "hi", role: "system" } }, "message"],
      [{ message, threadId: "" }, "threadId"],
      [{ message, threadId: "x".repeat(129) }, "threadId"],
      [{ message, modelId: "evil/model" }, "modelId"],
      [{ message, modelId: "" }, "modelId"],
      [{ message, webSearch: "yes" }, "webSearch"],
      [{ message, userId: "bob" }, ""],
      [{ message, sessionId: "x" }, ""],
      [{ threadId: "x", messages: [] }, ""],
    ];
    for (const [body, path] of wrong)
      expect([body, (await issuesOf(body))?.map((issue) => issue.path)]).toEqual([body, [path]]);
  });

  test("of a thousand wrong keys is told twenty things at most, in few words", async () => {
    const many = Object.fromEntries(Array.from({ length: 1_000 }, (_, i) => [`k${i}`, i]));
    const issues = (await issuesOf({ message, ...many })) ?? [];
    expect(issues.length).toBeLessThanOrEqual(20);
    expect(JSON.stringify(issues).length).toBeLessThan(6_000);
  });

  test("of 32,000 characters is read, also where each is two units and four bytes", async () => {
    const answers = await Promise.all(
      ["x".repeat(32_000), "🚢".repeat(16_000)].map((content) =>
        post(routeRow("chatPost"), JSON.stringify({ message: { content } })),
      ),
    );
    expect(answers.map(({ status }) => status)).toEqual([200, 200]);
  });
});

describe("identity", () => {
  const users = rows.filter(({ auth }) => auth.kind === "user");
  const bodyOf = (row: RouteRow): string =>
    row.path === "/api/chat/abort"
      ? '{"threadId":"x","messageId":"y"}'
      : '{"message":{"content":"hi"}}';

  async function as(row: RouteRow, authorization: string | readonly string[] | undefined) {
    const headers = {
      "content-type": "application/json",
      ...(authorization === undefined ? {} : { authorization }),
    };
    return row.body === null
      ? await to(`${row.path}?streamId=x`, { headers })
      : await to(row.path, { method: "POST", headers, body: bodyOf(row) });
  }

  test("without a token, or with one that is not ours, is 401", async () => {
    const sound = await backend.token("alice");
    const [head = "", payload = "", signature = ""] = sound.split(".");
    const claims = JSON.parse(Buffer.from(payload, "base64url").toString()) as object;
    const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const hmac = await new SignJWT({ ...claims })
      .setProtectedHeader({ alg: "HS256" })
      .sign(new TextEncoder().encode("secret"));
    const wrong = [
      undefined,
      "",
      "Bearer",
      "Bearer ",
      "Bearer garbage",
      "Bearer a.b.c",
      `Basic ${sound}`,
      sound,
      `Bearer ${head}.${payload}.`,
      `Bearer ${head}.${payload}.${signature.slice(0, -4)}`,
      `Bearer ${encode({ alg: "none", typ: "JWT" })}.${payload}.`,
      `Bearer ${head}.${encode({ ...claims, sub: "bob" })}.${signature}`,
      `Bearer ${hmac}`,
      `Bearer ${"x".repeat(8_000)}`,
      `Convex ${backend.host.adminKey}`,
      `Bearer ${backend.host.adminKey}`,
    ];
    for (const row of users) {
      const answers = await Promise.all(wrong.map((authorization) => as(row, authorization)));
      expect(answers.map(refusal)).toEqual(wrong.map(() => [401, "unauthorized"]));
      expect(answers[0]?.headers["www-authenticate"]).toBe("Bearer");
      expect(answers[4]?.headers["www-authenticate"]).toBe('Bearer error="invalid_token"');
    }
  });

  test("of another audience or issuer, not yet or no longer valid, is 401", async () => {
    const sign = await signer(backend.dataDir);
    const now = Math.floor(Date.now() / 1000);
    const claims = {
      iss: "https://issuer.ballast.localhost",
      aud: "ballast",
      sub: "alice",
      iat: now,
      exp: now + 600,
    };
    const row = routeRow("chatStream");
    expect(refusal(await as(row, `Bearer ${await sign(claims)}`))).toEqual([404, "not_found"]);
    const wrong = [
      { aud: "elsewhere" },
      { aud: [] },
      { iss: "https://elsewhere.example" },
      { exp: now - 60 },
      { exp: undefined },
      { nbf: now + 600 },
      { sub: undefined },
      { sub: "" },
    ];
    const answers = await Promise.all(
      wrong.map(async (change) => as(row, `Bearer ${await sign({ ...claims, ...change })}`)),
    );
    expect(answers.map(refusal)).toEqual(wrong.map(() => [401, "unauthorized"]));
  });
});

test("what is not yours, not there or not an id is the same 404, in each route", async () => {
  const { threadId, messageId, streamId } = startOf(await chat(backend, "mine"));
  const mallory = { authorization: `Bearer ${await backend.token("mallory")}` };
  const bodies = [threadId, streamId, messageId, "x", `${threadId}0`, "../../x", "\u0000"].flatMap(
    (id) => [
      ["/api/chat", { threadId: id, message: { content: "hi" } }],
      ["/api/chat", { threadId: id }],
      ["/api/chat/abort", { threadId: id, messageId }],
    ],
  );
  const answers = await Promise.all([
    ...bodies.map(([path, body]) =>
      to(path as string, {
        method: "POST",
        headers: { "content-type": "application/json", ...mallory },
        body: JSON.stringify(body),
      }),
    ),
    ...[streamId, threadId, "x", "%00", "🚢"].map((id) =>
      to(`/api/chat/stream?streamId=${encodeURIComponent(decodeURIComponent(id))}`, {
        headers: mallory,
      }),
    ),
  ]);
  expect(answers.map(refusal)).toEqual(answers.map(() => [404, "not_found"]));
  const details = new Set(answers.map((answer) => problemOf(answer).detail));
  expect(details.size).toBe(1);
});

describe("ids of a request", () => {
  test("its own id is kept where it is safe, and its trace continued", async () => {
    const trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    const answer = await to("/api/health", {
      headers: { "x-request-id": "my-id.1", traceparent: `00-${trace}-00f067aa0ba902b7-01` },
    });
    expect(answer.headers["x-request-id"]).toBe("my-id.1");
    expect(answer.headers["traceparent"]).toMatch(new RegExp(`^00-${trace}-[0-9a-f]{16}-01$`));
    expect(answer.headers["traceparent"]).not.toContain("00f067aa0ba902b7");
  });

  test.each(["", "a b", "x".repeat(65), "<script>", "a,b"])("id %j is replaced", async (id) => {
    const answer = await to("/nowhere", {
      headers: { "x-request-id": id, traceparent: "00-zz-1-01" },
    });
    expect(answer.headers["x-request-id"]).toMatch(/^[0-9a-f]{32}$/);
    expect(answer.headers["traceparent"]).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
    expect(problemOf(answer).requestId).toBe(answer.headers["x-request-id"]);
  });

  test("each request is one line of the log, without bodies, tokens or addresses", async () => {
    const token = await backend.token("alice");
    await to("/api/chat?secret=querysecret", {
      method: "POST",
      headers: {
        "content-type": "application/json",
        authorization: `Bearer ${token}`,
        "x-request-id": "logged-once",
      },
      body: '{"message":{"content":"bodysecret"},"x":1}',
    });
    const lines = backend.printed.filter((line) => line.includes("logged-once"));
    expect(lines).toHaveLength(1);
    expect(JSON.parse(lines[0]?.slice(lines[0].indexOf("{")) ?? "{}")).toMatchObject({
      event: "http_request",
      route: "chatPost",
      method: "POST",
      status: 400,
      code: "invalid_request",
    });
    const all = backend.printed.join("\n");
    for (const secret of ["querysecret", "bodysecret", token, "e2e-app-secret", "127.0.0.1"])
      expect(all).not.toContain(secret);
  });
});

test("health says that it is there and which version, and nothing else", async () => {
  const answer = await to("/api/health");
  const body = JSON.parse(answer.text) as object;
  expect([answer.status, Object.keys(body).sort()]).toEqual([200, ["ok", "version"]]);
  expect(body).toMatchObject({ ok: true });
});

test("the description of it all is served", async () => {
  const answer = await to("/api/openapi.json");
  const document = JSON.parse(answer.text) as { openapi?: string; paths?: object };
  expect(answer.status).toBe(200);
  expect(document.openapi).toMatch(/^3\.1\./);
  expect(Object.keys(document.paths ?? {}).sort()).toEqual([...paths()].sort());
});

test("a client that says more than it sends, or stops in the middle, breaks nothing", async () => {
  const { port, hostname } = new URL(backend.siteUrl);
  const heads = [
    "POST /api/chat HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
    "POST /api/whatsapp/webhook HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{",
    "POST /api/gmail/push HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{",
    "GET /api/health HTTP/1.1\r\nhost: [::1\r\n\r\n",
    "BREW /api/health HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET http://evil.example/api/health HTTP/1.1\r\nhost: x\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
    "\u0000\u0001\u0002\r\n\r\n",
  ];
  const answers = await Promise.all(
    heads.map(
      async (head) =>
        await new Promise<string>((resolve) => {
          const socket = connect(Number(port), hostname, () => {
            socket.write(head);
          });
          let said = "";
          const end = (): void => {
            socket.destroy();
            resolve(said);
          };
          socket.setTimeout(300, end);
          socket.on("data", (part: Buffer) => (said += part.toString()));
          socket.on("close", end);
          socket.on("error", end);
        }),
    ),
  );
  for (const answer of answers) expect(answer).not.toMatch(/^HTTP\/1\.1 5/);
  expect((await to("/api/health")).status).toBe(200);
});

/** Signs any claims with the issuer's own key. */
async function signer(dataDir: string): Promise<(claims: object) => Promise<string>> {
  const jwk = JSON.parse(await readFile(`${dataDir}/issuer-key.json`, "utf8")) as JWK;
  const key = await importJWK(jwk, "RS256");
  return async (claims) =>
    await new SignJWT({ ...claims })
      .setProtectedHeader({ alg: "RS256", kid: jwk.kid ?? "", typ: "JWT" })
      .sign(key);
}
