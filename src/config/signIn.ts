import { isWellFormed } from "../core/wellFormed";
import { AppError } from "../errors/appError";
import type { Env } from "./env";
import { readKnob } from "./read";

/**
 * Throws `misconfigured` where a variable of sign-in is out of form or half of a pair is missing:
 * no token can be checked then, and whoever sends a good one must not be told that it is bad. With
 * none of them set nobody has an identity, which is no mistake.
 */
function requireSignIn(env: Env): void {
  const issuer = readKnob(env, "AUTH_ISSUER");
  const keys = readKnob(env, "AUTH_JWKS_URL");
  readKnob(env, "AUTH_AUDIENCE");
  if ((issuer === "") === (keys === "")) return;
  const missing = issuer === "" ? "AUTH_ISSUER" : "AUTH_JWKS_URL";
  throw new AppError("misconfigured", { detail: `${missing} is not set` });
}

/** A caller whom a token names. */
export interface Identity {
  /** The user's id. */
  readonly subject: string;
}

/** Where the platform tells who calls. The claims are a token's, so they may be anything. */
export interface IdentitySource {
  getUserIdentity(): Promise<{ readonly subject: unknown } | null>;
}

/**
 * Who calls a route or a function. A token that names nobody whom it could tell from another is no
 * token: `unauthorized` is thrown as without one, or `misconfigured` where nobody can have one.
 */
export async function requireIdentity(auth: IdentitySource, env: Env): Promise<Identity> {
  const subject = await subjectOf(auth);
  if (subject !== null) return { subject };
  requireSignIn(env);
  throw new AppError("unauthorized");
}

async function subjectOf(auth: IdentitySource): Promise<string | null> {
  let claims: { readonly subject: unknown } | null;
  try {
    claims = await auth.getUserIdentity();
  } catch {
    // A token that the platform cannot parse makes the read throw.
    return null;
  }
  const subject = claims?.subject;
  if (typeof subject !== "string" || subject === "" || !isWellFormed(subject)) return null;
  return subject;
}
