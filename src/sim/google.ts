// Wire format: developers.google.com/identity, "OAuth 2.0 for web server applications" and "OpenID Connect";
// cloud.google.com/pubsub, "Authentication for push subscriptions".
import {
  createHash,
  createHmac,
  createPublicKey,
  generateKeyPairSync,
  sign,
  type KeyObject,
} from "node:crypto";
import { number, parseJson, record, text } from "./json";
import {
  json,
  retryAfter,
  type Answer,
  type Call,
  type Provider,
  type ProviderSpec,
} from "./provider";
import { seedOf } from "./seed";

const CLIENT_ID = "sim-google-client-id";
const CLIENT_SECRET = "sim-google-client-secret";
const PUSH_AUDIENCE = "ballast-sim-gmail-push";
const PUSH_SERVICE_ACCOUNT = "gmail-push@ballast-sim.iam.gserviceaccount.com";
const SCOPE = "https://www.googleapis.com/auth/gmail.readonly";
const DEFAULT_EMAIL = "someone@example.com";

export const googleSpec: ProviderSpec = {
  id: "google",
  title: "Google OAuth",
  keyNames: ["GMAIL_OAUTH_CLIENT_ID", "GMAIL_OAUTH_CLIENT_SECRET"],
  env: (baseUrl) => ({
    GOOGLE_OAUTH_BASE_URL: baseUrl,
    GMAIL_OAUTH_CLIENT_ID: CLIENT_ID,
    GMAIL_OAUTH_CLIENT_SECRET: CLIENT_SECRET,
  }),
};

/** Set apart from OAuth: one may use real pushes with a client that is not set up yet. */
export const googlePushSpec: ProviderSpec = {
  id: "google-push",
  servedBy: googleSpec.id,
  title: "Google push tokens",
  keyNames: ["GMAIL_PUSH_AUDIENCE", "GMAIL_PUSH_SERVICE_ACCOUNT"],
  env: (baseUrl) => ({
    GOOGLE_CERTS_URL: `${baseUrl}/oauth2/v3/certs`,
    GMAIL_PUSH_AUDIENCE: PUSH_AUDIENCE,
    GMAIL_PUSH_SERVICE_ACCOUNT: PUSH_SERVICE_ACCOUNT,
  }),
};

/** What a push token says; anything left out is as a verifier expects it. */
interface PushTokenRequest {
  readonly audience?: unknown;
  readonly email?: unknown;
  readonly emailVerified?: unknown;
  readonly issuer?: unknown;
  readonly issuedAtSeconds?: unknown;
  readonly expiresInSeconds?: unknown;
  /** Another key id in the header than that of the signing key. */
  readonly kid?: unknown;
  /** `none` leaves the signature empty; `HS256` signs with the public key as a secret. */
  readonly algorithm?: unknown;
  /** Signs with a key that is not among the certificates. */
  readonly foreignKey?: unknown;
  /** Further claims; null removes one. */
  readonly claims?: unknown;
}

export interface Google extends Provider {
  pushToken(request: PushTokenRequest, nowMs: number): string;
  /** A new signing key, the old one no longer among the certificates. */
  rotateKeys(): void;
}

/** OAuth consent and tokens, certificates, and the tokens that Pub/Sub pushes with. */
export function createGoogle(): Google {
  const keys = new SigningKeys();
  const spent = new Set<string>();
  const revoked = new Set<string>();
  return {
    ...googleSpec,
    handle: (call) => {
      switch (`${call.method} ${call.path}`) {
        case "GET /oauth2/v3/certs":
          return json(200, { keys: [keys.current().jwk] }, { "cache-control": CERTS_CACHE });
        case "GET /o/oauth2/v2/auth":
          return consent(call);
        case "POST /token":
        case "POST /oauth2/v4/token":
          return exchange(call, { spent, revoked });
        case "POST /revoke":
          revoked.add(formOf(call).get("token") ?? call.query.get("token") ?? "");
          return json(200, {});
        default:
          return json(404, { error: "not_found" });
      }
    },
    refuse,
    reset: () => {
      spent.clear();
      revoked.clear();
    },
    pushToken: (request, nowMs) => mint(keys, request, nowMs),
    rotateKeys: () => {
      keys.rotate();
    },
  };
}

