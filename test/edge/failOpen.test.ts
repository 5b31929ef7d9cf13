/** What happens to a limit that cannot be had, by what its row in the route table declares. */
import fc from "fast-check";
import type { FunctionReference } from "convex/server";
import { convexTest } from "convex-test";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { gmailPush } from "../../convex/integrations/gmailHttp";
import { whatsappReceive } from "../../convex/integrations/whatsappHttp";
import { api, internal } from "../../convex/_generated/api";
import type { ActionCtx } from "../../convex/_generated/server";
import * as Budgets from "../../convex/model/budgets";
import * as Limits from "../../convex/model/limits";
import schema from "../../convex/schema";
import { errorData } from "../../src/errors/appError";
import * as Routes from "../../src/http/routes";
import { platformIo } from "../../src/providers/io";
import { TEXT_DELIVERY } from "../vectors/whatsappDeliveries";
import { settleAll, START_MS, useStillClock } from "./backend";
import { admit, newThread } from "./chat";
import { postChat } from "./chatRoute";

const modules = import.meta.glob(["/convex/**/*.{ts,js}", "!/convex/**/*.test.ts"]);
const backend = () => convexTest({ schema, modules });
type Backend = ReturnType<typeof backend>;

const TOKEN_BUDGET = "chat_tokens_day";

useStillClock();
beforeEach(() => {
  vi.spyOn(console, "log").mockImplementation(() => undefined);
  // The pauses between tries, whose jitter is then zero, are not waited for; others are.
  vi.spyOn(Math, "random").mockReturnValue(0);
  const { sleep } = platformIo;
  vi.spyOn(platformIo, "sleep").mockImplementation(async (ms, signal) => {
    if (ms > 0) await sleep(ms, signal);
  });
  vi.stubEnv("OPENROUTER_API_KEY", "key");
  vi.stubEnv("OPENROUTER_BASE_URL", "http://provider.test");
  vi.stubGlobal("fetch", async () => new Response(SAID, { headers: EVENT_STREAM }));
  return () => vi.unstubAllGlobals();
});

