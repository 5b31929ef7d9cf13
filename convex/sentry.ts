"use node";

import { createHash } from "node:crypto";
import { createTransport, defaultStackParser, NodeClient } from "@sentry/node";
import { v } from "convex/values";
import { env } from "../src/config/env";
import { findSecret } from "../src/config/read";
import { SECOND } from "../src/core/time";
import { internal } from "./_generated/api";
import type { Notice, SettledAttempt } from "./model/alerts";
import { internalAction } from "./model/functionBoundaries";

type Ended = SettledAttempt["ended"];

const SEND_TIMEOUT_MS = 5 * SECOND;

/**
 * Tells Sentry what is due. Each notice is one attempt: what fails is due again later, and what
 * this run leaves unsettled when it dies is taken up by rateLimit:monitorAndAlert.
 */
export const deliver = internalAction({
  args: {},
  returns: v.object({ sent: v.number(), failed: v.number() }),
  handler: async (ctx): Promise<{ sent: number; failed: number }> => {
    const { more, notices } = await ctx.runMutation(internal.alerts.claimDue, {});
    const endings = await Promise.all(
      notices.map(async (notice) => {
        const ended = await attempt(notice);
        const { alertId, attempt: number } = notice;
        await ctx.runMutation(internal.alerts.settleAttempt, { alertId, attempt: number, ended });
        return ended.kind;
      }),
    );
    if (more) await ctx.scheduler.runAfter(0, internal.sentry.deliver, {});
    const count = (kind: Ended["kind"]): number => endings.filter((ended) => ended === kind).length;
    return { sent: count("sent"), failed: count("failed") };
  },
});

async function attempt(notice: Notice): Promise<Ended> {
  try {
    const own = notice.kind === "limiter" ? findSecret(env, "RATE_LIMIT_SENTRY_DSN") : null;
    const dsn = own ?? findSecret(env, "SENTRY_DSN");
    return dsn === null ? { kind: "not_configured" } : await send(dsn, notice);
  } catch {
    // A DSN that is out of form: its text is a secret, so nothing of the error is kept.
    return { kind: "failed", failure: "misconfigured", retryAfterMs: 0 };
  }
}

async function send(dsn: string, notice: Notice): Promise<Ended> {
  let ended: Ended = { kind: "failed", failure: "not_sent", retryAfterMs: 0 };
  const client = new NodeClient({
    dsn,
    integrations: [],
    stackParser: defaultStackParser,
    sendClientReports: false,
    transport: (options) =>
      createTransport(options, async ({ body }) => {
        const answer = await post(options.url, body, options.headers);
        ended = answer.ended;
        return { statusCode: answer.statusCode };
      }),
  });
  client.captureEvent(eventOf(notice), { event_id: eventId(notice.telling) });
  await client.close(2 * SEND_TIMEOUT_MS);
  return ended;
}

async function post(
  url: string,
  body: string | Uint8Array,
  headers: Readonly<Record<string, string>> | undefined,
): Promise<{ readonly ended: Ended; readonly statusCode: number }> {
  try {
    const response = await fetch(url, {
      method: "POST",
      body: typeof body === "string" ? body : new Uint8Array(body),
      ...(headers === undefined ? {} : { headers }),
      signal: AbortSignal.timeout(SEND_TIMEOUT_MS),
    });
    await response.body?.cancel();
    const { ok, status: statusCode } = response;
    const retryAfterMs = retryAfter(response.headers.get("retry-after"));
    return {
      statusCode,
      ended: ok
        ? { kind: "sent" }
        : { kind: "failed", failure: `http_${statusCode}`, retryAfterMs },
    };
  } catch (error) {
    const isLate = error instanceof Error && error.name === "TimeoutError";
    const failure = isLate ? "timeout" : "unreachable";
    return { statusCode: 503, ended: { kind: "failed", failure, retryAfterMs: 0 } };
  }
}

/** Seconds of a `Retry-After`; a date, which trackers do not send, counts as none. */
function retryAfter(header: string | null): number {
  const seconds = Number(header ?? 0);
  return Number.isFinite(seconds) && seconds > 0 ? seconds * SECOND : 0;
}

/** The same for every attempt of one telling: the tracker drops one that it has. */
const eventId = (telling: string): string =>
  createHash("sha256").update(telling).digest("hex").slice(0, 32);

function eventOf(notice: Notice) {
  const { alertKey, kind, observed, severity, summary, threshold, windowMinutes } = notice;
  const isOver = notice.notice === "recovered";
  return {
    message: isOver ? `Recovered: ${summary}` : summary,
    level: isOver ? ("info" as const) : severity === "critical" ? ("error" as const) : severity,
    logger: "ballast.alerts",
    // One issue for all that is told of one thing, its recovery included.
    fingerprint: [alertKey],
    tags: { alert: alertKey, kind, notice: notice.notice },
    extra: {
      observed,
      threshold,
      windowMinutes,
      raisedAt: new Date(notice.raisedAtMs).toISOString(),
      resolvedAt: notice.resolvedAtMs === null ? null : new Date(notice.resolvedAtMs).toISOString(),
    },
  };
}
