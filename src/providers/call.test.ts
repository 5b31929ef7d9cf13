import * as fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { AppError, errorData } from "../errors/appError";
import {
  type Admission,
  callProvider,
  type CallIo,
  type Gate,
  type ProviderRequest,
  RESPONSE_BYTES_MAX,
} from "./call";
import type { Outcome } from "./outcome";
import { readSetting } from "./settings";
import { PROVIDERS, statusVerdict } from "./table";
import { EPOCH_MS, type FetchScript, HANG, jsonResponse, scriptedBody, virtualIo } from "./testing";

const ENV = { SERPER_API_KEY: "key-of-the-test-1234", SERPER_BASE_URL: "https://serper.example/" };
const DEADLINE_MS = readSetting({}, PROVIDERS.serper_search.deadlineMs);
const ATTEMPT_MS = PROVIDERS.serper_search.attemptMs;
const CONFLICT = new Error(
  'OptimisticConcurrencyControlFailure: Documents read from or written to the "slots" table changed',
);

interface Setup {
  readonly admissions?: (Admission | Error)[];
  readonly budget?: boolean | Error;
  readonly settle?: Error;
  readonly lost?: Error;
  readonly env?: Record<string, string>;
  readonly random?: number;
  readonly signal?: AbortSignal;
}

function setUp(script: FetchScript, setup: Setup = {}) {
  const { io, pendingTimers, run } = virtualIo(script, setup.random ?? 0.5);
  const settled: { permit: unknown; outcome: Outcome }[] = [];
  const asked = { admissions: 0, budget: 0 };
  const lost: string[] = [];
  const answers = setup.admissions ?? [];
  const gate: Gate = {
    async admit() {
      const answer = answers[asked.admissions++] ?? { ok: true, permit: "permit-1" };
      if (answer instanceof Error) throw answer;
      return answer;
    },
    async mayRetry() {
      asked.budget++;
      if (setup.budget instanceof Error) throw setup.budget;
      return setup.budget ?? true;
    },
    async settle(permit, outcome) {
      settled.push({ permit, outcome });
      if (setup.settle !== undefined) throw setup.settle;
    },
    async lost(provider) {
      lost.push(provider);
      if (setup.lost !== undefined) throw setup.lost;
    },
  };
  const callIo: CallIo = {
    ...io,
    env: setup.env ?? ENV,
    ...(setup.signal === undefined ? {} : { signal: setup.signal }),
  };
  const call = async (fields: Partial<ProviderRequest<unknown>> = {}) => {
    const request: ProviderRequest<unknown> = {
      provider: "serper_search",
      method: "GET",
      path: "/search",
      parse: ({ json }) => json,
      ...fields,
    };
    const result = await run(
      callProvider(gate, request, callIo).then(
        (value) => ({ value, error: null }),
        (error: unknown) => ({ value: null, error: errorData(error) }),
      ),
    );
    expect(pendingTimers()).toBe(0);
    return { ...result, outcome: settled[0]?.outcome };
  };
  return { call, io, settled, asked, lost };
}

const always =
  (status: number, headers: Record<string, string> = {}): FetchScript =>
  async () =>
    jsonResponse({ error: "a secret word" }, { status, headers });
const failing =
  (times: number, status = 503): FetchScript =>
  async (call) =>
    call <= times ? jsonResponse({}, { status }) : jsonResponse({ fine: true });

describe("an answer that is no longer wanted", () => {
  const WANTED_NO_MORE = { code: "upstream_timeout", detail: "The answer was no longer wanted." };

  test("is not asked for", async () => {
    const { asked, call, io } = setUp(always(200), { signal: AbortSignal.abort() });
    expect((await call()).error).toEqual(WANTED_NO_MORE);
    expect([asked.admissions, io.requests.length]).toEqual([0, 0]);
  });

  test("is not waited for, and nobody is blamed", async () => {
    const wanted = new AbortController();
    const hangs: FetchScript = async () => {
      wanted.abort();
      return await new Promise<Response>(() => undefined);
    };
    const { call, io } = setUp(hangs, { signal: wanted.signal });
    const { error, outcome } = await call();
    expect(error).toEqual(WANTED_NO_MORE);
    expect(outcome).toMatchObject({ kind: "neutral", attempts: 1, latencyMs: 0 });
    expect(io.requests[0]?.init.signal?.aborted).toBe(true);
  });

  test("is not asked for again; what went wrong before counts", async () => {
    const wanted = new AbortController();
    const fails: FetchScript = async (_, __, io) => {
      void io.sleep(1).then(() => {
        wanted.abort();
      });
      return jsonResponse({}, { status: 503 });
    };
    const { call, io } = setUp(fails, { signal: wanted.signal });
    expect((await call()).outcome).toMatchObject({ kind: "failure", attempts: 1 });
    expect(io.requests).toHaveLength(1);
  });
});

