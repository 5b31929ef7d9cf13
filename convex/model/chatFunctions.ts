import type { ToolFunctions, TurnFunctions } from "../../src/channels/chat/functions";
import { internal } from "../_generated/api";

/** The functions a running turn and its tools call, handed to code that knows no `convex/`. */
export const chatFunctions: TurnFunctions & ToolFunctions = {
  append: internal.chatTurns.append,
  switchRoute: internal.chatTurns.switchRoute,
  settle: internal.chatTurns.settle,
  lookup: internal.toolCache.lookup,
  enqueue: internal.toolJobs.enqueue,
  getJob: internal.toolJobs.get,
  heartbeat: internal.toolJobs.heartbeat,
  complete: internal.toolJobs.complete,
  fail: internal.toolJobs.fail,
  admitCall: internal.outbound.admit,
  settleCall: internal.outbound.settle,
  countLost: internal.rateLimit.recordEvent,
  mayRetry: internal.outbound.mayRetry,
  loadToken: internal.outbound.loadToken,
  storeToken: internal.outbound.storeToken,
};
