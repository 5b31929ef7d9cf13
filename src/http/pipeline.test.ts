import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { AppError } from "../errors/appError";
import { EXPOSED_HEADERS } from "./cors";
import { METHODS } from "./mount";
import type { Problem } from "./problem";
import { allowedMethods, paths, ROUTE_IDS, routeRow } from "./routes";
import { at, ORIGIN, post, testSite } from "./testSite";

const CHAT = { message: { content: "Hello" } };
const KIB = 1024;

let lines: Record<string, unknown>[] = [];

beforeEach(() => {
  lines = [];
  vi.spyOn(console, "log").mockImplementation((line: string) => {
    lines.push(JSON.parse(line) as Record<string, unknown>);
  });
});
afterEach(() => {
  vi.restoreAllMocks();
});

async function problemOf(response: Response): Promise<Problem> {
  expect(response.headers.get("content-type")).toBe("application/problem+json");
  const problem = (await response.json()) as Problem;
  expect(problem.status).toBe(response.status);
  expect(response.headers.get("x-error-code")).toBe(problem.code);
  expect(response.headers.get("x-request-id")).toBe(problem.requestId);
  return problem;
}

const codeOf = async (response: Response): Promise<string> => (await problemOf(response)).code;

test("a sound request reaches its handler", async () => {
  const { send, steps, calls } = testSite();
  const response = await send(at("/api/chat", post(CHAT)));
  expect([response.status, steps]).toEqual([200, ["identity", "chatPost"]]);
  expect(calls[0]).toMatchObject({
    body: CHAT,
    query: null,
    identity: { subject: "alice" },
    client: { address: "203.0.113.7", verified: "direct" },
  });
});

describe("the order", () => {
  // Each request is wrong in every later way too, so the code names the first guard that looks.
  const tooLarge = "x".repeat(65 * KIB);
  const EVIL = { origin: "https://evil.example" };
  test.each([
    { guard: "method", method: "PUT", headers: EVIL, body: tooLarge, code: "method_not_allowed" },
    { guard: "origin", headers: EVIL, body: tooLarge, code: "forbidden" },
    {
      guard: "media type",
      headers: { "content-type": "text/plain" },
      body: tooLarge,
      code: "unsupported_media_type",
    },
    {
      guard: "length",
      headers: { "content-length": "70000" },
      body: "{",
      code: "payload_too_large",
    },
    { guard: "bytes", body: tooLarge, code: "payload_too_large" },
    { guard: "JSON", body: "{", code: "invalid_json" },
    { guard: "contract", body: "{}", code: "invalid_request" },
    { guard: "identity", body: JSON.stringify(CHAT), code: "unauthorized" },
  ])("$guard", async ({ method = "POST", headers = {}, body, code }) => {
    const { send, steps } = testSite({ identity: null });
    const init = { method, body, headers: { "content-type": "application/json", ...headers } };
    expect(await codeOf(await send(at("/api/chat", init)))).toBe(code);
    expect(steps).toEqual(code === "unauthorized" ? ["identity"] : []);
  });

  test("a signature is asked for over the bytes, before they are parsed", async () => {
    const seen: string[] = [];
    const refuse = async (_: unknown, { bytes }: { bytes: Uint8Array }): Promise<void> => {
      seen.push(new TextDecoder().decode(bytes));
      throw new AppError("forbidden");
    };
    const { send, steps } = testSite({ verifiers: { "hub-256": refuse, "google-push": refuse } });
    for (const path of ["/api/whatsapp/webhook", "/api/gmail/push"])
      expect(await codeOf(await send(at(path, post("{not json"))))).toBe("forbidden");
    expect(seen).toEqual(["{not json", "{not json"]);
    expect(steps).toEqual([]);
  });

  test("a signed body is still JSON and still a delivery", async () => {
    const { send, steps } = testSite();
    const path = "/api/gmail/push";
    expect(await codeOf(await send(at(path, post("{not json"))))).toBe("invalid_json");
    expect(await codeOf(await send(at(path, post("{}"))))).toBe("invalid_request");
    expect(steps).toEqual(["signature", "signature"]);
  });
});