describe("one attempt", () => {
  test("asks the address of the knob, admits once and settles once", async () => {
    const { asked, call, io, settled } = setUp(async () => jsonResponse({ fine: true }));
    const { value } = await call({ path: "/search?q=a", headers: { "X-API-KEY": "k" } });
    expect(value).toEqual({ fine: true });
    expect(io.requests.map((request) => request.url)).toEqual([
      "https://serper.example/search?q=a",
    ]);
    expect(io.requests[0]?.init).toMatchObject({ method: "GET", redirect: "manual" });
    expect(asked).toEqual({ admissions: 1, budget: 0 });
    expect(settled).toEqual([
      { permit: "permit-1", outcome: { kind: "success", code: null, latencyMs: 0, attempts: 1 } },
    ]);
  });

  test.each([
    [400, "upstream_bad_request", "neutral"],
    [401, "upstream_auth", "neutral"],
    [402, "upstream_quota_exceeded", "neutral"],
    [403, "upstream_auth", "neutral"],
    [404, "upstream_bad_request", "neutral"],
    [408, "upstream_timeout", "failure"],
    [409, "upstream_error", "neutral"],
    [422, "upstream_bad_request", "neutral"],
    [425, "upstream_unavailable", "failure"],
    [429, "upstream_rate_limited", "failure"],
    [500, "upstream_unavailable", "failure"],
    [502, "upstream_unavailable", "failure"],
    [503, "upstream_unavailable", "failure"],
    [504, "upstream_unavailable", "failure"],
    [302, "upstream_error", "success"],
  ])("status %i is %s and counts as %s", async (status, code, kind) => {
    const { call } = setUp(always(status), { budget: false });
    const { error, outcome } = await call();
    expect(error?.code).toBe(code);
    expect(outcome).toMatchObject({ kind, code });
    // The provider's own words go to nobody.
    expect(JSON.stringify([error, outcome])).not.toContain("secret");
  });

  test("every status counts as the table's rule says", () => {
    for (let status = 200; status < 600; status++) {
      const failure = [408, 425, 429].includes(status) || status >= 500;
      const expected = status < 400 ? "success" : failure ? "failure" : "neutral";
      expect([status, statusVerdict(status)]).toEqual([status, expected]);
    }
  });

  test("an error's body is closed unread", async () => {
    let body = { wasCancelled: () => false };
    const { call } = setUp(
      async (_, __, io) => {
        const scripted = scriptedBody([HANG], io);
        body = scripted;
        return new Response(scripted.stream, { status: 500 });
      },
      { budget: false },
    );
    expect((await call()).outcome).toMatchObject({ kind: "failure", latencyMs: 0 });
    expect(body.wasCancelled()).toBe(true);
  });

  test("a status the caller accepts is read by it, and still classified", async () => {
    const { call } = setUp(async () => jsonResponse({ error: "invalid_grant" }, { status: 400 }));
    const { outcome, value } = await call({ acceptStatuses: [400] });
    expect(value).toEqual({ error: "invalid_grant" });
    expect(outcome).toMatchObject({ kind: "neutral", code: null });
  });

  test("a connection that is refused is unavailable", async () => {
    const { call } = setUp(
      async () => {
        throw new TypeError("connect ECONNREFUSED a secret address");
      },
      { budget: false },
    );
    const { error, outcome } = await call();
    expect(error).toMatchObject({ code: "upstream_unavailable" });
    expect(JSON.stringify(error)).not.toContain("secret");
    expect(outcome?.kind).toBe("failure");
  });

  test.each<[string, FetchScript]>([
    ["no headers", async () => await new Promise(() => undefined)],
    [
      "a body that stops",
      async (_, __, io) => new Response(scriptedBody(['{"a":', HANG], io).stream),
    ],
  ])("%s is a timeout, also when the request cannot be aborted", async (_, script) => {
    const { call, io } = setUp(script, { budget: false });
    const { error, outcome } = await call();
    expect(error?.code).toBe("upstream_timeout");
    expect(outcome).toMatchObject({ kind: "failure", latencyMs: ATTEMPT_MS });
    expect(io.requests[0]?.init.signal?.aborted).toBe(true);
  });

  test("an answer that is not what the provider documents is a failure of the provider", async () => {
    const { call, io } = setUp(async () => new Response("<html>a secret word</html>"));
    const { error, outcome } = await call();
    expect(error).toMatchObject({ code: "upstream_error" });
    expect(JSON.stringify(error)).not.toContain("secret");
    expect(outcome).toMatchObject({ kind: "failure", code: "upstream_error" });
    expect(io.requests).toHaveLength(1);
  });

  test("a bug in reading the answer is ours and blames nobody", async () => {
    const { call, settled } = setUp(async () => jsonResponse({}));
    const { error } = await call({
      parse: () => {
        throw new RangeError("a bug");
      },
    });
    expect(error?.code).toBe("internal_error");
    expect(settled[0]?.outcome.kind).toBe("infrastructure");
  });

  test("a body is counted while it is read, and cut off when too large", async () => {
    const body = { cancelled: () => false };
    const { call } = setUp(async (_, __, io) => {
      const scripted = scriptedBody(
        Array.from({ length: 64 }, () => "x".repeat(64)),
        io,
      );
      body.cancelled = scripted.wasCancelled;
      return new Response(scripted.stream);
    });
    const { error, outcome } = await call({ responseBytesMax: 1_000 });
    expect(error?.code).toBe("upstream_error");
    expect(outcome?.kind).toBe("failure");
    expect(body.cancelled()).toBe(true);
  });

  test("the bound is exact", async () => {
    const exact = setUp(async () => new Response("x".repeat(RESPONSE_BYTES_MAX)));
    const read = await exact.call({ parse: ({ text }) => text.length });
    expect(read.value).toBe(RESPONSE_BYTES_MAX);
    const over = setUp(async () => new Response("x".repeat(RESPONSE_BYTES_MAX + 1)));
    expect((await over.call({ parse: ({ text }) => text.length })).error?.code).toBe(
      "upstream_error",
    );
  });

  test("text split inside a character is put together", async () => {
    const bytes = new TextEncoder().encode('{"a":"ü🌍"}');
    const { call } = setUp(
      async (_, __, io) =>
        new Response(
          scriptedBody(
            Array.from(bytes, (byte) => Uint8Array.of(byte)),
            io,
          ).stream,
        ),
    );
    expect((await call()).value).toEqual({ a: "ü🌍" });
  });
});

