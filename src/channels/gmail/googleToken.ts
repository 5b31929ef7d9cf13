import {
  base64url,
  decodeProtectedHeader,
  errors,
  importJWK,
  type JWTClaimVerificationOptions,
  type JWTPayload,
  jwtVerify,
  UnsecuredJWT,
} from "jose";
import { isWellFormed } from "../../core/wellFormed";
import { AppError } from "../../errors/appError";
import { findKey, KEY_ID_LENGTH_MAX, type KeySource } from "./googleKeys";

const ISSUERS = ["https://accounts.google.com", "accounts.google.com"];
/** Google's own libraries allow this much disagreement between clocks. */
const CLOCK_SKEW_SECONDS = 300;
/** No token that Google issues lives longer. */
const LIFETIME_SECONDS_MAX = 86_400;
const TOKEN_LENGTH_MAX = 8_192;

export interface GoogleTokenRules {
  /** The audience set on the subscription, exactly. */
  readonly audience: string;
  /** E-mail address of the service account that the subscription pushes as. */
  readonly serviceAccount: string;
}

interface PresentedToken {
  readonly token: string;
  readonly rules: GoogleTokenRules;
  readonly keys: KeySource;
  readonly nowMs: number;
}

/**
 * Verifies the OIDC token of a Pub/Sub push. Throws `forbidden` for any token that is not
 * Google's for this subscription, `upstream_unavailable` where its key cannot be known now.
 */
export async function verifyGoogleToken(presented: PresentedToken): Promise<void> {
  const { token, rules, keys, nowMs } = presented;
  if (token.length > TOKEN_LENGTH_MAX) throw wrong();
  const claimRules: JWTClaimVerificationOptions = {
    issuer: ISSUERS,
    audience: rules.audience,
    clockTolerance: CLOCK_SKEW_SECONDS,
    maxTokenAge: LIFETIME_SECONDS_MAX,
    currentDate: new Date(nowMs),
  };
  const kid = keyIdOf(token);
  if (kid === null || !claimsToBeFor(token, rules, claimRules)) throw wrong();
  const findIt = async () => {
    const { n, e } = await findKey(keys, kid, nowMs);
    return await importJWK({ kty: "RSA", n, e, alg: "RS256" }, "RS256");
  };
  try {
    // Naming the one algorithm refuses both `none` and an HMAC keyed with the public key.
    const { payload } = await jwtVerify(token, findIt, { ...claimRules, algorithms: ["RS256"] });
    if (!isFor(payload, rules)) throw wrong();
  } catch (error) {
    if (error instanceof errors.JOSEError) throw wrong();
    throw error;
  }
}

/** The id of the key that a token names; null where there can be no such key. */
function keyIdOf(token: string): string | null {
  try {
    const { kid } = decodeProtectedHeader(token) as { readonly kid?: unknown };
    const isId = typeof kid === "string" && kid !== "" && kid.length <= KEY_ID_LENGTH_MAX;
    return isId && isWellFormed(kid) ? kid : null;
  } catch {
    return null;
  }
}

const UNSIGNED = base64url.encode(JSON.stringify({ alg: "none" }));

/**
 * Whether a token says the right things, whoever signed it. One that does not is refused whatever
 * its key is, so it is not worth a look at the keys, nor a request to Google for one that is new.
 */
function claimsToBeFor(
  token: string,
  rules: GoogleTokenRules,
  claimRules: JWTClaimVerificationOptions,
): boolean {
  const [, payload = "", signature = ""] = token.split(".");
  if (!/^[\w-]+$/.test(signature)) return false;
  try {
    // Without its signature the library judges the same claims by the same rules as with it.
    return isFor(UnsecuredJWT.decode(`${UNSIGNED}.${payload}.`, claimRules).payload, rules);
  } catch {
    return false;
  }
}

function isFor(payload: JWTPayload, { audience, serviceAccount }: GoogleTokenRules): boolean {
  const { aud, exp = Infinity, iat = 0, email, email_verified: verified } = payload;
  return (
    // Without an expiry the lifetime is infinite.
    exp - iat <= LIFETIME_SECONDS_MAX &&
    // A list of audiences would let one token open several doors; Google sends one.
    aud === audience &&
    // Only the boolean: the text "false" is true to a lenient check.
    verified === true &&
    email === serviceAccount
  );
}

const wrong = (): AppError =>
  new AppError("forbidden", { detail: "The push token is missing or wrong" });
