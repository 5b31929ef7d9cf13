/**
 * Every request that a guard must refuse or a route answer, made from the route table: a new route,
 * and a known guard on it, is probed without a line here.
 */
import { guardsOf } from "../../src/http/guards";
import { ROUTE_IDS, routeRow } from "../../src/http/routes";
import { answersOf, preflights, unrouted } from "./probeAnswers";
import type { Credentials } from "./probeCredentials";
import { probesOfGuard } from "./probeGuards";
import { maker, type Planned } from "./probeParts";

/** Names that a gate or a dashboard may know from before there was a plan. */
const KNOWN_NAMES: Readonly<Record<string, string>> = {
  chat_post_preflight_allowed: "chat_options_cors",
  chat_post_identity_missing: "chat_requires_auth",
  gmail_push_signature_google_push_missing: "gmail_push_guard",
  whatsapp_verify_token_wrong: "whatsapp_verify_guard",
  whatsapp_receive_signature_hub_256_missing: "whatsapp_post_guard",
};

/** All probes, in the order of the routes and their guards. */
export function planProbes(credentials: Credentials): readonly Planned[] {
  const ofRoutes = ROUTE_IDS.flatMap((id) => {
    const row = routeRow(id);
    const probe = maker(id, row);
    return [
      ...guardsOf(row)
        .filter(({ where }) => where === "request")
        .flatMap(({ name, refuses }) => probesOfGuard(name, refuses, { row, probe, credentials })),
      ...preflights(row, probe, credentials),
      ...answersOf(id, { row, probe, credentials }),
    ];
  });
  return [...ofRoutes, ...unrouted()].map((planned) => ({
    ...planned,
    name: KNOWN_NAMES[planned.name] ?? planned.name,
  }));
}
