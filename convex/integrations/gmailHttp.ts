import { answerTo } from "../../src/channels/acceptance";
import type { WebhookCall } from "../../src/channels/call";
import { throughContention } from "../../src/channels/contention";
import { readNotification } from "../../src/channels/gmail/envelope";
import { fetchGoogleKeys } from "../../src/channels/gmail/fetchKeys";
import type { KeySource } from "../../src/channels/gmail/googleKeys";
import { pushAuth, verifyPush } from "../../src/channels/gmail/pushAuth";
import { env } from "../../src/config/env";
import { findSecret, readKnob } from "../../src/config/read";
import { failOpenLimits } from "../../src/http/guards";
import { routeRow } from "../../src/http/routes";
import type { Gate } from "../../src/providers/call";
import { platformIo } from "../../src/providers/io";
import { internal } from "../_generated/api";
import type { ActionCtx } from "../_generated/server";

/** Verifier of the scheme `google-push`: Google's OIDC token or the shared token. */
export function googlePushVerifier(gateOf: (ctx: ActionCtx) => Gate) {
  return async (
    ctx: ActionCtx,
    request: { readonly headers: Headers; readonly url: URL; readonly nowMs: number },
  ): Promise<void> => {
    const auth = pushAuth({
      audience: readKnob(env, "GMAIL_PUSH_AUDIENCE"),
      serviceAccount: readKnob(env, "GMAIL_PUSH_SERVICE_ACCOUNT"),
      sharedToken: findSecret(env, "GMAIL_PUBSUB_VERIFY_TOKEN") ?? "",
    });
    await verifyPush(request, auth, keySource(ctx, gateOf(ctx)));
  };
}

/** `POST /api/gmail/push`, verified: the notification is stored before the answer. */
export async function gmailPush(ctx: ActionCtx, call: WebhookCall): Promise<Response> {
  const notification = readNotification(call.body);
  const { key } = call.client;
  const received = { notification, receivedAtMs: call.nowMs };
  const args = key === undefined ? received : { ...received, addressKey: key };
  const acceptance = await throughContention(
    (leaveOut) => ctx.runMutation(internal.integrations.gmail.accept, { ...args, leaveOut }),
    {
      failOpen: failOpenLimits(routeRow("gmailPush")),
      lost: () =>
        ctx.scheduler.runAfter(0, internal.rateLimit.recordEvent, {
          source: "http",
          bucket: "gmail_push",
          outcome: "contention_fallback",
        }),
    },
  );
  return answerTo(acceptance);
}

function keySource(ctx: ActionCtx, gate: Gate): KeySource {
  return {
    read: () => ctx.runQuery(internal.integrations.googleKeys.read, {}),
    beginRefresh: () => ctx.runMutation(internal.integrations.googleKeys.beginRefresh, {}),
    fetch: () => fetchGoogleKeys(gate, { ...platformIo, env }),
    sleep: platformIo.sleep,
    save: async (brought) => {
      const fetched = brought === null ? null : { ...brought, keys: [...brought.keys] };
      await ctx.runMutation(internal.integrations.googleKeys.save, { fetched });
    },
  };
}
