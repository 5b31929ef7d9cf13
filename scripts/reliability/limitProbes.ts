/**
 * Limits are taken where a request is accepted, so to see one refuse is to have requests accepted
 * and others refused. That is done to a host of the run's own, and to nobody's deployment.
 */
import { knobRow, type SettingName } from "../../src/config/knobs";
import {
  type LimitGuard,
  ROUTE_IDS,
  type RouteId,
  type RouteRow,
  routeRow,
  type Scheme,
} from "../../src/http/routes";
import { gmailPush, whatsappDelivery } from "../../src/sim/deliveries";
import type { Sent } from "./exchange";
import { maker, type Planned, refusedAs, request, sound } from "./probeParts";
import { inParallel, probe, type Probed, type Prober, send } from "./probeRun";
import type { Target } from "./target";

interface LimitProbe {
  readonly id: RouteId;
  readonly guard: LimitGuard;
}

const LIMITS: readonly LimitProbe[] = ROUTE_IDS.flatMap((id) =>
  routeRow(id).guards.map((guard) => ({ id, guard })),
);

/** Requests until a limit of its smallest size must have refused. */
const REQUESTS_MAX = 6;

/** Plans that say why they are not sent to a deployment that others use. */
export const unsentLimits = (): readonly Planned[] =>
  LIMITS.map(({ id, guard }) =>
    planned({ id, guard }, "it would refuse others: only on a host of the run's own"),
  );

/** Provokes every limit of every route on a host of the run's own, one after the other. */
export async function probeLimits(target: Target, prober: Prober): Promise<readonly Probed[]> {
  return await inParallel(LIMITS, 1, async (limit) => await probeLimit(limit, target, prober));
}

async function probeLimit(limit: LimitProbe, target: Target, prober: Prober): Promise<Probed> {
  const [knob] = limit.guard.knobs;
  const smallest = knob === undefined ? null : smallestOf(knob);
  if (knob === undefined || smallest === null) return await probe(planned(limit, null), prober);
  await setVariable(target, knob, smallest);
  try {
    for (let i = 0; i < REQUESTS_MAX; i++) {
      const sent = await acceptable(routeRow(limit.id), `${limit.guard.name}-${i}`, {
        target,
        limit: limit.guard,
      });
      if (sent === null) return await probe(planned(limit, null), prober);
      const isLast = i === REQUESTS_MAX - 1;
      if (isLast || (await isRefused(sent, prober)))
        return await probe(planned(limit, sent), prober);
    }
    return await probe(planned(limit, null), prober);
  } finally {
    await setVariable(target, knob, null);
  }
}

async function isRefused(sent: Sent, prober: Prober): Promise<boolean> {
  const { status } = await send(sent, prober, `${prober.syntheticRun}-limit`);
  return status === 429;
}

function planned({ id, guard }: LimitProbe, sent: Planned["sent"]): Planned {
  const policy = new RegExp(`"${guard.name}"`);
  return maker(
    id,
    routeRow(id),
  )({
    guard: `limit ${guard.name}`,
    variant: "used up",
    title: `with its limit ${guard.name} used up`,
    sent,
    expected: refusedAs("rate_limited", { ratelimit: policy, "ratelimit-policy": policy }),
  });
}

/** Smallest value that a knob may have. */
function smallestOf(knob: SettingName): string | null {
  const row = knobRow(knob);
  return row.kind === "int" ? String(row.min) : null;
}

/** A request that is accepted and that nobody sent before; null where nobody knows one. */
export async function acceptable(
  row: RouteRow,
  unique: string,
  { target, limit }: { readonly target: Target; readonly limit: LimitGuard },
): Promise<Sent | null> {
  switch (row.auth.kind) {
    case "signature":
      return request(row, signedDelivery(row.auth.scheme, unique, target));
    case "none":
      return sound(row, {});
    case "token":
      return null;
    case "user": {
      // A limit of one user is used up by that user, any other by a crowd.
      const user = limit.per === "user" ? `probe-${limit.name}` : `probe-${unique}`;
      const token = await target.token(user);
      return token === null ? null : sound(row, { authorization: `Bearer ${token}` });
    }
  }
}

function signedDelivery(
  scheme: Scheme,
  unique: string,
  target: Target,
): { readonly headers: Record<string, string>; readonly body: string } {
  const nowMs = Date.now();
  const secret = (name: string): string => target.setting(name) ?? "";
  switch (scheme) {
    case "hub-256":
      return whatsappDelivery({
        text: "probe",
        from: "15550000000",
        id: `wamid.probe.${nowMs}.${unique}`,
        nowMs,
        appSecret: secret("WHATSAPP_APP_SECRET"),
      });
    case "google-push": {
      const token = secret("GMAIL_PUBSUB_VERIFY_TOKEN");
      const email = `probe+${unique}@example.com`;
      return gmailPush({ email, historyId: String(nowMs), token, nowMs });
    }
  }
}

async function setVariable(
  { cloudUrl, adminKey }: Target,
  name: string,
  value: string | null,
): Promise<void> {
  const response = await fetch(`${cloudUrl}/api/update_environment_variables`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Convex ${adminKey ?? ""}` },
    body: JSON.stringify({ changes: [{ name, value }] }),
  });
  if (!response.ok) throw new Error(`${name} could not be set: ${response.status}`);
}
