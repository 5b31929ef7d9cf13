import { AppError } from "../errors/appError";
import type { Env } from "./env";
import { readKnob } from "./read";

/**
 * Throws `misconfigured` where a variable of sign-in is out of form or half of a pair is missing:
 * no token can be checked then, and whoever sends a good one must not be told that it is bad. With
 * none of them set nobody has an identity, which is no mistake.
 */
export function requireSignIn(env: Env): void {
  const issuer = readKnob(env, "AUTH_ISSUER");
  const keys = readKnob(env, "AUTH_JWKS_URL");
  readKnob(env, "AUTH_AUDIENCE");
  if ((issuer === "") === (keys === "")) return;
  const missing = issuer === "" ? "AUTH_ISSUER" : "AUTH_JWKS_URL";
  throw new AppError("misconfigured", { detail: `${missing} is not set` });
}
