import { AppError } from "../../errors/appError";
import { equalSecret } from "../signature/constantTime";

const CHALLENGE_LENGTH_MAX = 1_024;

/**
 * Answers Meta's subscription handshake with its challenge. Throws `forbidden` for another mode or
 * token, `invalid_request` without a challenge, `misconfigured` for an empty verify token.
 */
export async function answerHandshake(url: URL, verifyToken: string): Promise<Response> {
  if (verifyToken === "")
    throw new AppError("misconfigured", { detail: "WHATSAPP_VERIFY_TOKEN is not set" });
  const token = only(url, "hub.verify_token");
  const sound = token !== null && (await equalSecret(token, verifyToken));
  if (!sound || only(url, "hub.mode") !== "subscribe")
    throw new AppError("forbidden", { detail: "The verify token is missing or wrong" });
  const challenge = only(url, "hub.challenge");
  if (challenge === null || challenge === "" || challenge.length > CHALLENGE_LENGTH_MAX)
    throw new AppError("invalid_request", {
      issues: [{ path: "hub.challenge", message: "Expected 1 to 1,024 characters" }],
    });
  return new Response(challenge, {
    // The text is the caller's: a browser must not take it for a page.
    headers: { "content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff" },
  });
}

/** A query parameter that is given exactly once. */
function only(url: URL, name: string): string | null {
  const [value = null, ...more] = url.searchParams.getAll(name);
  return more.length === 0 ? value : null;
}