describe("bodies", () => {
  const chunked = (bytes: number): RequestInit => {
    let left = bytes;
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        const size = Math.min(left, 16 * KIB);
        if (size === 0) controller.close();
        else controller.enqueue(new Uint8Array(size).fill(0x20));
        left -= size;
      },
    });
    const headers = { "content-type": "application/json" };
    return { method: "POST", body, headers, duplex: "half" } as RequestInit;
  };

  test("a chunked body of twice what a route takes is 413", async () => {
    const { send, steps } = testSite();
    for (const [path, bytesMax] of [
      ["/api/whatsapp/webhook", 3 * 1024 * KIB],
      ["/api/gmail/push", 256 * KIB],
    ] as const)
      expect(await codeOf(await send(at(path, chunked(2 * bytesMax))))).toBe("payload_too_large");
    expect(steps).toEqual([]);
  });

  test("a body of exactly the limit passes, one byte more does not", async () => {
    const { send } = testSite();
    const frame = JSON.stringify({ entry: [], pad: "" });
    const bytesMax = 3 * 1024 * KIB;
    for (const [extra, status] of [
      [0, 200],
      [1, 413],
    ] as const) {
      const pad = "x".repeat(bytesMax - frame.length + extra);
      const response = await send(at("/api/whatsapp/webhook", post({ entry: [], pad })));
      expect(response.status).toBe(status);
    }
  });

  test.each([
    ["application/json", 200],
    ["application/json; charset=utf-8", 200],
    ["Application/JSON;charset=UTF-8;", 200],
    ['application/json; charset="utf-8"', 200],
    ["application/json; profile=x", 200],
    ["application/json; charset=latin1", 415],
    ["application/json; charset=utf-8; charset=utf-8", 415],
    ["application/json, application/json", 415],
    ["text/json", 415],
    ["application/problem+json", 415],
    ["text/plain; note=application/json", 415],
    ["application/json; =", 415],
    ['application/json; x="a;b"', 200],
    ['application/json; x="a;charset=latin1"', 200],
    ['application/json; x="a;charset=latin1"; charset=utf-8', 200],
    ['application/json; x="say \\"a;b\\""', 200],
    ['application/json; x="\\\\"; charset=utf-8', 200],
    ['application/json; x="a, b"', 200],
    ['application/json; x=""', 200],
    ['application/json; x="\u00e9\t"', 200],
    ['application/json; charset="utf\\-8"', 200],
    ["application/json \t ; \t charset=utf-8 \t ;; ;", 200],
    ["application/json;CharSet=Utf-8", 200],
    ['application/json; charset="latin1;utf-8"', 415],
    ['application/json; charset=""', 415],
    ['application/json; x="a;b', 415],
    ['application/json; x="a"b', 415],
    ['application/json; x="a" y="b"', 415],
    ['application/json; x="a\\"', 415],
    ["application/json; x = a", 415],
    ["application/json; x=", 415],
    ["application/json; x", 415],
    ['application/json; x="a", application/json', 415],
    ["application/json, text/plain", 415],
    ['application/json; charset=utf-8; CHARSET="utf-8"', 415],
    ['application/json; x="a"; X=b', 415],
    ["application/jsonp", 415],
    ["application/json+x", 415],
    ["application / json", 415],
    ['text/plain; note="application/json"', 415],
    [`application/json; x=${"y".repeat(9_000)}`, 415],
    ["", 415],
  ])("media type %s is %i", async (type, status) => {
    const { send } = testSite();
    const response = await send(at("/api/chat", post(CHAT, { "content-type": type })));
    expect(response.status).toBe(status);
  });

  test("a compressed body is refused, never guessed at", async () => {
    const { send } = testSite();
    const response = await send(at("/api/chat", post(CHAT, { "content-encoding": "gzip" })));
    expect(await codeOf(response)).toBe("unsupported_media_type");
  });

  test.each([
    ["a byte order mark", new Uint8Array([0xef, 0xbb, 0xbf, 0x7b, 0x7d])],
    ["bytes that are not UTF-8", new Uint8Array([0x22, 0xff, 0x22])],
    ["nothing", new Uint8Array()],
    ["deep nesting", new TextEncoder().encode("[".repeat(30_000))],
    ["deep nesting, closed", new TextEncoder().encode("[".repeat(33) + "]".repeat(33))],
    ["a prototype", new TextEncoder().encode('{"message":{"__proto__":{"content":"x"}}}')],
    ["an escaped prototype", new TextEncoder().encode('{"\\u005f_proto__":{}}')],
    ["two values", new TextEncoder().encode("{}{}")],
    ["NaN", new TextEncoder().encode("NaN")],
  ])("%s is invalid_json", async (_name, body) => {
    const { send } = testSite();
    expect(await codeOf(await send(at("/api/chat", { ...post(""), body })))).toBe("invalid_json");
  });

  test("brackets and the reserved word inside text are text", async () => {
    const { send } = testSite();
    const content = `__proto__ ${"[{".repeat(100)} \\" \\\\`;
    expect((await send(at("/api/chat", post({ message: { content } })))).status).toBe(200);
  });

  test("a body that breaks off is the caller's failure, not ours", async () => {
    const body = new ReadableStream({
      pull() {
        throw new Error("connection reset");
      },
    });
    const { send } = testSite();
    const init = { ...post(""), body, duplex: "half" } as RequestInit;
    expect(await codeOf(await send(at("/api/chat", init)))).toBe("invalid_request");
  });
});

