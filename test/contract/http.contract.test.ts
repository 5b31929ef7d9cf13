import fc from "fast-check";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { knobRow } from "../../src/config/knobs";
import { HOUR } from "../../src/core/time";
import { isErrorCode } from "../../src/errors/table";
import { errorCodesOf } from "../../src/http/guards";
import { ROUTE_IDS, type RouteId, routeRow, type RouteRow } from "../../src/http/routes";
import { parseFrames, startOf, terminals } from "../e2e/sse";
import { problemOf, type WireAnswer } from "../e2e/wire";
import { type Description, description } from "./answers";
import { REFUSALS } from "./refusals";
import { type Ask, openSurface, type Surface } from "./surface";

let surface: Surface;
let described: Description;
beforeAll(async () => {
  // Lines of the stub site, whose log is this process's own.
  vi.spyOn(console, "log").mockImplementation(() => undefined);
  surface = await openSurface();
  described = description((await surface.ask("openapi")).text);
});
afterAll(async () => {
  vi.restoreAllMocks();
  await surface.backend.close();
});
afterEach(async () => {
  await surface.restore();
});

const rows: readonly (readonly [RouteId, RouteRow])[] = ROUTE_IDS.map((id) => [id, routeRow(id)]);

/** What differs from a good request where another success is declared. */
const otherSuccess = (id: RouteId, status: number): Ask =>
  id === "chatStream" && status === 204
    ? { headers: { "last-event-id": surface.lastEventId } }
    : {};

describe.each(rows)("%s succeeds", (id, row) => {
  test.each(row.success)("with $status: $description", async (declared) => {
    const answer = await surface.ask(id, otherSuccess(id, declared.status));
    expect(answer.status).toBe(declared.status);
    described.expectDescribed(id, answer);
    if (declared.contract !== null) declared.contract.parse(JSON.parse(answer.text));
    if (declared.contentType === "text/event-stream")
      expect(terminals(parseFrames(answer.text)).map(({ event }) => event.type)).toEqual(["done"]);
    const { headers } = answer;
    expect([headers["x-error-code"], headers["x-idempotent-replay"]]).toEqual([
      undefined,
      undefined,
    ]);
    if (!declared.headers.includes("RateLimit")) return;
    expect(headers["ratelimit-policy"]).toMatch(/^"\w+";q=\d+;w=\d+/);
    expect(headers["ratelimit"]).toMatch(/^"\w+";r=\d+;t=\d+/);
  });
});

describe("what was accepted before is answered once more, and says so", () => {
  const replaying = rows.filter(([, { success }]) =>
    success.some(({ headers }) => headers.includes("X-Idempotent-Replay")),
  );

  test.each(replaying)("%s", async (id) => {
    const same = { ...surface.good(id), headers: { "idempotency-key": `again-${id}` } };
    const [first, second] = [await surface.ask(id, same), await surface.ask(id, same)];
    const replayed = [first, second].map(({ headers }) => headers["x-idempotent-replay"]);
    expect([first.status, second.status, ...replayed]).toEqual([200, 200, undefined, "1"]);
    described.expectDescribed(id, second);
    if (id === "chatPost")
      expect(startOf(parseFrames(second.text))).toEqual(startOf(parseFrames(first.text)));
  });
});

/** Codes that a request cannot be made to bring about, but a used up limit or a lost race. */
const LIMITED = ["rate_limited", "rate_limit_unavailable", "overloaded"];

describe.each(rows)("%s refuses", (id, row) => {
  test.each(errorCodesOf(row).filter((code) => !LIMITED.includes(code)))(
    "with %s",
    async (code) => {
      const answer = await REFUSALS[code]?.({ surface, id, row });
      if (answer === undefined) throw new Error(`nobody knows how ${code} comes about`);
      described.expectRefused(id, answer, code);
      expect(answer.text).not.toContain("canary");
    },
  );

  // Every limit of the row is reached by itself, with nothing else in the way.
  test.each(row.guards)("at its limit $name", async ({ name, knobs }) => {
    const [most, window] = knobs;
    if (most === undefined) throw new Error("a limit has a knob");
    const knob = knobRow(most);
    if (knob.kind !== "int") throw new Error("a limit is a number");
    await surface.set({
      [most]: String(knob.min),
      ...(window === undefined ? {} : { [window]: String(HOUR) }),
    });
    const users = name === "chat_stream" || name === "chat_tokens_day" ? ["ann"] : ["bob", "cleo"];
    let answer: WireAnswer | null = null;
    for (const user of [...users, ...users]) answer = await surface.ask(id, { user });
    if (answer === null) throw new Error("nothing was asked");
    described.expectRefused(id, answer, "rate_limited");
    expect(answer.headers["ratelimit-policy"]).toMatch(new RegExp(`^"${name}";q=${knob.min};w=`));
    const [, resetS = ""] = /^"\w+";r=0;t=(\d+)$/.exec(answer.headers["ratelimit"] ?? "") ?? [];
    expect(Number(answer.headers["retry-after"])).toBeGreaterThanOrEqual(Number(resetS));
  });
});

