import { base64url, CompactSign, exportJWK, generateKeyPair, SignJWT } from "jose";
import { AppError } from "../../src/errors/appError";
import type { GoogleKey, KeySource } from "../../src/channels/gmail/googleKeys";
import { type PushAuth, pushAuth, verifyPush } from "../../src/channels/gmail/pushAuth";
import type { Case } from "./cases";

// Claims shaped as in Google's guide on authenticating Pub/Sub push requests, values our own.
const AUDIENCE = "https://ballast.example/api/gmail/push";
const SERVICE_ACCOUNT = "push@ballast-test.iam.gserviceaccount.com";
const SHARED_TOKEN = "shared-token-of-our-own";
const NOW_MS = 1_790_000_000_000;
const NOW_SECONDS = NOW_MS / 1000;

const OIDC_ONLY = pushAuth({
  audience: AUDIENCE,
  serviceAccount: SERVICE_ACCOUNT,
  sharedToken: "",
});
const TOKEN_ONLY = pushAuth({ audience: "", serviceAccount: "", sharedToken: SHARED_TOKEN });
const BOTH = { ...OIDC_ONLY, sharedToken: SHARED_TOKEN };

type KeyPair = Awaited<ReturnType<typeof generateKeyPair>>;

interface Keys {
  readonly google: KeyPair;
  readonly stranger: KeyPair;
  readonly published: GoogleKey;
}

/** Gmail push verification: OIDC tokens, the shared token, their settings, and who is refused. */
export async function googleCases(): Promise<readonly Case[]> {
  const keys = await makeKeys();
  const claimed = Object.entries(wrongClaims()).map(([name, claims]) =>
    tokenCase(`claims: ${name}`, "forbidden", keys, () => sign(keys.google, claims)),
  );
  return [
    tokenCase("sound token", "accepted", keys, () => sign(keys.google, {})),
    ...Object.entries(soundClaims()).map(([name, claims]) =>
      tokenCase(`claims: ${name}`, "accepted", keys, () => sign(keys.google, claims)),
    ),
    ...claimed,
    ...forgeries(keys),
    ...sharedTokenCases(keys),
    ...settingsCases(),
    keysUnreachable(keys),
  ];
}

async function makeKeys(): Promise<Keys> {
  const options = { extractable: true, modulusLength: 2048 };
  const [google, stranger] = await Promise.all([
    generateKeyPair("RS256", options),
    generateKeyPair("RS256", options),
  ]);
  const { n = "", e = "" } = await exportJWK(google.publicKey);
  return { google, stranger, published: { kid: "k1", n, e } };
}

type Claims = Record<string, unknown>;

function soundClaims(): Record<string, Claims> {
  return {
    "issuer without scheme": { iss: "accounts.google.com" },
    "expired within the skew": { exp: NOW_SECONDS - 299, iat: NOW_SECONDS - 3899 },
    "issued ahead within the skew": { iat: NOW_SECONDS + 300 },
  };
}

function wrongClaims(): Record<string, Claims> {
  return {
    "other audience": { aud: "https://ballast.example/other" },
    "audience with a slash more": { aud: `${AUDIENCE}/` },
    "list of this audience": { aud: [AUDIENCE] },
    "list of audiences": { aud: [AUDIENCE, "https://elsewhere.example"] },
    "no audience": { aud: undefined },
    "other issuer": { iss: "https://accounts.example" },
    "issuer with a slash more": { iss: "https://accounts.google.com/" },
    "no issuer": { iss: undefined },
    expired: { exp: NOW_SECONDS - 301, iat: NOW_SECONDS - 3901 },
    "no expiry": { exp: undefined },
    "expiry as text": { exp: String(NOW_SECONDS + 3600) },
    "issued in the future": { iat: NOW_SECONDS + 301 },
    "no time of issue": { iat: undefined },
    "issued two days ago": { iat: NOW_SECONDS - 172_800 },
    "lives for a week": { exp: NOW_SECONDS + 604_800 },
    "not valid yet": { nbf: NOW_SECONDS + 301 },
    "longer than any token of Google's": { note: "x".repeat(8_192) },
    "e-mail not verified": { email_verified: false },
    "e-mail verified, as text": { email_verified: "true" },
    "e-mail verified, as a number": { email_verified: 1 },
    "e-mail verification absent": { email_verified: undefined },
    "other service account": { email: "push@elsewhere.iam.gserviceaccount.com" },
    "service account in upper case": { email: SERVICE_ACCOUNT.toUpperCase() },
    "no e-mail": { email: undefined },
  };
}