const EVENT_STREAM = { "content-type": "text/event-stream" };
const SAID =
  [
    { choices: [{ delta: { content: "Hello" } }] },
    { choices: [{ delta: {}, finish_reason: "stop" }] },
    { choices: [], usage: { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 } },
  ]
    .map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`)
    .join("") + "data: [DONE]\n\n";

/** Declares in the route table which limits let through what they lost; all others reject. */
function declareAllow(...names: readonly string[]): void {
  const real = { ...Routes }.routeRow;
  vi.spyOn(Routes, "routeRow").mockImplementation((id) => {
    const row = real(id);
    const guards = row.guards.map((guard): Routes.LimitGuard => ({
      ...guard,
      onFault: names.includes(guard.name) ? "allow" : "reject",
    }));
    return { ...row, guards };
  });
}

/** Tries of an admission. */
const TRIES = 3;

/** A transaction that looks at one of these limits is lost, the first `losses` times. */
function contend(names: readonly string[], losses = Infinity): void {
  let lost = 0;
  const lookAt = (name: string, table: string): void => {
    if (!names.includes(name) || lost >= losses) return;
    lost += 1;
    throw new Error(
      `Documents read from or written to the "${table}" table changed while this mutation was being run and on every subsequent retry.`,
    );
  };
  const { check } = { ...Limits };
  vi.spyOn(Limits, "check").mockImplementation(async (...args) => {
    const decision = await check(...args);
    if (decision.source !== "degraded") lookAt(args[1].name, "limits");
    return decision;
  });
  const { load } = { ...Budgets };
  vi.spyOn(Budgets, "load").mockImplementation(async (...args) => {
    lookAt(TOKEN_BUDGET, "tokenBudgets");
    return await load(...args);
  });
}

/** What the handlers use of an action's context, over the test backend. */
function actionCtx(t: Backend): ActionCtx {
  type Args = Record<string, unknown>;
  const calls = {
    runQuery: (reference: FunctionReference<"query", "internal">, args: Args) =>
      t.query(reference, args),
    runMutation: (reference: FunctionReference<"mutation", "internal">, args: Args) =>
      t.mutation(reference, args),
    scheduler: {
      runAfter: (ms: number, reference: FunctionReference<"mutation", "internal">, args: Args) =>
        t.run((ctx) => ctx.scheduler.runAfter(ms, reference, args)),
    },
  };
  return calls as unknown as ActionCtx;
}

const webhook = (body: unknown) => ({
  url: new URL("https://ballast.test/"),
  body,
  client: { key: "address:7" },
  nowMs: START_MS,
});

const PUSH = {
  message: { data: btoa(JSON.stringify({ emailAddress: "dana@example.com", historyId: "42" })) },
};

async function streamAnswer(t: Backend): Promise<null> {
  const threadId = await newThread(t, "hi");
  const dana = t.withIdentity({ subject: "dana" });
  await dana.action(api.chat.streamAnswer, { threadId });
  return null;
}

interface Admission {
  readonly what: string;
  readonly limits: readonly string[];
  readonly go: (t: Backend) => Promise<Response | null>;
}

const limitsOf = (id: Routes.RouteId) => Routes.routeRow(id).guards.map(({ name }) => name);

const CHAT: Admission = {
  what: "a chat turn",
  limits: limitsOf("chatPost"),
  go: (t) => postChat(actionCtx(t), "address:7"),
};
const WHATSAPP: Admission = {
  what: "a WhatsApp delivery",
  limits: limitsOf("whatsappReceive"),
  go: (t) => whatsappReceive(actionCtx(t), webhook(TEXT_DELIVERY)),
};
const ADMISSIONS: readonly Admission[] = [
  CHAT,
  {
    what: "a turn by action",
    // It comes from no address that could be limited.
    limits: limitsOf("chatPost").filter((name) => name !== "chat_address"),
    go: streamAnswer,
  },
  {
    what: "a Gmail push",
    limits: limitsOf("gmailPush"),
    go: (t) => gmailPush(actionCtx(t), webhook(PUSH)),
  },
  WHATSAPP,
];

/** Runs an admission to the end of what it started: what it was refused with, and what it left. */
async function outcomeOf(t: Backend, { go }: Admission) {
  let code: string | null = null;
  let response: Response | null = null;
  try {
    response = await go(t);
    await response?.text();
  } catch (error) {
    code = errorData(error).code;
  }
  // What contends does so while the admission is tried; settlements have their own tests.
  vi.mocked(Budgets.load).mockRestore();
  await settleAll(t);
  const rows = await t.run(async (ctx) => ({
    limits: await ctx.db.query("limits").take(20),
    events: await ctx.db.query("rateLimitEvents").take(20),
    sessions: await ctx.db.query("streamSessions").take(2),
  }));
  return {
    code,
    response,
    /** Names of the limits that something was taken from. */
    taken: rows.limits.map(({ k }) => k.slice(0, k.indexOf(":"))).sort(),
    /** The budget of tokens, where a turn reserved some of it. */
    reserved: rows.sessions.some(({ reservedTokens }) => reservedTokens > 0) ? [TOKEN_BUDGET] : [],
    events: rows.events.map(({ bucket, count, outcome }) => ({ bucket, outcome, count })),
  };
}

const CASES = ADMISSIONS.flatMap((admission) =>
  admission.limits.map((name) => ({ admission, name, what: `${admission.what}: ${name}` })),
);

describe("an admission lost to contention on a limit", () => {
  test.each(CASES)(
    "that is declared `allow` goes ahead without it, and counts that once ($what)",
    async ({ admission, name }) => {
      const t = backend();
      declareAllow(name);
      contend([name]);
      const { code, events, reserved, taken } = await outcomeOf(t, admission);
      expect(code).toBeNull();
      expect(events).toEqual([{ bucket: name, outcome: "degraded", count: 1 }]);
      const others = admission.limits.filter((other) => other !== name);
      expect([...taken, ...reserved].sort()).toEqual([...others].sort());
    },
  );

  test.each(CASES)(
    "that is declared `reject` is refused and takes nothing, whatever the others are ($what)",
    async ({ admission, name }) => {
      const t = backend();
      declareAllow(...admission.limits.filter((other) => other !== name));
      contend([name]);
      const { code, events, taken } = await outcomeOf(t, admission);
      expect(code).toBe(name === TOKEN_BUDGET ? "overloaded" : "rate_limit_unavailable");
      expect(events).toMatchObject([{ outcome: "contention_fallback", count: 1 }]);
      expect(taken).toEqual([]);
    },
  );

  test("is refused as the route table stands", async () => {
    for (const { admission, name } of CASES) {
      const t = backend();
      contend([name]);
      expect((await outcomeOf(t, admission)).code).not.toBeNull();
      vi.mocked(Limits.check).mockRestore();
    }
  });

  test("never skips what is declared `reject`, and nothing before the last try", async () => {
    const history = fc
      .record({
        admission: fc.constantFrom(...ADMISSIONS),
        losses: fc.integer({ min: 0, max: 3 }),
      })
      .chain(({ admission, losses }) =>
        fc.record({
          admission: fc.constant(admission),
          losses: fc.constant(losses),
          allowed: fc.subarray([...admission.limits]),
          contended: fc.subarray([...admission.limits], { minLength: 1 }),
        }),
      );
    await fc.assert(
      fc.asyncProperty(history, async ({ admission, allowed, contended, losses }) => {
        declareAllow(...allowed);
        contend(contended, losses);
        const { code, events, reserved, taken } = await outcomeOf(backend(), admission);
        vi.mocked(Limits.check).mockRestore();
        vi.mocked(Routes.routeRow).mockRestore();
        const isLastTry = losses >= TRIES - 1;
        const admitted = losses < TRIES || contended.every((name) => allowed.includes(name));
        expect(code === null).toBe(admitted);
        if (!admitted) expect([taken, events.length]).toEqual([[], 1]);
        if (!admitted) return;
        const skipped = isLastTry ? allowed : [];
        const expected = admission.limits.filter((name) => !skipped.includes(name));
        expect([...taken, ...reserved].sort()).toEqual([...expected].sort());
        expect(events.map(({ bucket, outcome }) => [bucket, outcome]).sort()).toEqual(
          skipped.map((name) => [name, "degraded"]).sort(),
        );
      }),
      { numRuns: 150 },
    );
  });

  test("and then refused by another one has not gone ahead, and is not counted", async () => {
    vi.stubEnv("RATE_LIMIT_CHAT_STREAM_MAX", "1");
    const t = backend();
    await admit(t);
    declareAllow("global");
    contend(["global"]);
    const { code, events } = await outcomeOf(t, CHAT);
    expect([code, events]).toEqual([
      "rate_limited",
      [{ bucket: "chat_stream", outcome: "blocked", count: 1 }],
    ]);
  });
});

describe("a limit that was left out", () => {
  test.each([
    [CHAT, "chat_stream", /^"chat_stream";q=30;w=300$/, /^"chat_stream";r=0;t=300$/],
    [
      WHATSAPP,
      "whatsapp_webhook",
      /^"whatsapp_webhook";q=120;w=60, "global";q=\d+;w=60$/,
      /^"whatsapp_webhook";r=0;t=60, "global";r=[1-9]\d*;t=\d+$/,
    ],
  ])("is told of as one of which nothing is left", async (admission, name, policy, left) => {
    declareAllow(name);
    contend([name]);
    const { response } = await outcomeOf(backend(), admission);
    expect(response?.headers.get("ratelimit-policy")).toMatch(policy);
    expect(response?.headers.get("ratelimit")).toMatch(left);
  });

  test("is in the sums and in the snapshot", async () => {
    const t = backend();
    declareAllow("chat_stream", "global");
    contend(["global"]);
    await outcomeOf(t, CHAT);
    const counted = { "chat_stream:degraded": 1, "global:degraded": 1 };
    expect(await t.query(internal.rateLimit.getEventSummary, {})).toMatchObject({
      total: 2,
      byBucketOutcome: counted,
      bySourceBucketOutcome: { "guard:chat_stream:degraded": 1, "guard:global:degraded": 1 },
    });
    const { rateLimitPressure } = await t.query(internal.ops.getReliabilitySnapshot, {});
    expect(rateLimitPressure.byBucketOutcome).toEqual(counted);
  });

  test("of tokens reserves none: the day is charged when the turn is settled", async () => {
    const t = backend();
    declareAllow(TOKEN_BUDGET);
    contend([TOKEN_BUDGET]);
    const { reserved } = await outcomeOf(t, CHAT);
    expect(reserved).toEqual([]);
    const budgets = await t.run((ctx) => ctx.db.query("tokenBudgets").take(2));
    expect(budgets).toMatchObject([{ userId: "dana", tokens: 3 }]);
  });
});
