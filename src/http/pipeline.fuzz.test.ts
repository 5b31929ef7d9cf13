import fc from "fast-check";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { errorSpec, isErrorCode } from "../errors/table";
import { errorCodesOf } from "./guards";
import { METHODS } from "./mount";
import type { Problem } from "./problem";
import { paths, ROUTE_IDS, routeRow } from "./routes";
import { at, ORIGIN, testSite } from "./testSite";

beforeEach(() => {
  vi.spyOn(console, "log").mockImplementation(() => undefined);
});
afterEach(() => {
  vi.restoreAllMocks();
});

const RUNS = 400;

const wild = fc.oneof(
  fc.string({ unit: "binary", maxLength: 300 }),
  fc.constantFrom("", "\0", "\ud800", "__proto__", "constructor", "x".repeat(40_000)),
);
const values = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    wild,
    fc.constantFrom(null, true, 0, -0, 1e308, Number.MAX_SAFE_INTEGER),
    fc.array(tie("value"), { maxLength: 4 }),
    fc.dictionary(
      fc.oneof(
        wild,
        fc.constantFrom("threadId", "message", "content", "entry", "data", "webSearch"),
      ),
      tie("value"),
      { maxKeys: 5 },
    ),
  ),
})).value;

const LARGE = [
  "[".repeat(60_000),
  `{"a":${"[".repeat(31)}1${"]".repeat(31)}}`,
  `{"message":{"content":${"9".repeat(5_000)}}}`,
  `{"message":{"content":1e999}}`,
  JSON.stringify(Object.fromEntries(Array.from({ length: 10_000 }, (_, i) => [`k${i}`, i]))).slice(
    0,
    65_000,
  ),
  JSON.stringify(Object.fromEntries(Array.from({ length: 4_000 }, (_, i) => [`k${i}`, i]))),
  '{"message":{"content":"\\ud800"}}',
  '{"message":{"content":"a\\u0000b"}}',
];

const bodies = fc.oneof(
  values.map((value) => JSON.stringify(value)),
  fc.constantFrom(...LARGE),
  fc.uint8Array({ maxLength: 200 }),
  fc.string(),
);

/** Header values are what a server can receive: Latin-1 without controls. */
const headerValues = fc.oneof(
  fc.string({ unit: "binary" }).map((text) => text.replaceAll(/[^\x20-\x7e\xa0-\xff]/gu, "")),
  fc.constantFrom(ORIGIN, "null", "application/json", "Bearer x", "9".repeat(400), "-1", ","),
  fc.constant("a,".repeat(8_000)),
);
const headers = fc.dictionary(
  fc.constantFrom(
    "origin",
    "content-type",
    "content-encoding",
    "x-forwarded-for",
    "x-request-id",
    "traceparent",
    "authorization",
    "idempotency-key",
    "last-event-id",
    "x-hub-signature-256",
  ),
  headerValues,
);
const queries = fc.oneof(
  fc.constantFrom("", "?", "?%", "?%ZZ=%E0%A4", "?streamId=a&streamId=b", "?__proto__=1"),
  fc.constant(`?streamId=${"x".repeat(20_000)}`),
  fc.webQueryParameters().map((text) => `?${text}`),
);

const requests = fc.record({
  path: fc.oneof(
    { weight: 4, arbitrary: fc.constantFrom(...paths()) },
    fc.webPath().map((path) => (path.startsWith("/") ? path : `/${path}`)),
  ),
  method: fc.constantFrom("GET", "POST", "HEAD", ...METHODS),
  query: queries,
  headers,
  body: bodies,
  sound: fc.boolean(),
  identity: fc.constantFrom("alice", null, "throws"),
});

test("no input gives an answer that nobody classified", async () => {
  await fc.assert(
    fc.asyncProperty(requests, async (drawn) => {
      const { send } = testSite({ identity: drawn.identity });
      const bodiless = drawn.method === "GET" || drawn.method === "HEAD";
      const request = at(`${drawn.path}${drawn.query}`, {
        method: drawn.method,
        headers: {
          ...drawn.headers,
          ...(drawn.sound ? { "content-type": "application/json" } : {}),
        },
        ...(bodiless ? {} : { body: drawn.body as BodyInit }),
      });
      const response = await send(request);
      expect(response.headers.get("x-request-id")).toMatch(/^[A-Za-z0-9._-]{1,64}$/);
      if (response.status < 400) return;
      const code = response.headers.get("x-error-code");
      expect(isErrorCode(code) && errorSpec(code).status).toBe(response.status);
      expect(code).not.toBe("internal_error");
      if (request.method === "HEAD") return;
      const problem = (await response.json()) as Problem;
      expect([problem.code, problem.status]).toEqual([code, response.status]);
      expect(JSON.stringify(problem).length).toBeLessThan(16_000);
    }),
    { numRuns: RUNS },
  );
});

test("no route refuses with a code that its row does not list", async () => {
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...ROUTE_IDS), requests, async (id, drawn) => {
      const row = routeRow(id);
      const { send } = testSite({ identity: drawn.identity });
      const init =
        row.method === "GET"
          ? { headers: drawn.headers }
          : {
              method: "POST",
              body: drawn.body as BodyInit,
              headers: { ...drawn.headers, "content-type": "application/json" },
            };
      const response = await send(at(`${row.path}${drawn.query}`, init));
      const code = response.headers.get("x-error-code");
      if (code !== null) expect(errorCodesOf(row)).toContain(code);
    }),
    { numRuns: RUNS },
  );
});
