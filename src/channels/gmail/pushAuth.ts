import { AppError } from "../../errors/appError";
import { equalSecret } from "../signature/constantTime";
import type { KeySource } from "./googleKeys";
import { type GoogleTokenRules, verifyGoogleToken } from "./googleToken";

/** How pushes prove themselves. Null is unset; at least one way must be set. */
export interface PushAuth {
  readonly oidc: GoogleTokenRules | null;
  readonly sharedToken: string | null;
}

export interface PushRequest {
  readonly headers: Headers;
  readonly url: URL;
  readonly nowMs: number;
}

/**
 * Reads how pushes are verified from its three settings, empty meaning unset. Half of the OIDC
 * pair throws `misconfigured`: an audience alone would accept anybody's Google token for it.
 */
export function pushAuth(settings: {
  readonly audience: string;
  readonly serviceAccount: string;
  readonly sharedToken: string;
}): PushAuth {
  const { audience, serviceAccount, sharedToken } = settings;
  if ((audience === "") !== (serviceAccount === ""))
    throw new AppError("misconfigured", {
      detail: "GMAIL_PUSH_AUDIENCE and GMAIL_PUSH_SERVICE_ACCOUNT must be set together",
    });
  if (audience === "" && sharedToken === "")
    throw new AppError("misconfigured", { detail: "Gmail push verification is not set up" });
  return {
    oidc: audience === "" ? null : { audience, serviceAccount },
    sharedToken: sharedToken === "" ? null : sharedToken,
  };
}

/**
 * Accepts a push that carries the shared token or Google's OIDC token, whichever is set up; with
 * both set up either will do, so that one can be replaced by the other without a gap. Throws
 * `forbidden`, or `upstream_unavailable` where Google's keys cannot be known.
 */
export async function verifyPush(
  request: PushRequest,
  { oidc, sharedToken }: PushAuth,
  keys: KeySource,
): Promise<void> {
  const bearer = bearerOf(request.headers);
  if (sharedToken !== null && (await presentsToken(request, bearer, sharedToken))) return;
  if (oidc === null || bearer === null)
    throw new AppError("forbidden", { detail: "The push token is missing or wrong" });
  await verifyGoogleToken({ token: bearer, rules: oidc, keys, nowMs: request.nowMs });
}

/** All places are looked at: Google adds its own Authorization to a URL that holds our token. */
async function presentsToken(
  { headers, url }: PushRequest,
  bearer: string | null,
  sharedToken: string,
): Promise<boolean> {
  const presented = [
    headers.get("x-pubsub-token"),
    headers.get("x-gmail-pubsub-token"),
    bearer,
    url.searchParams.get("token"),
  ];
  const matches = await Promise.all(
    presented.map(async (token) => token !== null && (await equalSecret(token, sharedToken))),
  );
  return matches.includes(true);
}

function bearerOf(headers: Headers): string | null {
  return /^Bearer ([^\s,]+)$/i.exec(headers.get("authorization") ?? "")?.[1] ?? null;
}