describe("contracts", () => {
  const send = async (body: unknown): Promise<Response> =>
    await testSite().send(at("/api/chat", post(body)));

  test.each([
    { message: { content: "x" } },
    { message: { content: "x", clientMessageId: "c1" }, modelId: "fast", webSearch: true },
    { threadId: "t1", message: { content: "😀".repeat(15_000) } },
    { message: { content: "a".repeat(32_000) } },
    { threadId: "t1" },
    { threadId: "t1", modelId: "m", webSearch: false, sessionId: "s" },
  ])("accepts both forms: %#", async (body) => {
    expect((await send(body)).status).toBe(200);
  });

  test.each([
    [{}, "message"],
    [[], ""],
    [null, ""],
    ['"text"', ""],
    [{ message: { content: "" } }, "message.content"],
    [{ message: { content: "a".repeat(32_001) } }, "message.content"],
    [{ message: { content: "half \ud83d" } }, "message.content"],
    [{ message: { content: "x" }, extra: 1 }, ""],
    [{ message: { content: "x", role: "system" } }, "message"],
    [{ message: { content: 7 } }, "message.content"],
    [{ threadId: "" }, "threadId"],
    [{ threadId: "t1", webSearch: "yes" }, "webSearch"],
    [{ threadId: "x".repeat(129) }, "threadId"],
  ])("refuses %j and names %j", async (body, path) => {
    const problem = await problemOf(await send(body));
    expect(problem.code).toBe("invalid_request");
    expect(problem.issues?.map((issue) => issue.path)).toContain(path);
  });

  test("lists at most 20 issues, each short, of however many there are", async () => {
    const body = Object.fromEntries(Array.from({ length: 4_000 }, (_, i) => [`key${i}`, i]));
    const problem = await problemOf(await send(body));
    expect(problem.issues?.length).toBeLessThanOrEqual(20);
    expect(JSON.stringify(problem).length).toBeLessThan(6_000);
  });

  test("lets providers add fields as they like", async () => {
    const { send, calls } = testSite();
    const body = { object: "whatsapp_business_account", entry: [{ new: 1 }], more: { deep: [1] } };
    expect((await send(at("/api/whatsapp/webhook", post(body)))).status).toBe(200);
    expect(calls[0]).toMatchObject({ body });
  });

  test("a query parameter given twice is refused", async () => {
    const { send } = testSite();
    const path = "/api/chat/stream?streamId=a";
    expect((await send(at(path))).status).toBe(200);
    expect(await codeOf(await send(at(`${path}&streamId=b`)))).toBe("invalid_request");
    expect(await codeOf(await send(at("/api/chat/stream")))).toBe("invalid_request");
  });
});