describe("before anything is asked", () => {
  test.each([{}, { SERPER_API_KEY: "" }])("a missing key is misconfigured", async (env) => {
    const { asked, call, io } = setUp(always(200), { env });
    const { error } = await call();
    expect(error?.code).toBe("misconfigured");
    expect([io.requests, asked.admissions]).toEqual([[], 0]);
  });

  test("a refused admission asks nothing, settles nothing and says when to come back", async () => {
    const refusal = { ok: false, code: "upstream_unavailable", retryAfterMs: 4_000 } as const;
    const { call, io, settled } = setUp(always(200), { admissions: [refusal] });
    const { error } = await call();
    expect(error).toMatchObject({ code: "upstream_unavailable", retryAfterMs: 4_000 });
    expect([io.requests, settled]).toEqual([[], []]);
  });

  test("an admission lost to contention is tried once more", async () => {
    const { asked, call } = setUp(async () => jsonResponse({ fine: true }), {
      admissions: [CONFLICT],
    });
    expect((await call()).value).toEqual({ fine: true });
    expect(asked.admissions).toBe(2);
  });

  test("an admission lost twice is overload, counted as that, and no outcome for the provider", async () => {
    const { call, io, lost, settled } = setUp(always(200), { admissions: [CONFLICT, CONFLICT] });
    const { error } = await call();
    expect(error?.code).toBe("overloaded");
    expect([io.requests, settled, lost]).toEqual([[], [], ["serper_search"]]);
  });

  test("one that is lost once, or refused, is not counted as lost", async () => {
    const refusal = { ok: false, code: "overloaded", retryAfterMs: 1_000 } as const;
    const { call, lost } = setUp(always(200), { admissions: [CONFLICT, refusal] });
    expect((await call()).error?.code).toBe("overloaded");
    expect(lost).toEqual([]);
  });

  test("a loss that cannot be counted is a loss all the same", async () => {
    const log = vi.spyOn(console, "log").mockImplementation(() => undefined);
    const admissions = [CONFLICT, CONFLICT];
    const { call } = setUp(always(200), { admissions, lost: new Error("no scheduler") });
    expect((await call()).error?.code).toBe("overloaded");
    expect(log).toHaveBeenCalledOnce();
    log.mockRestore();
  });

  test("another failure of the gate is not repeated", async () => {
    const { asked, call } = setUp(always(200), { admissions: [new AppError("not_found")] });
    expect((await call()).error?.code).toBe("not_found");
    expect(asked.admissions).toBe(1);
  });

  test("a settlement that fails does not cost the answer", async () => {
    const log = vi.spyOn(console, "log").mockImplementation(() => undefined);
    const { call } = setUp(async () => jsonResponse({ fine: true }), { settle: CONFLICT });
    const { value } = await call();
    const lines = log.mock.calls.map(([line]) => JSON.parse(line as string) as unknown);
    log.mockRestore();
    expect(value).toEqual({ fine: true });
    expect(lines).toEqual([
      { event: "provider_settle_failed", provider: "serper_search", code: "overloaded" },
    ]);
  });

  test("a deadline that has passed asks nothing", async () => {
    const { asked, call } = setUp(always(200));
    expect((await call({ deadlineAtMs: EPOCH_MS })).error?.code).toBe("upstream_timeout");
    expect(asked.admissions).toBe(0);
  });

  test("an admission that ate the time blames nobody", async () => {
    const { io, run } = virtualIo(always(200));
    const outcomes: Outcome[] = [];
    const gate: Gate = {
      admit: async () => {
        await io.sleep(DEADLINE_MS);
        return { ok: true, permit: 1 };
      },
      mayRetry: async () => true,
      settle: async (_, outcome) => {
        outcomes.push(outcome);
      },
    };
    const request = { provider: "serper_search", method: "GET", path: "", parse: () => 1 } as const;
    const error = await run(
      callProvider(gate, request, { ...io, env: ENV }).catch((caught: unknown) => caught),
    );
    expect(errorData(error).code).toBe("upstream_timeout");
    expect(outcomes).toMatchObject([{ kind: "infrastructure", attempts: 0 }]);
    expect(io.requests).toEqual([]);
  });
});

