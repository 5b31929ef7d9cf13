import { httpRouter } from "convex/server";
import { gateOf } from "../src/channels/chat/outbound";
import { VERSION } from "../src/config/version";
import { mount } from "../src/http/mount";
import { healthHandler, openApiHandler } from "../src/http/openapi";
import { httpAction } from "./_generated/server";
import { chatAbort, chatPost, chatStream } from "./chatHttp";
import { gmailPush, googlePushVerifier } from "./integrations/gmailHttp";
import {
  verifyWhatsappSignature,
  whatsappReceive,
  whatsappVerify,
} from "./integrations/whatsappHttp";
import { chatFunctions } from "./model/chatFunctions";

const http = httpRouter();

mount({
  router: http,
  httpAction,
  handlers: {
    chatPost,
    chatStream,
    chatAbort,
    health: healthHandler(VERSION),
    openapi: openApiHandler(VERSION),
    gmailPush,
    whatsappVerify,
    whatsappReceive,
  },
  verifiers: {
    "hub-256": verifyWhatsappSignature,
    "google-push": googlePushVerifier((ctx) => gateOf(ctx, chatFunctions)),
  },
});

export default http;