test.each(["rate_limit_unavailable", "overloaded"] as const)(
  "every limited route answers %s when it loses every race",
  async (code) => {
    const limited = rows.filter(([, row]) => errorCodesOf(row).includes(code));
    expect(limited.map(([id]) => id)).toEqual(
      rows.filter(([, { guards }]) => guards.length > 0).map(([id]) => id),
    );
    const answers = await Promise.all(
      limited.map(async ([id, row]) => [id, await REFUSALS[code]?.({ surface, id, row })] as const),
    );
    for (const [id, answer] of answers) {
      if (answer === undefined) throw new Error(`nobody knows how ${code} comes about`);
      described.expectRefused(id, answer, code);
    }
  },
);

describe("whatever it is sent, a route answers what it declares", () => {
  const wild = fc.oneof(
    fc.string({ unit: "grapheme", maxLength: 30 }),
    fc.constantFrom("", "\0", "constructor", "__proto__", "x".repeat(5_000), "1e400", "../x"),
  );
  const ascii = wild.map((text) => text.replaceAll(/[^\x21-\x7e]/g, "").slice(0, 1_000));
  const leaf = fc.oneof(wild, fc.constantFrom(null, true, -1, 0.5, 1e300));
  const FIELDS = [
    "message",
    "content",
    "threadId",
    "messageId",
    "streamId",
    "entry",
    "changes",
    "data",
  ];
  const { value: json } = fc.letrec<{ value: unknown }>((tie) => ({
    value: fc.oneof(
      { maxDepth: 4, withCrossShrink: true },
      leaf,
      fc.array(tie("value"), { maxLength: 3 }),
      fc.dictionary(fc.oneof(fc.constantFrom(...FIELDS), ascii), tie("value"), { maxKeys: 4 }),
    ),
  }));
  const bodies = fc.oneof(
    json.map((value) => JSON.stringify(value)),
    json.map((value) => JSON.stringify({ message: { content: value } })),
    json.map((value) => JSON.stringify({ message: { data: base64(JSON.stringify(value)) } })),
    wild,
  );
  const headers = fc.dictionary(
    fc.constantFrom(
      "origin",
      "content-type",
      "idempotency-key",
      "last-event-id",
      "traceparent",
      "x-request-id",
      "x-forwarded-for",
      "content-encoding",
      "authorization",
    ),
    ascii,
    { maxKeys: 3 },
  );
  const queries = fc
    .dictionary(fc.constantFrom("streamId", "lastEventId", "hub.mode", "hub.challenge", "x"), wild)
    .map((query) => `?${new URLSearchParams(query).toString()}`);

  test.each(rows)("%s", async (id, row) => {
    const request = fc.record(
      {
        headers,
        query: queries,
        user: fc.constantFrom("alice", null),
        ...(row.body === null ? {} : { body: bodies }),
      },
      { requiredKeys: [] },
    );
    const samples = fc.sample(request, { numRuns: FUZZ_RUNS, seed: 20_261_121 });
    const answers = await Promise.all(samples.map((one) => surface.ask(id, one)));
    for (const [i, answer] of answers.entries()) {
      described.expectDescribed(id, { ...answer, headers: { ...answer.headers, ...OWN_ID } });
      if (answer.status < 400) continue;
      const { code } = problemOf(answer);
      expect([samples[i], isErrorCode(code) && errorCodesOf(row).includes(code)]).toEqual([
        samples[i],
        true,
      ]);
      expect([samples[i], code]).not.toEqual([samples[i], "internal_error"]);
    }
  });
});

const base64 = (text: string): string => Buffer.from(text).toString("base64");

const FUZZ_RUNS = 40;
/** A caller may choose its request id, and its trace. */
const OWN_ID = {
  "x-request-id": "0".repeat(32),
  traceparent: `00-${"1".repeat(32)}-${"1".repeat(16)}-01`,
};