function forgeries(keys: Keys): Case[] {
  const forged: Record<string, () => Promise<string>> = {
    "signed by another key under this id": () => sign(keys.stranger, {}),
    "unknown key id": () => sign(keys.google, {}, { kid: "k2" }),
    "no key id": () => sign(keys.google, {}, { kid: undefined }),
    "empty key id": () => sign(keys.google, {}, { kid: "" }),
    "algorithm none": async () => `${encode({ alg: "none", kid: "k1" })}.${encode(claims({}))}.`,
    "HMAC keyed with the public key": () => hmacToken(keys.published),
    "other RSA algorithm": () => signPs256(keys),
    "payload changed after signing": async () => {
      const [header, , signature] = (await sign(keys.google, {})).split(".");
      return `${header ?? ""}.${encode(claims({ sub: "1" }))}.${signature ?? ""}`;
    },
    "signature cut off": async () => (await sign(keys.google, {})).slice(0, -8),
    "signature absent": async () => (await sign(keys.google, {})).replace(/[^.]*$/, ""),
    "payload that is no object": () => signText(keys, '"text"'),
    "not a token": async () => "abc",
    "three dots": async () => "...",
    "a long text": async () => "a".repeat(10_000),
    "the shared token where none is set": async () => SHARED_TOKEN,
  };
  return Object.entries(forged).map(([name, make]) =>
    tokenCase(`forged: ${name}`, "forbidden", keys, make),
  );
}

function sharedTokenCases({ published }: Keys): Case[] {
  const push = (auth: PushAuth, headers: Record<string, string>, query = "") =>
    verifyPush(request(headers, query), auth, sourceOf(published));
  const sound: Record<string, () => Promise<void>> = {
    "x-pubsub-token": () => push(TOKEN_ONLY, { "x-pubsub-token": SHARED_TOKEN }),
    "x-gmail-pubsub-token": () => push(TOKEN_ONLY, { "x-gmail-pubsub-token": SHARED_TOKEN }),
    authorization: () => push(TOKEN_ONLY, { authorization: `Bearer ${SHARED_TOKEN}` }),
    query: () => push(TOKEN_ONLY, {}, `?token=${SHARED_TOKEN}`),
    "query beside another authorization": () =>
      push(TOKEN_ONLY, { authorization: "Bearer a.b.c" }, `?token=${SHARED_TOKEN}`),
    "beside OIDC": () => push(BOTH, { "x-pubsub-token": SHARED_TOKEN }),
  };
  const wrong: Record<string, () => Promise<void>> = {
    absent: () => push(TOKEN_ONLY, {}),
    empty: () => push(TOKEN_ONLY, { "x-pubsub-token": "" }, "?token="),
    "empty authorization": () => push(TOKEN_ONLY, { authorization: "Bearer " }),
    "other scheme": () => push(TOKEN_ONLY, { authorization: `Basic ${SHARED_TOKEN}` }),
    "doubled authorization": () =>
      push(TOKEN_ONLY, { authorization: `Bearer ${SHARED_TOKEN}, Bearer ${SHARED_TOKEN}` }),
    "cut short": () => push(TOKEN_ONLY, { "x-pubsub-token": SHARED_TOKEN.slice(0, -1) }),
    "longer by one": () => push(TOKEN_ONLY, { "x-pubsub-token": `${SHARED_TOKEN}x` }),
    "upper case": () => push(TOKEN_ONLY, { "x-pubsub-token": SHARED_TOKEN.toUpperCase() }),
    "doubled header": () =>
      push(TOKEN_ONLY, { "x-pubsub-token": `${SHARED_TOKEN}, ${SHARED_TOKEN}` }),
    "not the one set, OIDC set too": () => push(BOTH, { "x-pubsub-token": "other" }),
    "none set": () => push(OIDC_ONLY, { "x-pubsub-token": SHARED_TOKEN }),
  };
  return [
    ...Object.entries(sound).map(([name, run]) => ({
      name: `shared token: ${name}`,
      expect: "accepted",
      run,
    })),
    ...Object.entries(wrong).map(([name, run]) => ({
      name: `shared token: ${name}`,
      expect: "forbidden",
      run,
    })),
  ];
}