describe("identity", () => {
  test("a token that cannot be parsed or names nobody is unauthorized, as none is", async () => {
    const odd = ["", 7, 0, true, [], ["alice"], { id: "alice" }, "\ud800"];
    for (const identity of ["throws", null, ...odd]) {
      const { send, steps } = testSite({ identity });
      const response = await send(
        at("/api/chat", post(CHAT, { authorization: "Bearer not.a.token" })),
      );
      expect(response.headers.get("www-authenticate")).toBe('Bearer error="invalid_token"');
      expect(await codeOf(response)).toBe("unauthorized");
      expect(steps).toEqual(["identity"]);
    }
  });

  test.each([
    { AUTH_JWKS_URL: "nonsense" },
    { AUTH_ISSUER: "https://issuer.example" },
    { AUTH_JWKS_URL: "https://issuer.example/keys" },
  ])("is misconfigured where no token can be checked: %j", async (env) => {
    const { send, steps } = testSite({ identity: null, env });
    expect(await codeOf(await send(at("/api/chat", post(CHAT))))).toBe("misconfigured");
    expect(steps).toEqual(["identity"]);
    const known = testSite({ env });
    expect((await known.send(at("/api/chat", post(CHAT)))).status).toBe(200);
  });

  test("is asked for on every user route and on no other", async () => {
    for (const id of ROUTE_IDS) {
      const { path, method, auth } = routeRow(id);
      const { send } = testSite({ identity: null });
      const bodies: Partial<Record<string, unknown>> = {
        chatPost: CHAT,
        chatAbort: { threadId: "t", messageId: "m" },
        gmailPush: { message: { data: "e30=" } },
        whatsappReceive: { entry: [] },
      };
      const query = id === "chatStream" ? "?streamId=s" : "";
      const init = method === "POST" ? post(bodies[id]) : {};
      const response = await send(at(`${path}${query}`, init));
      expect([id, response.status]).toEqual([id, auth.kind === "user" ? 401 : 200]);
    }
  });
});

describe("cross-origin", () => {
  const CHAT_PATHS = ["/api/chat", "/api/chat/stream", "/api/chat/abort"];

  test.each(CHAT_PATHS)("preflight of %s from an allowed page", async (path) => {
    const response = await testSite().send(
      at(path, { method: "OPTIONS", headers: { origin: ORIGIN } }),
    );
    expect([response.status, await response.text()]).toEqual([204, ""]);
    expect(Object.fromEntries(response.headers)).toMatchObject({
      vary: "Origin",
      "access-control-allow-origin": ORIGIN,
      "access-control-allow-credentials": "true",
      "access-control-allow-methods": "POST, GET, OPTIONS",
      "access-control-allow-headers":
        "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, traceparent",
    });
  });

  test.each(["https://evil.example", "null", `${ORIGIN}/`, ORIGIN.toUpperCase(), `${ORIGIN}, x`])(
    "preflight from %s is told nothing",
    async (origin) => {
      const response = await testSite().send(
        at("/api/chat", { method: "OPTIONS", headers: { origin } }),
      );
      expect([response.status, response.headers.get("vary")]).toEqual([204, "Origin"]);
      expect([...response.headers.keys()].filter((name) => name.startsWith("access-"))).toEqual([]);
    },
  );

  test("a page of another origin is refused; who sends no Origin is no page", async () => {
    const { send } = testSite();
    const refused = await send(at("/api/chat", post(CHAT, { origin: "https://evil.example" })));
    expect(refused.headers.get("access-control-allow-origin")).toBeNull();
    expect(refused.headers.get("vary")).toBe("Origin");
    expect(await codeOf(refused)).toBe("forbidden");
    expect((await send(at("/api/chat", post(CHAT)))).status).toBe(200);
  });

  test.each([
    ["a refusal", post("{"), 400],
    ["a success", post(CHAT), 200],
    ["another method", { method: "DELETE" }, 405],
  ])("%s carries the headers that let a page read it", async (_name, init, status) => {
    const headers = { ...(init as { headers?: Record<string, string> }).headers, origin: ORIGIN };
    const response = await testSite().send(at("/api/chat", { ...init, headers }));
    expect(response.status).toBe(status);
    expect(response.headers.get("access-control-allow-origin")).toBe(ORIGIN);
    expect(response.headers.get("access-control-expose-headers")).toBe(EXPOSED_HEADERS);
  });

  test("a list that is not valid allows nobody and says misconfigured", async () => {
    const { send, steps } = testSite({ env: { ALLOWED_ORIGINS: "*" } });
    for (const init of [post(CHAT, { origin: ORIGIN }), { method: "OPTIONS" }]) {
      const response = await send(at("/api/chat", init));
      expect(response.headers.get("access-control-allow-origin")).toBeNull();
      expect(await codeOf(response)).toBe("misconfigured");
    }
    expect(steps).toEqual([]);
    expect((await send(at("/api/health"))).status).toBe(200);
  });

  test("webhooks have no business with pages", async () => {
    const response = await testSite().send(
      at("/api/whatsapp/webhook", { method: "OPTIONS", headers: { origin: ORIGIN } }),
    );
    expect(response.status).toBe(204);
    expect(response.headers.get("access-control-allow-origin")).toBeNull();
    expect(response.headers.get("allow")).toBe("GET, HEAD, POST, OPTIONS");
  });
});