describe("retries", () => {
  test("two failures are repeated with full jitter, one settlement in all", async () => {
    const { asked, call, io, settled } = setUp(failing(2));
    expect((await call()).value).toEqual({ fine: true });
    // Half of 250 ms, half of 500 ms.
    expect(io.slept).toEqual([125, 250]);
    expect(asked).toEqual({ admissions: 1, budget: 2 });
    expect(settled).toMatchObject([{ outcome: { kind: "success", attempts: 3 } }]);
  });

  test("at most as many as the row allows", async () => {
    const { call, io } = setUp(always(500));
    const { error, outcome } = await call();
    expect(error?.code).toBe("upstream_unavailable");
    expect(outcome?.attempts).toBe(3);
    expect(io.requests).toHaveLength(3);
  });

  test.each([400, 401, 402, 404, 409, 422])("status %i is not repeated", async (status) => {
    const { call, io } = setUp(always(status));
    await call();
    expect(io.requests).toHaveLength(1);
  });

  test("what is not idempotent is not repeated, and gets the whole deadline", async () => {
    const posted = setUp(always(503));
    await posted.call({ method: "POST", body: "{}" });
    expect(posted.io.requests).toHaveLength(1);
    const hanging = setUp(async () => await new Promise(() => undefined));
    const { outcome } = await hanging.call({ method: "POST", body: "{}" });
    expect(outcome).toMatchObject({ latencyMs: DEADLINE_MS, attempts: 1 });
  });

  test("with a key it is, and the key is the same each time", async () => {
    const { call, io } = setUp(failing(1));
    await call({ method: "POST", body: "{}", idempotencyKey: "once-1" });
    const keys = io.requests.map((request) =>
      new Headers(request.init.headers).get("idempotency-key"),
    );
    expect(keys).toEqual(["once-1", "once-1"]);
  });

  test.each([false, CONFLICT])("a budget that grants nothing (%s) ends it", async (budget) => {
    const { asked, call, io } = setUp(always(503), { budget });
    const { error } = await call();
    expect(error?.code).toBe("upstream_unavailable");
    expect(io.requests).toHaveLength(1);
    expect(asked.budget).toBe(1);
  });

  test("a timeout leaves time for another attempt", async () => {
    const { call } = setUp(async (attempt) =>
      attempt === 1 ? await new Promise(() => undefined) : jsonResponse({ fine: true }),
    );
    const { outcome, value } = await call();
    expect(value).toEqual({ fine: true });
    expect(outcome).toMatchObject({ attempts: 2, latencyMs: 0 });
  });

  test("Retry-After beyond the deadline is passed on instead of waited for", async () => {
    const { call, io } = setUp(always(429, { "retry-after": "60" }));
    const { error } = await call();
    expect(error).toMatchObject({ code: "upstream_rate_limited", retryAfterMs: 60_000 });
    expect([io.requests.length, io.slept]).toEqual([1, []]);
  });

  test("a date that has passed means now", async () => {
    const date = new Date(EPOCH_MS - 60_000).toUTCString();
    const { call } = setUp(always(503, { "retry-after": date }), { budget: false });
    expect((await call()).error?.retryAfterMs).toBe(0);
  });

  test("a date in Retry-After counts from now", async () => {
    const date = new Date(EPOCH_MS + 3_000).toUTCString();
    const { call, io } = setUp(
      async (attempt) =>
        attempt === 1
          ? jsonResponse({}, { status: 503, headers: { "retry-after": date } })
          : jsonResponse({ fine: true }),
      { random: 0 },
    );
    expect((await call()).value).toEqual({ fine: true });
    expect(io.slept).toEqual([3_000]);
  });

  test.each(["soon", "", "-1", "1e3", "2027"])(
    "Retry-After %j never breaks a call",
    async (value) => {
      const { call } = setUp(always(429, { "retry-after": value }), { budget: false });
      expect((await call()).error?.code).toBe("upstream_rate_limited");
    },
  );

  const answers = fc.array(
    fc.oneof(
      fc.record({ status: fc.constantFrom(408, 429, 500, 503), afterS: fc.option(fc.nat(8)) }),
      fc.constant("hang" as const),
      fc.constant("refuse" as const),
    ),
    { minLength: 1, maxLength: 4 },
  );

  test("over any failures: never past the deadline, never earlier than asked for", async () => {
    await fc.assert(
      fc.asyncProperty(
        answers,
        fc.double({ min: 0, max: 0.999, noNaN: true }),
        async (list, random) => {
          const { call, io } = setUp(
            async (attempt) => {
              const answer = list[(attempt - 1) % list.length];
              if (answer === "hang") return await new Promise(() => undefined);
              if (answer === "refuse" || answer === undefined) throw new TypeError("refused");
              const headers = answer.afterS === null ? {} : { "retry-after": `${answer.afterS}` };
              return jsonResponse({}, { status: answer.status, headers });
            },
            { random },
          );
          await call();
          expect(io.now()).toBeLessThanOrEqual(EPOCH_MS + DEADLINE_MS);
          expect(io.requests.length).toBeLessThanOrEqual(3);
          for (const [i, request] of io.requests.entries()) {
            const answer = list[(i - 1) % list.length];
            const previous = io.requests[i - 1];
            if (previous === undefined || typeof answer !== "object" || answer.afterS === null)
              continue;
            expect(request.atMs - previous.atMs).toBeGreaterThanOrEqual(answer.afterS * 1_000);
          }
        },
      ),
      { numRuns: 200 },
    );
  });
});