const CERTS_CACHE = "public, max-age=19800, must-revalidate, no-transform";

interface SigningKey {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
  readonly kid: string;
  readonly jwk: object;
}

/** Made when first needed: an RSA key costs a noticeable part of a second. */
class SigningKeys {
  private key: SigningKey | null = null;
  private stranger: SigningKey | null = null;

  current(): SigningKey {
    return (this.key ??= generate());
  }

  foreign(): SigningKey {
    return (this.stranger ??= generate());
  }

  rotate(): void {
    this.key = null;
  }
}

function generate(): SigningKey {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const publicKey = createPublicKey(privateKey);
  const { n = "", e = "" } = publicKey.export({ format: "jwk" });
  const kid = createHash("sha1").update(n).digest("hex");
  return { privateKey, publicKey, kid, jwk: { kty: "RSA", use: "sig", alg: "RS256", kid, n, e } };
}

function mint(keys: SigningKeys, request: PushTokenRequest, nowMs: number): string {
  const key = request.foreignKey === true ? keys.foreign() : keys.current();
  const algorithm = text(request.algorithm) || "RS256";
  const issuedAt = number(request.issuedAtSeconds) ?? Math.floor(nowMs / 1000);
  const email = request.email ?? PUSH_SERVICE_ACCOUNT;
  const subject = String(1e20 + seedOf("push", text(email)).int("sub", 1e9)).replace(/\D/g, "");
  const claims: Record<string, unknown> = {
    aud: request.audience ?? PUSH_AUDIENCE,
    azp: subject,
    email,
    email_verified: request.emailVerified ?? true,
    exp: issuedAt + (number(request.expiresInSeconds) ?? 3600),
    iat: issuedAt,
    iss: request.issuer ?? "https://accounts.google.com",
    sub: subject,
    ...record(request.claims),
  };
  const present = Object.fromEntries(Object.entries(claims).filter(([, value]) => value !== null));
  const head = {
    alg: algorithm,
    kid: text(request.kid) || currentKid(keys, key, request),
    typ: "JWT",
  };
  const signed = `${base64url(head)}.${base64url(present)}`;
  return `${signed}.${signature(algorithm, signed, key)}`;
}

/** A stranger's token claims the known key: otherwise only the key id would be tested. */
function currentKid(keys: SigningKeys, key: SigningKey, request: PushTokenRequest): string {
  return request.foreignKey === true ? keys.current().kid : key.kid;
}

function signature(algorithm: string, signed: string, key: SigningKey): string {
  switch (algorithm) {
    case "none":
      return "";
    case "HS256": {
      const secret = key.publicKey.export({ format: "pem", type: "spki" });
      return createHmac("sha256", secret).update(signed).digest("base64url");
    }
    default:
      return sign("sha256", Buffer.from(signed), key.privateKey).toString("base64url");
  }
}