describe("unrouted", () => {
  test.each(["/", "/nowhere", "/api", "/api/chat/", "/api/chat//x", "/%00", "/api/%ZZ"])(
    "%s is our 404 for every method",
    async (path) => {
      for (const method of METHODS)
        expect(await codeOf(await testSite().send(at(path, { method })))).toBe("not_found");
    },
  );

  test("every path answers every method, with Allow where it refuses", async () => {
    const { send } = testSite();
    for (const path of paths())
      for (const method of METHODS) {
        const response = await send(at(path, { method }));
        const allowed = allowedMethods(path);
        if (method === "OPTIONS") expect(response.status).toBe(204);
        else if (allowed.includes(method)) expect(response.status).not.toBe(405);
        else {
          expect(response.headers.get("allow")).toBe(allowed.join(", "));
          expect(await codeOf(response)).toBe("method_not_allowed");
        }
      }
  });

  test("HEAD is GET without the body, and starts no stream", async () => {
    const { send, steps } = testSite();
    const response = await send(at("/api/health", { method: "HEAD" }));
    expect([response.status, await response.text()]).toEqual([200, ""]);
    const stream = await send(at("/api/chat/stream?streamId=s", { method: "HEAD" }));
    expect(stream.status).toBe(405);
    expect(steps).toEqual(["health"]);
  });
});

describe("tracing", () => {
  const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";

  test("keeps the caller's trace and request id, with a span of its own", async () => {
    const traceparent = `00-${TRACE}-00f067aa0ba902b7-01`;
    const headers = { traceparent, "x-request-id": "req-1.a_B" };
    const response = await testSite().send(at("/api/health", { headers }));
    expect(response.headers.get("x-request-id")).toBe("req-1.a_B");
    const returned = response.headers.get("traceparent") ?? "";
    expect(returned).toMatch(new RegExp(`^00-${TRACE}-[0-9a-f]{16}-01$`));
    expect(returned).not.toBe(traceparent);
    expect(lines[0]).toMatchObject({ requestId: "req-1.a_B", traceId: TRACE });
  });

  test.each(["two words", "a,b", "x".repeat(65), "<script>", "é"])(
    "the request id %s is replaced",
    async (id) => {
      const response = await testSite().send(
        at("/api/health", { headers: { "x-request-id": id } }),
      );
      expect(response.headers.get("x-request-id")).toMatch(/^[0-9a-f]{32}$/);
    },
  );

  test("every answer carries both, refusals and preflights too", async () => {
    const { send } = testSite({ identity: null });
    for (const request of [
      at("/nowhere"),
      at("/api/chat", { method: "OPTIONS" }),
      at("/api/chat", { method: "PUT" }),
      at("/api/chat", post(CHAT)),
      at("/api/health"),
    ]) {
      const { headers } = await send(request);
      expect(headers.get("x-request-id")).toMatch(/^[0-9a-f]{32}$/);
      expect(headers.get("traceparent")).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
    }
  });

  test("one line per request, without bodies, tokens or queries", async () => {
    const { send } = testSite();
    const secret = "canary-7f3a";
    await send(
      at(
        `/api/chat?token=${secret}`,
        post({ message: { content: secret } }, { authorization: secret }),
      ),
    );
    await send(at(`/api/chat`, post({ [secret]: 1 })));
    expect(lines).toHaveLength(2);
    expect(lines[0]).toMatchObject({
      event: "http_request",
      route: "chatPost",
      method: "POST",
      status: 200,
      code: null,
      durationMs: expect.any(Number) as number,
    });
    expect(lines[1]).toMatchObject({ status: 400, code: "invalid_request" });
    expect(JSON.stringify(lines)).not.toContain(secret);
  });
});

