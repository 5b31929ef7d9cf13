import { cronJobs } from "convex/server";
import { internal } from "./_generated/api";

const crons = cronJobs();

// Off the top of the hour, and apart from each other: nobody else's crons run then.
crons.hourly("cleanup-rate-limit-windows", { minuteUTC: 7 }, internal.rateLimit.cleanupExpired, {});
crons.hourly(
  "cleanup-idempotency-keys",
  { minuteUTC: 13 },
  internal.idempotency.cleanupExpired,
  {},
);
crons.cron("cleanup-bulkhead-leases", "16,46 * * * *", internal.bulkhead.cleanupExpiredLeases, {});
crons.hourly("cleanup-tool-cache", { minuteUTC: 19 }, internal.toolCache.cleanupExpired, {});
crons.hourly("cleanup-tool-jobs", { minuteUTC: 27 }, internal.toolJobs.cleanupExpired, {});
crons.hourly("cleanup-chat-streams", { minuteUTC: 34 }, internal.chatTurns.cleanupExpired, {});
crons.hourly("cleanup-webhooks", { minuteUTC: 41 }, internal.integrations.inbox.cleanupExpired, {});
crons.cron("fold-metrics", "3-58/5 * * * *", internal.metrics.fold, {});
crons.cron("monitor-rate-limit-alerts", "1-56/5 * * * *", internal.rateLimit.monitorAndAlert, {});
crons.cron("monitor-tool-queue-health", "4-59/5 * * * *", internal.toolJobs.monitorQueueHealth, {});

export default crons;
