import type { RouteId, RouteRow } from "../../src/http/routes";
import { hub256 } from "../../src/sim/deliveries";

/** What is known that lets a request pass the guards before the one that is probed. */
export interface Credentials {
  /** An origin whose pages may call. */
  readonly origin: string | null;
  /** A user's access token. */
  readonly token: string | null;
  readonly secret: (name: string) => string | null;
  /** The query that a token in it opens, and the answer; null for a route that has none. */
  readonly handshake: (
    id: RouteId,
  ) => { readonly query: string | null; readonly text: string } | null;
}

/** How a body is signed; a scheme that is not here is probed without a signature only. */
const SIGNED: Readonly<
  Record<
    string,
    {
      readonly secret: string;
      readonly flag: string;
      readonly headers: (secret: string, body: string) => Record<string, string>;
    }
  >
> = {
  "hub-256": {
    secret: "WHATSAPP_APP_SECRET",
    flag: "--whatsapp-secret",
    headers: (secret, body) => ({ "x-hub-signature-256": hub256(secret, body) }),
  },
  "google-push": {
    secret: "GMAIL_PUBSUB_VERIFY_TOKEN",
    flag: "--gmail-token",
    headers: (secret) => ({ "x-pubsub-token": secret }),
  },
};

/** Signatures that are none, in the form of each scheme. */
export const FORGED: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  "hub-256": { "x-hub-signature-256": `sha256=${"0".repeat(64)}` },
  "google-push": { "x-pubsub-token": "probe-forged" },
};

/** Headers that let a body pass to where it is read; a text says what is missing. */
export function pass(
  row: RouteRow,
  body: string,
  credentials: Credentials,
): Readonly<Record<string, string>> | string {
  if (row.auth.kind !== "signature") return {};
  const scheme = SIGNED[row.auth.scheme];
  if (scheme === undefined) return `nobody knows how to sign for ${row.auth.scheme}`;
  const secret = credentials.secret(scheme.secret);
  return secret === null
    ? `${scheme.secret} is not known: give ${scheme.flag}`
    : scheme.headers(secret, body);
}

const CHALLENGE = "probe";

/** Credentials of a target, as far as they are known. */
export function credentialsFrom(known: {
  readonly origin: string | null;
  readonly token: string | null;
  readonly secret: (name: string) => string | null;
}): Credentials {
  return {
    ...known,
    handshake: (id) => {
      if (id !== "whatsappVerify") return null;
      const token = known.secret("WHATSAPP_VERIFY_TOKEN");
      const query =
        token === null
          ? null
          : new URLSearchParams({
              "hub.mode": "subscribe",
              "hub.verify_token": token,
              "hub.challenge": CHALLENGE,
            }).toString();
      return { query, text: CHALLENGE };
    },
  };
}
