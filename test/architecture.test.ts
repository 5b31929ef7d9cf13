import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import crons from "../convex/crons";
import schema from "../convex/schema";

/**
 * What a deployment offers by name. Scripts, operators, clients and scheduled functions call these
 * names, so a line that changes here is a decision about them, not an accident.
 */
const FUNCTIONS = {
  "alerts:claimDue": "internal mutation",
  "alerts:clear": "internal mutation",
  "alerts:listRecent": "internal query",
  "alerts:lookAtProvider": "internal mutation",
  "alerts:raise": "internal mutation",
  "alerts:settleAttempt": "internal mutation",
  "bulkhead:acquireSlot": "internal mutation",
  "bulkhead:cleanupExpiredLeases": "internal mutation",
  "bulkhead:listHeld": "internal query",
  "bulkhead:listInFlightByProvider": "internal query",
  "bulkhead:pickFree": "internal query",
  "bulkhead:releaseSlot": "internal mutation",
  "chat:run": "internal action",
  "chat:streamAnswer": "public action",
  "chatTurns:abort": "internal mutation",
  "chatTurns:admit": "internal mutation",
  "chatTurns:append": "internal mutation",
  "chatTurns:cleanupExpired": "internal mutation",
  "chatTurns:read": "internal query",
  "chatTurns:reap": "internal mutation",
  "chatTurns:settle": "internal mutation",
  "chatTurns:switchRoute": "internal mutation",
  "circuitBreaker:checkGate": "internal mutation",
  "circuitBreaker:listStatuses": "internal query",
  "circuitBreaker:poolTallies": "internal query",
  "circuitBreaker:recordFailure": "internal mutation",
  "circuitBreaker:recordSuccess": "internal mutation",
  "circuitBreaker:setState": "internal mutation",
  "idempotency:claimKey": "internal mutation",
  "idempotency:claimNonce": "internal mutation",
  "idempotency:cleanupExpired": "internal mutation",
  "idempotency:completeKey": "internal mutation",
  "idempotency:duplicateRows": "internal query",
  "idempotency:failKey": "internal mutation",
  "idempotency:listRecentByScope": "internal query",
  "integrations/gmail:accept": "internal mutation",
  "integrations/gmail:applyNotification": "internal mutation",
  "integrations/gmail:listHistoryChanges": "internal query",
  "integrations/googleKeys:beginRefresh": "internal mutation",
  "integrations/googleKeys:read": "internal query",
  "integrations/googleKeys:save": "internal mutation",
  "integrations/inbox:cleanupExpired": "internal mutation",
  "integrations/inbox:listDeadLetters": "internal query",
  "integrations/inbox:processJobs": "internal mutation",
  "integrations/inbox:requeueDeadLetter": "internal mutation",
  "integrations/whatsapp:accept": "internal mutation",
  "integrations/whatsapp:acceptParts": "internal mutation",
  "integrations/whatsapp:applyEvent": "internal mutation",
  "integrations/whatsapp:applyPart": "internal mutation",
  "integrations/whatsapp:listStoredMessages": "internal query",
  "messages:abort": "public mutation",
  "messages:deleteAfter": "public mutation",
  "messages:list": "public query",
  "messages:send": "public mutation",
  "messages:update": "public mutation",
  "metrics:fold": "internal mutation",
  "metrics:rateOf": "internal query",
  "metrics:read": "internal query",
  "ops:getReliabilitySnapshot": "internal query",
  "outbound:admit": "internal mutation",
  "outbound:admitOnce": "internal mutation",
  "outbound:loadToken": "internal query",
  "outbound:mayRetry": "internal query",
  "outbound:settle": "internal mutation",
  "outbound:storeToken": "internal mutation",
  "rateLimit:check": "internal mutation",
  "rateLimit:checkAndIncrement": "internal mutation",
  "rateLimit:cleanupExpired": "internal mutation",
  "rateLimit:getEventSummary": "internal query",
  "rateLimit:listRecentAlerts": "internal query",
  "rateLimit:listRecentEvents": "internal query",
  "rateLimit:monitorAndAlert": "internal mutation",
  "rateLimit:pickShard": "internal query",
  "rateLimit:raiseAlertIfNeeded": "internal mutation",
  "rateLimit:recordEvent": "internal mutation",
  "rateLimit:refusalRows": "internal query",
  "rateLimit:reset": "internal mutation",
  "sentry:deliver": "internal action",
  "streamSessions:abort": "public mutation",
  "streamSessions:start": "public mutation",
  "threads:create": "public mutation",
  "threads:createShareFork": "public mutation",
  "threads:createShareToken": "public mutation",
  "threads:get": "public query",
  "threads:list": "public query",
  "threads:remove": "public mutation",
  "threads:removeContents": "internal mutation",
  "threads:rename": "public mutation",
  "threads:togglePinned": "public mutation",
  "toolCache:cleanupExpired": "internal mutation",
  "toolCache:clearNamespace": "internal mutation",
  "toolCache:get": "internal query",
  "toolCache:listNamespaceStats": "internal query",
  "toolCache:lookup": "internal query",
  "toolCache:set": "internal mutation",
  "toolJobPicks:findRunning": "internal query",
  "toolJobPicks:pickFreeSlots": "internal query",
  "toolJobPicks:pickOfClass": "internal query",
  "toolJobPicks:pickOpenSlots": "internal query",
  "toolJobPicks:pickOpenStripes": "internal query",
  "toolJobPicks:pickStripe": "internal query",
  "toolJobs:cancel": "internal mutation",
  "toolJobs:claimNext": "internal mutation",
  "toolJobs:cleanupExpired": "internal mutation",
  "toolJobs:complete": "internal mutation",
  "toolJobs:deferDeadLetter": "internal mutation",
  "toolJobs:dispatch": "internal mutation",
  "toolJobs:enqueue": "internal mutation",
  "toolJobs:enqueueMany": "internal mutation",
  "toolJobs:expireLease": "internal mutation",
  "toolJobs:fail": "internal mutation",
  "toolJobs:get": "internal query",
  "toolJobs:getQueueStats": "internal query",
  "toolJobs:heartbeat": "internal mutation",
  "toolJobs:listDeadLetters": "internal query",
  "toolJobs:listRecentQueueAlerts": "internal query",
  "toolJobs:monitorQueueHealth": "internal mutation",
  "toolJobs:processQueue": "internal action",
  "toolJobs:raiseQueueAlertIfNeeded": "internal mutation",
  "toolJobs:requeueDeadLetter": "internal mutation",
  "toolJobs:requeueDeadLetters": "internal mutation",
  "toolJobs:requeueDeferred": "internal mutation",
  "toolJobs:serveLine": "internal mutation",
  "toolRuns:processWaiting": "internal action",
  "toolRuns:run": "internal action",
} as const;

