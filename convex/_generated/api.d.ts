/* eslint-disable */
/**
 * Generated `api` utility.
 *
 * THIS CODE IS AUTOMATICALLY GENERATED.
 *
 * To regenerate, run `npx convex dev`.
 * @module
 */

import type {
  ApiFromModules,
  FilterApi,
  FunctionReference,
} from "convex/server";
import type * as alerts from "../alerts.js";
import type * as bulkhead from "../bulkhead.js";
import type * as chat from "../chat.js";
import type * as chatHttp from "../chatHttp.js";
import type * as chatTurns from "../chatTurns.js";
import type * as circuitBreaker from "../circuitBreaker.js";
import type * as crons from "../crons.js";
import type * as http from "../http.js";
import type * as idempotency from "../idempotency.js";
import type * as integrations_gmail from "../integrations/gmail.js";
import type * as integrations_gmailHttp from "../integrations/gmailHttp.js";
import type * as integrations_googleKeys from "../integrations/googleKeys.js";
import type * as integrations_inbox from "../integrations/inbox.js";
import type * as integrations_whatsapp from "../integrations/whatsapp.js";
import type * as integrations_whatsappHttp from "../integrations/whatsappHttp.js";
import type * as messages from "../messages.js";
import type * as metrics from "../metrics.js";
import type * as model_access from "../model/access.js";
import type * as model_admission from "../model/admission.js";
import type * as model_alerts from "../model/alerts.js";
import type * as model_batch from "../model/batch.js";
import type * as model_breakers from "../model/breakers.js";
import type * as model_budgets from "../model/budgets.js";
import type * as model_chatFunctions from "../model/chatFunctions.js";
import type * as model_chatTables from "../model/chatTables.js";
import type * as model_claims from "../model/claims.js";
import type * as model_conditions from "../model/conditions.js";
import type * as model_creationPages from "../model/creationPages.js";
import type * as model_duplicates from "../model/duplicates.js";
import type * as model_functionBoundaries from "../model/functionBoundaries.js";
import type * as model_gmailHistory from "../model/gmailHistory.js";
import type * as model_googleKeys from "../model/googleKeys.js";
import type * as model_guardTables from "../model/guardTables.js";
import type * as model_inbox from "../model/inbox.js";
import type * as model_inboxRuns from "../model/inboxRuns.js";
import type * as model_integrationTables from "../model/integrationTables.js";
import type * as model_limits from "../model/limits.js";
import type * as model_messages from "../model/messages.js";
import type * as model_metrics from "../model/metrics.js";
import type * as model_monitor from "../model/monitor.js";
import type * as model_permit from "../model/permit.js";
import type * as model_providerPolicy from "../model/providerPolicy.js";
import type * as model_refusals from "../model/refusals.js";
import type * as model_rollups from "../model/rollups.js";
import type * as model_slotPicks from "../model/slotPicks.js";
import type * as model_slots from "../model/slots.js";
import type * as model_snapshot from "../model/snapshot.js";
import type * as model_snapshotAlerts from "../model/snapshotAlerts.js";
import type * as model_snapshotConfig from "../model/snapshotConfig.js";
import type * as model_snapshotGuards from "../model/snapshotGuards.js";
import type * as model_snapshotLimits from "../model/snapshotLimits.js";
import type * as model_snapshotObjectives from "../model/snapshotObjectives.js";
import type * as model_snapshotReading from "../model/snapshotReading.js";
import type * as model_snapshotShape from "../model/snapshotShape.js";
import type * as model_snapshotTools from "../model/snapshotTools.js";
import type * as model_snapshotTraffic from "../model/snapshotTraffic.js";
import type * as model_streams from "../model/streams.js";
import type * as model_telemetryTables from "../model/telemetryTables.js";
import type * as model_threads from "../model/threads.js";
import type * as model_toolCacheCounts from "../model/toolCacheCounts.js";
import type * as model_toolJobAlerts from "../model/toolJobAlerts.js";
import type * as model_toolJobBatches from "../model/toolJobBatches.js";
import type * as model_toolJobCleanup from "../model/toolJobCleanup.js";
import type * as model_toolJobCounts from "../model/toolJobCounts.js";
import type * as model_toolJobDeadLetters from "../model/toolJobDeadLetters.js";
import type * as model_toolJobEnds from "../model/toolJobEnds.js";
import type * as model_toolJobInput from "../model/toolJobInput.js";
import type * as model_toolJobLine from "../model/toolJobLine.js";
import type * as model_toolJobRows from "../model/toolJobRows.js";
import type * as model_toolJobShapes from "../model/toolJobShapes.js";
import type * as model_toolJobStarts from "../model/toolJobStarts.js";
import type * as model_toolJobStats from "../model/toolJobStats.js";
import type * as model_toolJobs from "../model/toolJobs.js";
import type * as model_toolResults from "../model/toolResults.js";
import type * as model_toolTables from "../model/toolTables.js";
import type * as model_turnAdmission from "../model/turnAdmission.js";
import type * as model_turnBudget from "../model/turnBudget.js";
import type * as model_turnRoutes from "../model/turnRoutes.js";
import type * as model_turns from "../model/turns.js";
import type * as model_webhookAdmission from "../model/webhookAdmission.js";
import type * as model_whatsappMessages from "../model/whatsappMessages.js";
import type * as ops from "../ops.js";
import type * as outbound from "../outbound.js";
import type * as rateLimit from "../rateLimit.js";
import type * as sentry from "../sentry.js";
import type * as streamSessions from "../streamSessions.js";
import type * as threads from "../threads.js";
import type * as toolCache from "../toolCache.js";
import type * as toolJobPicks from "../toolJobPicks.js";
import type * as toolJobs from "../toolJobs.js";
import type * as toolRuns from "../toolRuns.js";

