import {
  createLocalJWKSet,
  createRemoteJWKSet,
  decodeJwt,
  decodeProtectedHeader,
  errors,
  jwtVerify,
} from "jose";
import type { JSONWebKeySet, JWTPayload, JWTVerifyGetKey } from "jose";
import { PlatformError } from "./errors";
import type { Claims, Identity } from "./invocation";

interface OidcProvider {
  readonly domain: string;
  readonly applicationID: string;
}

interface CustomProvider {
  readonly type: "customJwt";
  readonly issuer: string;
  readonly jwks: string;
  readonly algorithm: string;
  readonly applicationID?: string;
}

type Provider = OidcProvider | CustomProvider;

const OIDC_ALGORITHMS = ["RS256", "ES256", "EdDSA"];
const DISCOVERY_TIMEOUT_MS = 10_000;
/** Tokens whose clock is a little ahead are still good. */
const CLOCK_TOLERANCE_S = 5;

/** Verifies user tokens against the providers of `auth.config.ts`. */
export class Authenticator {
  readonly #config: () => unknown;
  readonly #fetch: typeof fetch;
  #providers: readonly Provider[] | null = null;
  readonly #keys = new Map<string, Promise<JWTVerifyGetKey>>();

  constructor(config: () => unknown, fetcher: typeof fetch) {
    this.#config = config;
    this.#fetch = fetcher;
  }

  /** Reads `auth.config.ts` again at the next token: it depends on variables. */
  forget(): void {
    this.#providers = null;
    this.#keys.clear();
  }

  /** The identity in a token; a bad one throws 401 with the platform's code. */
  async verify(token: string): Promise<Identity> {
    const unverified = readToken(token);
    try {
      const provider = this.#providerFor(unverified);
      if ("type" in provider) requireKeyId(unverified);
      const payload = await this.#verifyWith(provider, token);
      return { kind: "user", claims: claimsOf(payload, "type" in provider) };
    } catch (error) {
      return rejectToken(error);
    }
  }

  async #verifyWith(provider: Provider, token: string): Promise<JWTPayload> {
    const issuer = issuerOf(provider);
    const audience = provider.applicationID;
    const { payload } = await jwtVerify(token, await this.#keysOf(provider), {
      issuer: [issuer, issuer.replace(/^https:\/\//, ""), `${issuer}/`],
      algorithms: "type" in provider ? [provider.algorithm] : OIDC_ALGORITHMS,
      requiredClaims: ["sub", "exp"],
      clockTolerance: CLOCK_TOLERANCE_S,
      ...(audience === undefined ? {} : { audience }),
    });
    return payload;
  }

  #providerFor({ issuer, audiences }: UnverifiedToken): Provider {
    this.#providers ??= readProviders(this.#config());
    const found = this.#providers.find(
      (provider) =>
        trimIssuer(issuerOf(provider)) === trimIssuer(issuer) &&
        (provider.applicationID === undefined || audiences.includes(provider.applicationID)),
    );
    if (found !== undefined) return found;
    throw new PlatformError(
      401,
      "NoAuthProvider",
      "No auth provider found matching the given token. Check that your JWT's issuer and audience match one of your configured providers.",
    );
  }

  #keysOf(provider: Provider): Promise<JWTVerifyGetKey> {
    const id = JSON.stringify(provider);
    const known = this.#keys.get(id);
    if (known !== undefined) return known;
    const keys = "type" in provider ? this.#keysAt(provider.jwks) : this.#discover(provider);
    this.#keys.set(id, keys);
    // A provider that could not be reached is asked again at the next token.
    keys.catch(() => this.#keys.delete(id));
    return keys;
  }

  async #keysAt(jwks: string): Promise<JWTVerifyGetKey> {
    const url = new URL(jwks);
    if (url.protocol !== "data:") return createRemoteJWKSet(url);
    const response = await this.#fetch(url);
    return createLocalJWKSet((await response.json()) as JSONWebKeySet);
  }

  async #discover(provider: OidcProvider): Promise<JWTVerifyGetKey> {
    const url = `${issuerOf(provider).replace(/\/$/, "")}/.well-known/openid-configuration`;
    const response = await this.#fetch(url, { signal: AbortSignal.timeout(DISCOVERY_TIMEOUT_MS) });
    if (!response.ok)
      throw new PlatformError(
        401,
        "AuthProviderDiscoveryFailed",
        `Auth provider discovery of ${provider.domain} failed: ${response.status}`,
      );
    const { jwks_uri } = (await response.json()) as { jwks_uri: string };
    return this.#keysAt(jwks_uri);
  }
}

/** What a token says before anything of it is verified. */
interface UnverifiedToken {
  readonly issuer: string;
  readonly audiences: readonly string[];
  readonly keyId: unknown;
}