type Kind = "query" | "mutation" | "action";

interface Registered {
  readonly isQuery?: boolean;
  readonly isMutation?: boolean;
  readonly isAction?: boolean;
  readonly isPublic?: boolean;
  readonly isInternal?: boolean;
  readonly exportArgs?: () => string;
  readonly exportReturns?: () => string;
}

const modules = import.meta.glob<Record<string, unknown>>(
  ["/convex/**/*.ts", "!/convex/**/*.*.ts", "!/convex/_generated/**"],
  { eager: true },
);

const functions = Object.entries(modules)
  .flatMap(([path, exports]) =>
    Object.entries(exports).map(([name, value]) => ({
      name: `${path.replace("/convex/", "").replace(".ts", "")}:${name}`,
      // A registered function is a function with these fields; nothing else that is exported has them.
      registered: Object(value) as Registered,
    })),
  )
  .filter(({ registered }) => kindOf(registered) !== null)
  .sort((a, b) => (a.name < b.name ? -1 : 1));

function kindOf({ isAction, isMutation, isQuery }: Registered): Kind | null {
  if (isQuery === true) return "query";
  if (isMutation === true) return "mutation";
  return isAction === true ? "action" : null;
}

describe("the functions of convex/", () => {
  test("are exactly the ones that are known by name", () => {
    const found = functions.map(({ name, registered }) => [
      name,
      `${registered.isPublic === true ? "public" : "internal"} ${kindOf(registered) ?? ""}`,
    ]);
    expect(Object.fromEntries(found)).toEqual(FUNCTIONS);
  });

  test("are public or internal, never both", () => {
    for (const { name, registered } of functions)
      expect([name, registered.isPublic === true]).toEqual([name, registered.isInternal !== true]);
  });

  test("say what they take, and in public also what they give", () => {
    const any = JSON.stringify({ type: "any" });
    const silent = functions.filter(
      ({ registered }) =>
        registered.exportArgs?.() === any ||
        (registered.isPublic === true && registered.exportReturns?.() === "null"),
    );
    expect(silent.map(({ name }) => name)).toEqual([]);
  });

  test("are registered in files of their own, not in the model", () => {
    expect(functions.filter(({ name }) => name.startsWith("model/"))).toEqual([]);
  });
});