/**
 * A utility for referencing Convex functions in your app's API.
 *
 * Usage:
 * ```js
 * const myFunctionReference = api.myModule.myFunction;
 * ```
 */
declare const fullApi: ApiFromModules<{
  alerts: typeof alerts;
  bulkhead: typeof bulkhead;
  chat: typeof chat;
  chatHttp: typeof chatHttp;
  chatTurns: typeof chatTurns;
  circuitBreaker: typeof circuitBreaker;
  crons: typeof crons;
  http: typeof http;
  idempotency: typeof idempotency;
  "integrations/gmail": typeof integrations_gmail;
  "integrations/gmailHttp": typeof integrations_gmailHttp;
  "integrations/googleKeys": typeof integrations_googleKeys;
  "integrations/inbox": typeof integrations_inbox;
  "integrations/whatsapp": typeof integrations_whatsapp;
  "integrations/whatsappHttp": typeof integrations_whatsappHttp;
  messages: typeof messages;
  metrics: typeof metrics;
  "model/access": typeof model_access;
  "model/admission": typeof model_admission;
  "model/alerts": typeof model_alerts;
  "model/batch": typeof model_batch;
  "model/breakers": typeof model_breakers;
  "model/budgets": typeof model_budgets;
  "model/chatFunctions": typeof model_chatFunctions;
  "model/chatTables": typeof model_chatTables;
  "model/claims": typeof model_claims;
  "model/conditions": typeof model_conditions;
  "model/creationPages": typeof model_creationPages;
  "model/duplicates": typeof model_duplicates;
  "model/functionBoundaries": typeof model_functionBoundaries;
  "model/gmailHistory": typeof model_gmailHistory;
  "model/googleKeys": typeof model_googleKeys;
  "model/guardTables": typeof model_guardTables;
  "model/inbox": typeof model_inbox;
  "model/inboxRuns": typeof model_inboxRuns;
  "model/integrationTables": typeof model_integrationTables;
  "model/limits": typeof model_limits;
  "model/messages": typeof model_messages;
  "model/metrics": typeof model_metrics;
  "model/monitor": typeof model_monitor;
  "model/permit": typeof model_permit;
  "model/providerPolicy": typeof model_providerPolicy;
  "model/refusals": typeof model_refusals;
  "model/rollups": typeof model_rollups;
  "model/slotPicks": typeof model_slotPicks;
  "model/slots": typeof model_slots;
  "model/snapshot": typeof model_snapshot;
  "model/snapshotAlerts": typeof model_snapshotAlerts;
  "model/snapshotConfig": typeof model_snapshotConfig;
  "model/snapshotGuards": typeof model_snapshotGuards;
  "model/snapshotLimits": typeof model_snapshotLimits;
  "model/snapshotObjectives": typeof model_snapshotObjectives;
  "model/snapshotReading": typeof model_snapshotReading;
  "model/snapshotShape": typeof model_snapshotShape;
  "model/snapshotTools": typeof model_snapshotTools;
  "model/snapshotTraffic": typeof model_snapshotTraffic;
  "model/streams": typeof model_streams;
  "model/telemetryTables": typeof model_telemetryTables;
  "model/threads": typeof model_threads;
  "model/toolCacheCounts": typeof model_toolCacheCounts;
  "model/toolJobAlerts": typeof model_toolJobAlerts;
  "model/toolJobBatches": typeof model_toolJobBatches;
  "model/toolJobCleanup": typeof model_toolJobCleanup;
  "model/toolJobCounts": typeof model_toolJobCounts;
  "model/toolJobDeadLetters": typeof model_toolJobDeadLetters;
  "model/toolJobEnds": typeof model_toolJobEnds;
  "model/toolJobInput": typeof model_toolJobInput;
  "model/toolJobLine": typeof model_toolJobLine;
  "model/toolJobRows": typeof model_toolJobRows;
  "model/toolJobShapes": typeof model_toolJobShapes;
  "model/toolJobStarts": typeof model_toolJobStarts;
  "model/toolJobStats": typeof model_toolJobStats;
  "model/toolJobs": typeof model_toolJobs;
  "model/toolResults": typeof model_toolResults;
  "model/toolTables": typeof model_toolTables;
  "model/turnAdmission": typeof model_turnAdmission;
  "model/turnBudget": typeof model_turnBudget;
  "model/turnRoutes": typeof model_turnRoutes;
  "model/turns": typeof model_turns;
  "model/webhookAdmission": typeof model_webhookAdmission;
  "model/whatsappMessages": typeof model_whatsappMessages;
  ops: typeof ops;
  outbound: typeof outbound;
  rateLimit: typeof rateLimit;
  sentry: typeof sentry;
  streamSessions: typeof streamSessions;
  threads: typeof threads;
  toolCache: typeof toolCache;
  toolJobPicks: typeof toolJobPicks;
  toolJobs: typeof toolJobs;
  toolRuns: typeof toolRuns;
}>;
export declare const api: FilterApi<
  typeof fullApi,
  FunctionReference<any, "public">
>;
export declare const internal: FilterApi<
  typeof fullApi,
  FunctionReference<any, "internal">
>;