function settingsCases(): Case[] {
  const settings = {
    "nothing set": { audience: "", serviceAccount: "", sharedToken: "" },
    "audience alone": { audience: AUDIENCE, serviceAccount: "", sharedToken: "" },
    "service account alone": { audience: "", serviceAccount: SERVICE_ACCOUNT, sharedToken: "" },
    "half of OIDC beside a token": { audience: AUDIENCE, serviceAccount: "", sharedToken: "t" },
  };
  return Object.entries(settings).map(([name, set]) => ({
    name: `settings: ${name}`,
    expect: "misconfigured",
    run: async () => pushAuth(set),
  }));
}

function keysUnreachable(keys: Keys): Case {
  const unreachable: KeySource = {
    ...sourceOf(keys.published),
    read: async () => null,
    fetch: async () => {
      throw new AppError("upstream_unavailable");
    },
  };
  return {
    name: "Google's keys cannot be fetched",
    expect: "upstream_unavailable",
    run: async () => {
      const token = await sign(keys.google, {});
      await verifyPush(request({ authorization: `Bearer ${token}` }), OIDC_ONLY, unreachable);
    },
  };
}

function tokenCase(name: string, expect: string, keys: Keys, make: () => Promise<string>): Case {
  const run = async () => {
    const token = await make();
    const headers = { authorization: `Bearer ${token}` };
    await verifyPush(request(headers), OIDC_ONLY, sourceOf(keys.published));
  };
  return { name, expect, run };
}

const request = (headers: Record<string, string>, query = "") => ({
  headers: new Headers(headers),
  url: new URL(`https://ballast.example/api/gmail/push${query}`),
  nowMs: NOW_MS,
});

function sourceOf(key: GoogleKey): KeySource {
  const fetched = { keys: [key], freshUntilMs: NOW_MS + 1 };
  return {
    read: async () => ({ ...fetched, attemptedAtMs: NOW_MS, fetchedAtMs: NOW_MS }),
    beginRefresh: async () => true,
    fetch: async () => fetched,
    save: async () => undefined,
    sleep: async () => undefined,
  };
}

function claims(changed: Claims): Claims {
  return {
    iss: "https://accounts.google.com",
    aud: AUDIENCE,
    azp: "100000000000000000001",
    sub: "100000000000000000001",
    email: SERVICE_ACCOUNT,
    email_verified: true,
    iat: NOW_SECONDS - 10,
    exp: NOW_SECONDS + 3590,
    ...changed,
  };
}

async function sign(
  { privateKey }: KeyPair,
  changed: Claims,
  header: { kid?: string | undefined } = {},
): Promise<string> {
  const { kid } = { kid: "k1", ...header };
  const fields = kid === undefined ? { alg: "RS256" } : { alg: "RS256", kid };
  return await new SignJWT(JSON.parse(JSON.stringify(claims(changed))) as Claims)
    .setProtectedHeader(fields)
    .sign(privateKey);
}

async function signText({ google }: Keys, text: string): Promise<string> {
  return await new CompactSign(new TextEncoder().encode(text))
    .setProtectedHeader({ alg: "RS256", kid: "k1" })
    .sign(google.privateKey);
}

async function signPs256({ google }: Keys): Promise<string> {
  const jwk = { ...(await exportJWK(google.privateKey)), alg: "PS256" };
  const algorithm = { name: "RSA-PSS", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("jwk", jwk, algorithm, false, ["sign"]);
  return await new SignJWT(claims({}))
    .setProtectedHeader({ alg: "PS256", kid: "k1" })
    .sign(key);
}

async function hmacToken({ n }: GoogleKey): Promise<string> {
  return await new SignJWT(claims({}))
    .setProtectedHeader({ alg: "HS256", kid: "k1" })
    .sign(new TextEncoder().encode(n));
}

const encode = (value: unknown): string => base64url.encode(JSON.stringify(value));