const NAMED_BY_SEEDS = [
  ...["create", "get", "list", "rename", "remove", "togglePinned"].map((name) => `threads:${name}`),
  ...["createShareToken", "createShareFork"].map((name) => `threads:${name}`),
  ...["list", "send", "update", "deleteAfter", "abort"].map((name) => `messages:${name}`),
  ...["start", "abort"].map((name) => `streamSessions:${name}`),
  "chat:streamAnswer",
];
const NAMED_BY_OPERATORS = [
  "ops:getReliabilitySnapshot",
  "integrations/whatsapp:listStoredMessages",
  ...["get", "set", "cleanupExpired", "clearNamespace", "listNamespaceStats"].map(
    (name) => `toolCache:${name}`,
  ),
  ...["enqueue", "get", "claimNext", "complete", "fail", "cleanupExpired"].map(
    (name) => `toolJobs:${name}`,
  ),
  "rateLimit:cleanupExpired",
  "idempotency:cleanupExpired",
];

test.each([
  ["public", NAMED_BY_SEEDS],
  ["internal", NAMED_BY_OPERATORS],
])("every function that is promised by name exists and is %s", (visibility, names) => {
  const known: Readonly<Record<string, string>> = FUNCTIONS;
  expect(names.filter((name) => known[name]?.startsWith(visibility) !== true)).toEqual([]);
});

// What the platform reads when it deploys; the type does not show it.
const { export: exportCrons } = crons as unknown as { export: () => string };
const schedule = JSON.parse(exportCrons.call(crons)) as Record<
  string,
  { name: string; schedule: { type: string; minuteUTC?: number; cron?: string } }
>;

/** Minutes of the hour at which a schedule runs: of one, or a list, or every few from one on. */
function minutesOf({ cron, minuteUTC }: { minuteUTC?: number; cron?: string }): number[] {
  const field = cron?.split(" ")[0] ?? String(minuteUTC);
  const [, from, to, step] = /^(\d+)-(\d+)\/(\d+)$/.exec(field) ?? [];
  if (from === undefined) return field.split(",").map(Number);
  const count = Math.floor((Number(to) - Number(from)) / Number(step)) + 1;
  return Array.from({ length: count }, (_, i) => Number(from) + i * Number(step));
}

test("every schedule runs a function that exists, and never on the hour", () => {
  const runs = Object.values(schedule).map((cron) => minutesOf(cron.schedule));
  // What runs every few minutes meets the others now and then; they do not meet each other.
  const seldom = runs.filter((own) => own.length <= 2).flat();
  expect(new Set(seldom).size).toBe(seldom.length);
  expect(runs.flat().filter((minute) => !(minute > 0 && minute < 60))).toEqual([]);
  // Nothing runs more often than every five minutes.
  for (const own of runs)
    for (const [i, minute] of own.entries())
      expect(minute - (own[i - 1] ?? Number.NEGATIVE_INFINITY)).toBeGreaterThanOrEqual(5);
  expect(Object.fromEntries(Object.entries(schedule).map(([id, { name }]) => [id, name]))).toEqual({
    "cleanup-bulkhead-leases": "bulkhead:cleanupExpiredLeases",
    "cleanup-chat-streams": "chatTurns:cleanupExpired",
    "cleanup-idempotency-keys": "idempotency:cleanupExpired",
    "cleanup-rate-limit-windows": "rateLimit:cleanupExpired",
    "cleanup-tool-cache": "toolCache:cleanupExpired",
    "cleanup-tool-jobs": "toolJobs:cleanupExpired",
    "cleanup-webhooks": "integrations/inbox:cleanupExpired",
    "fold-metrics": "metrics:fold",
    "monitor-rate-limit-alerts": "rateLimit:monitorAndAlert",
    "monitor-tool-queue-health": "toolJobs:monitorQueueHealth",
  });
  for (const { name } of Object.values(schedule))
    expect(FUNCTIONS).toHaveProperty([name], "internal mutation");
});

test("every cleanup has a schedule", () => {
  const isCleanup = (name: string): boolean => name.includes(":cleanupExpired");
  const scheduled = Object.values(schedule).map(({ name }) => name);
  expect(scheduled.filter(isCleanup).sort()).toEqual(
    Object.keys(FUNCTIONS).filter(isCleanup).sort(),
  );
});

describe("every table", () => {
  const folder = new URL("../convex/", import.meta.url);
  const sources = ["schema.ts", ...readdirSync(new URL("model/", folder)).map((f) => `model/${f}`)]
    .filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"))
    .map((name) => readFileSync(new URL(name, folder), "utf8"))
    .join("\n");

  test.each(Object.keys(schema.tables))(
    "%s says who writes it, who reads it and when it dies",
    (table) => {
      const [, comment = ""] =
        new RegExp(String.raw`((?:^ *//.*\n)+) *${table}: defineTable\(`, "m").exec(sources) ?? [];
      const text = comment.replaceAll(/\s*\/\/\s*/g, " ");
      expect(text).toMatch(/\bwritten\b/i);
      expect(text).toMatch(/\bread\b/i);
      expect(text).toMatch(/\b(dies|deleted)\b/i);
    },
  );
});