/**
 * Reads a token that is in form: the claims that are used later have the types of RFC 7519, as the
 * platform demands of them. A signature says who made a token, not that it was made well.
 */
function readToken(token: string): UnverifiedToken {
  const { header, payload } = decode(token);
  // The library types the claims as they should be; what was sent may be anything.
  const { aud, exp, iss, sub } = payload as Readonly<Record<string, unknown>>;
  if (iss === undefined) throw unauthenticated("Missing issuer claim ('iss') in JWT payload.");
  if (!isText(iss)) throw wrongType("iss");
  if (sub !== undefined && !isText(sub)) throw wrongType("sub");
  if (exp !== undefined && !isTime(exp)) throw wrongType("exp");
  const audiences: readonly unknown[] = aud === undefined ? [] : [aud].flat();
  if (!audiences.every(isText)) throw wrongType("aud");
  return { issuer: iss, audiences, keyId: header["kid"] };
}

function decode(token: string): {
  readonly header: Readonly<Record<string, unknown>>;
  readonly payload: JWTPayload;
} {
  try {
    return { header: { ...decodeProtectedHeader(token) }, payload: decodeJwt(token) };
  } catch {
    throw unauthenticated(
      "Could not parse JWT payload. Check that the token is a valid JWT format with three base64-encoded parts separated by dots.",
    );
  }
}

/** Tokens of a custom provider name their key: https://docs.convex.dev/auth/advanced/custom-jwt */
function requireKeyId({ keyId }: UnverifiedToken): void {
  if (!isText(keyId) || keyId === "")
    throw unauthenticated("Missing key id ('kid') in JWT header.");
}

/** JSON can escape half a surrogate pair, which is no text to the platform. */
const isText = (value: unknown): value is string =>
  typeof value === "string" && !/\p{Surrogate}/u.test(value);

/** The last second that a date can hold. */
const SECONDS_MAX = 8.64e12;

const isTime = (value: unknown): boolean =>
  typeof value === "number" && Math.abs(value) <= SECONDS_MAX;

const wrongType = (claim: string) =>
  unauthenticated(`Could not parse JWT payload: the claim '${claim}' is not of its type.`);

function readProviders(config: unknown): readonly Provider[] {
  const { providers = [] } = (config ?? {}) as { providers?: readonly Provider[] };
  // A provider whose variables are unset matches nobody.
  return providers.filter((provider) => issuerOf(provider) !== "https://");
}

function issuerOf(provider: Provider): string {
  const issuer = "type" in provider ? provider.issuer : provider.domain;
  return /^https?:\/\//.test(issuer) ? issuer : `https://${issuer}`;
}

const trimIssuer = (issuer: string) => issuer.replace(/^https:\/\//, "").replace(/\/$/, "");

const unauthenticated = (message: string) => new PlatformError(401, "InvalidAuthHeader", message);

function rejectToken(error: unknown): never {
  if (error instanceof PlatformError) throw error;
  const reason =
    error instanceof errors.JOSEError
      ? error.message
      : "the provider or its keys could not be read";
  throw unauthenticated(`Could not verify token claim: ${reason}.`);
}

/** Registered claims that are no attributes of a user. */
const DROPPED = new Set(["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "fva"]);
/** OpenID's standard claims under the names of Convex's `UserIdentity`. */
const RENAMED: Readonly<Record<string, string>> = {
  name: "name",
  given_name: "givenName",
  family_name: "familyName",
  nickname: "nickname",
  preferred_username: "preferredUsername",
  profile: "profileUrl",
  picture: "pictureUrl",
  website: "websiteUrl",
  email: "email",
  email_verified: "emailVerified",
  gender: "gender",
  birthdate: "birthday",
  zoneinfo: "timezone",
  locale: "language",
  phone_number: "phoneNumber",
  phone_number_verified: "phoneNumberVerified",
  address: "address",
  updated_at: "updatedAt",
};

/** OpenID tokens get Convex's names for standard claims; custom tokens keep theirs, flattened. */
function claimsOf(payload: JWTPayload, custom: boolean): Claims {
  const { sub: subject = "", iss: issuer = "" } = payload;
  const attributes: Record<string, unknown> = {};
  const rest = Object.entries(payload).filter(([name]) => !DROPPED.has(name));
  for (const [name, value] of rest)
    if (custom) flatten(name, value, attributes);
    else attributes[RENAMED[name] ?? name] = value;
  return { ...attributes, subject, issuer, tokenIdentifier: `${issuer}|${subject}` };
}

function flatten(name: string, value: unknown, into: Record<string, unknown>): void {
  if (typeof value !== "object" || value === null || Array.isArray(value)) into[name] = value;
  else for (const [key, part] of Object.entries(value)) flatten(`${name}.${key}`, part, into);
}