describe("failures", () => {
  test("what nobody foresaw is internal_error, logged with its cause, answered without", async () => {
    const reported: unknown[] = [];
    const failure = new Error("row 7 of users: password=hunter2");
    const { send } = testSite({
      handler: () => Promise.reject(failure),
      report: async (_ctx, what) => {
        reported.push(what.error);
        throw new Error("the tracker is down too");
      },
    });
    const response = await send(at("/api/health"));
    const text = await response.clone().text();
    expect(text).not.toContain("hunter2");
    expect(await codeOf(response)).toBe("internal_error");
    expect(lines[0]).toMatchObject({ code: "internal_error", cause: `Error: ${failure.message}` });
    expect(reported).toEqual([failure]);
  });

  test("a refusal of the handler is answered as its code, with its wait and its limit", async () => {
    const limit = {
      name: "chat_stream",
      limit: 30,
      windowMs: 300_000,
      remaining: 0,
      resetMs: 290_000,
    };
    const refuse = () =>
      Promise.reject(new AppError("rate_limited", { retryAfterMs: 9_500, limit }));
    const response = await testSite({ handler: refuse }).send(
      at("/api/chat", post(CHAT, { origin: ORIGIN })),
    );
    expect(response.status).toBe(429);
    expect(response.headers.get("retry-after")).toBe("10");
    expect(response.headers.get("ratelimit-policy")).toBe('"chat_stream";q=30;w=300');
    expect(response.headers.get("ratelimit")).toBe('"chat_stream";r=0;t=10');
    expect(response.headers.get("access-control-allow-origin")).toBe(ORIGIN);
    expect(await codeOf(response)).toBe("rate_limited");
  });

  test("what is missing in the configuration is the operator's to read", async () => {
    const detail = "WHATSAPP_APP_SECRET is not set";
    const refuse = () => Promise.reject(new AppError("misconfigured", { detail }));
    const response = await testSite({ handler: refuse }).send(at("/api/whatsapp/webhook"));
    expect((await problemOf(response)).detail).not.toContain("WHATSAPP");
    expect(lines[0]).toMatchObject({ code: "misconfigured", detail });
  });

  test("a mutation that lost every race is overloaded, and says when to come back", async () => {
    const conflict = new Error(
      'Documents read from or written to the "slots" table changed while this mutation was ' +
        "being run and on every subsequent retry.",
    );
    const response = await testSite({ handler: () => Promise.reject(conflict) }).send(
      at("/api/chat", post(CHAT)),
    );
    expect(response.headers.get("retry-after")).toBe("2");
    expect(await codeOf(response)).toBe("overloaded");
  });
});

test("an event stream is passed on as it is", async () => {
  const stream = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(new TextEncoder().encode("data: 1\n\n"));
      controller.close();
    },
  });
  const headers = { "content-type": "text/event-stream", "x-idempotent-replay": "1" };
  const handler = async () => new Response(stream, { headers });
  const response = await testSite({ handler }).send(at("/api/chat/stream?streamId=s"));
  expect(response.headers.get("content-type")).toBe("text/event-stream");
  expect(response.headers.get("x-idempotent-replay")).toBe("1");
  expect(await response.text()).toBe("data: 1\n\n");
});