function base64url(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

/** The consent page, agreed to at once. Only redirects to this machine, so it is no open redirect. */
function consent({ query }: Call): Answer {
  const redirectUri = query.get("redirect_uri") ?? "";
  if (query.get("client_id") !== CLIENT_ID)
    return json(401, {
      error: "invalid_client",
      error_description: "The OAuth client was not found.",
    });
  if (!URL.canParse(redirectUri) || !isLoopback(new URL(redirectUri).hostname))
    return json(400, { error: "redirect_uri_mismatch" });
  const email = query.get("login_hint") ?? DEFAULT_EMAIL;
  const challenge = query.get("code_challenge") ?? "";
  const state = query.get("state") ?? "";
  const nonce = seedOf("code", email, challenge, state).id("nonce", 16);
  const target = new URL(redirectUri);
  target.searchParams.set("state", state);
  target.searchParams.set("code", `4/0${base64url({ email, challenge, redirectUri, nonce })}`);
  target.searchParams.set("scope", query.get("scope") ?? SCOPE);
  return { status: 302, headers: { location: target.href }, body: { kind: "text", text: "" } };
}

function isLoopback(hostname: string): boolean {
  return ["127.0.0.1", "localhost", "[::1]"].includes(hostname);
}

function formOf(call: Call): URLSearchParams {
  return new URLSearchParams(new TextDecoder().decode(call.bytes));
}

interface Used {
  readonly spent: Set<string>;
  readonly revoked: ReadonlySet<string>;
}

function exchange(call: Call, used: Used): Answer {
  const form = formOf(call);
  if (form.get("client_id") !== CLIENT_ID)
    return json(401, {
      error: "invalid_client",
      error_description: "The OAuth client was not found.",
    });
  if (form.get("client_secret") !== CLIENT_SECRET)
    return json(401, { error: "invalid_client", error_description: "Unauthorized" });
  switch (form.get("grant_type") ?? "") {
    case "authorization_code":
      return redeem(form, used);
    case "refresh_token":
      return refresh(form.get("refresh_token") ?? "", used);
    default:
      return json(400, {
        error: "unsupported_grant_type",
        error_description: "Invalid grant_type",
      });
  }
}

function redeem(form: URLSearchParams, { spent }: Used): Answer {
  const code = form.get("code") ?? "";
  const granted = record(parseJson(Buffer.from(code.replace(/^4\/0/, ""), "base64url")));
  const email = text(granted["email"]);
  if (!code.startsWith("4/0") || email === "" || spent.has(code))
    return json(400, { error: "invalid_grant", error_description: "Malformed auth code." });
  if (form.get("redirect_uri") !== granted["redirectUri"])
    return json(400, { error: "redirect_uri_mismatch", error_description: "Bad Request" });
  const challenge = text(granted["challenge"]);
  const verifier = form.get("code_verifier") ?? "";
  if (challenge !== "" && challenge !== createHash("sha256").update(verifier).digest("base64url"))
    return json(400, { error: "invalid_grant", error_description: "Invalid code verifier." });
  spent.add(code);
  return json(200, { ...accessGrant(email), refresh_token: tokenFor("1//0sim", email) });
}

function refresh(token: string, { revoked }: Used): Answer {
  const email = emailOfToken("1//0sim", token);
  return email === null || revoked.has(token)
    ? json(400, { error: "invalid_grant", error_description: "Token has been expired or revoked." })
    : json(200, accessGrant(email));
}

function accessGrant(email: string) {
  return {
    access_token: tokenFor("ya29.sim", email),
    expires_in: 3599,
    scope: SCOPE,
    token_type: "Bearer",
  };
}

/** Tokens name their mailbox, so that nothing has to be remembered between requests. */
function tokenFor(kind: string, email: string): string {
  const name = Buffer.from(email).toString("base64url");
  return `${kind}.${name}.${seedOf(kind, email).id("proof", 16)}`;
}

function emailOfToken(kind: string, token: string): string | null {
  const name = token.startsWith(`${kind}.`)
    ? token.slice(kind.length + 1).split(".")[0]
    : undefined;
  if (name === undefined) return null;
  const email = Buffer.from(name, "base64url").toString("utf8");
  return tokenFor(kind, email) === token ? email : null;
}

/** The mailbox that an access token opens; null for a token of nobody. */
export function mailboxOf(accessToken: string): string | null {
  return emailOfToken("ya29.sim", accessToken);
}

const ERRORS: Readonly<Record<number, string>> = {
  400: "invalid_grant",
  401: "invalid_client",
  403: "access_denied",
  429: "rate_limit_exceeded",
  503: "temporarily_unavailable",
};

function refuse(status: number, retryAfterSeconds: number | undefined): Answer {
  return json(
    status,
    { error: ERRORS[status] ?? "internal_failure", error_description: "Simulated" },
    retryAfter(status, retryAfterSeconds),
  );
}
