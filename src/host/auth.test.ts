import { KeyObject, sign } from "node:crypto";
import { mkdtempSync, statSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { SignJWT, exportJWK, generateKeyPair } from "jose";
import type { JWTPayload } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Authenticator } from "./auth";
import { openIssuer } from "./devIssuer";

const ISSUER = "https://issuer.example.test";
const AUDIENCE = "app";
let keys: Awaited<ReturnType<typeof generateKeyPair>>;
let jwks: string;

beforeAll(async () => {
  keys = await generateKeyPair("RS256", { extractable: true });
  const jwk = { ...(await exportJWK(keys.publicKey)), kid: "k1", alg: "RS256" };
  jwks = `data:application/json;base64,${Buffer.from(JSON.stringify({ keys: [jwk] })).toString("base64")}`;
});

interface TokenOptions {
  readonly claims?: { readonly [claim in keyof JWTPayload]?: JWTPayload[claim] | undefined };
  readonly alg?: string;
  readonly kid?: string | undefined;
  readonly key?: CryptoKey | Uint8Array;
}

const inAnHour = () => Math.floor(Date.now() / 1_000) + 3_600;

async function tokenWith({
  claims,
  alg = "RS256",
  key,
  ...header
}: TokenOptions = {}): Promise<string> {
  const payload = {
    iss: ISSUER,
    aud: AUDIENCE,
    sub: "u1",
    exp: inAnHour(),
    ...claims,
  } as JWTPayload;
  const kid = "kid" in header ? header.kid : "k1";
  return new SignJWT(payload)
    .setProtectedHeader(kid === undefined ? { alg } : { alg, kid })
    .sign(key ?? keys.privateKey);
}

/** A token whose two parts say anything at all, rightly signed. */
function tokenOf(header: unknown, payload: unknown): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const input = `${part(header)}.${part(payload)}`;
  const key = KeyObject.from(keys.privateKey);
  return `${input}.${sign("sha256", Buffer.from(input), key).toString("base64url")}`;
}

const customConfig = () => ({
  providers: [
    { type: "customJwt", issuer: ISSUER, jwks, algorithm: "RS256", applicationID: AUDIENCE },
  ],
});
const authenticator = (config: () => unknown = customConfig) => new Authenticator(config, fetch);

describe("a custom token", () => {
  test("gives its claims flattened, without the registered ones", async () => {
    const claims = { role: "admin", org: { id: 7, tags: ["a"] }, jti: "j", fva: [1] };
    const identity = await authenticator().verify(await tokenWith({ claims }));
    expect(identity).toEqual({
      kind: "user",
      claims: {
        subject: "u1",
        issuer: ISSUER,
        tokenIdentifier: `${ISSUER}|u1`,
        role: "admin",
        "org.id": 7,
        "org.tags": ["a"],
      },
    });
  });

  test.each<[string, () => Promise<string>]>([
    ["expired", () => tokenWith({ claims: { exp: 1_000 } })],
    ["without expiry", () => tokenWith({ claims: { exp: undefined } })],
    ["not valid yet", () => tokenWith({ claims: { nbf: inAnHour() } })],
    ["without subject", () => tokenWith({ claims: { sub: undefined } })],
    ["without issuer", () => tokenWith({ claims: { iss: undefined } })],
    ["of another issuer", () => tokenWith({ claims: { iss: "https://evil.example.test" } })],
    ["for another audience", () => tokenWith({ claims: { aud: "other" } })],
    ["without audience", () => tokenWith({ claims: { aud: undefined } })],
    ["of an unknown key", () => tokenWith({ kid: "k2" })],
    [
      "signed by another key",
      async () => tokenWith({ key: (await generateKeyPair("RS256")).privateKey }),
    ],
    [
      "signed with the public key as a secret",
      () => tokenWith({ alg: "HS256", key: new TextEncoder().encode(jwks.padEnd(64)) }),
    ],
    ["without a signature", async () => `${(await tokenWith()).split(".").slice(0, 2).join(".")}.`],
    [
      "with another payload",
      async () => {
        const [head = "", , signature = ""] = (await tokenWith()).split(".");
        const payload = JSON.stringify({
          iss: ISSUER,
          aud: AUDIENCE,
          sub: "admin",
          exp: inAnHour(),
        });
        return [head, Buffer.from(payload).toString("base64url"), signature].join(".");
      },
    ],
    [
      "of algorithm none",
      async () => {
        const [, payload = ""] = (await tokenWith()).split(".");
        return `${Buffer.from('{"alg":"none"}').toString("base64url")}.${payload}.`;
      },
    ],
    ["without a key id", () => tokenWith({ kid: undefined })],
    ["of five parts", async () => "a.b.c.d.e"],
    ["of dots", async () => "....."],
    ["of no base64", async () => "%%%.$$$.###"],
    ["that is no token", async () => "abc"],
    ["that is empty", async () => ""],
  ])("%s is refused with 401", async (_, make) => {
    await expect(authenticator().verify(await make())).rejects.toMatchObject({ status: 401 });
  });

  const HEADER = { alg: "RS256", kid: "k1", typ: "JWT" };
  const CLAIMS = { iss: ISSUER, aud: AUDIENCE, sub: "u1", exp: 9_999_999_999 };
  const ODD = [7, 0, -1, 1.5, true, false, null, [], ["u1"], [1], { a: 1 }, "\ud800"];
  const NO_TIMES = [true, null, [], [1], {}, "9999999999", 1e300];

  test("that is odd in nothing else is taken when it is rightly signed", async () => {
    await expect(authenticator().verify(tokenOf(HEADER, CLAIMS))).resolves.toMatchObject({
      claims: { subject: "u1" },
    });
    const many = tokenOf(HEADER, { ...CLAIMS, aud: [AUDIENCE, "other"] });
    await expect(authenticator().verify(many)).resolves.toMatchObject({ kind: "user" });
  });

  test.each<readonly [string, unknown]>([
    ...ODD.map((sub) => ["sub", { ...CLAIMS, sub }] as const),
    ...ODD.map((iss) => ["iss", { ...CLAIMS, iss }] as const),
    ...[7, true, null, [7], [AUDIENCE, 7], [[AUDIENCE]], {}].map(
      (aud) => ["aud", { ...CLAIMS, aud }] as const,
    ),
    ...NO_TIMES.map((exp) => ["exp", { ...CLAIMS, exp }] as const),
    ["the whole of it", [CLAIMS]],
    ["the whole of it", null],
    ["the whole of it", "text"],
  ])("whose claim is of another type is refused with 401: %s in %j", async (claim, claims) => {
    const refused = authenticator().verify(tokenOf(HEADER, claims));
    await expect(refused).rejects.toMatchObject({ status: 401 });
    // Who issues tokens is told what is wrong with this one.
    const named = claim.length === 3 ? `'${claim}'` : "JWT payload";
    await expect(refused).rejects.toThrow(named);
  });

  test.each([
    ...ODD.map((kid) => ({ ...HEADER, kid })),
    { ...HEADER, kid: "" },
    { alg: "RS256" },
    { ...HEADER, alg: ["RS256"] },
    { ...HEADER, alg: 7 },
    { kid: "k1" },
    [HEADER],
    7,
    null,
    "RS256",
  ])("whose header is odd is refused with 401: %j", async (header) => {
    const refused = authenticator().verify(tokenOf(header, CLAIMS));
    await expect(refused).rejects.toMatchObject({ status: 401 });
  });

  test("is refused with 401 where the configuration cannot be read", async () => {
    const broken = authenticator(() => {
      throw new Error("auth.config.ts failed to load");
    });
    await expect(broken.verify(await tokenWith())).rejects.toMatchObject({ status: 401 });
  });

  test("is refused while the provider's variables are unset", async () => {
    const config = () => ({
      providers: [
        { type: "customJwt", issuer: "", jwks: "", algorithm: "RS256", applicationID: "" },
      ],
    });
    const refused = authenticator(config).verify(
      await tokenWith({ claims: { iss: "https://", aud: "" } }),
    );
    await expect(refused).rejects.toMatchObject({ status: 401, code: "NoAuthProvider" });
  });

  test("is judged by new variables after a change", async () => {
    let issuer = "https://other.example.test";
    const auth = authenticator(() => ({ providers: [{ ...customConfig().providers[0], issuer }] }));
    const token = await tokenWith();
    await expect(auth.verify(token)).rejects.toMatchObject({ code: "NoAuthProvider" });
    issuer = ISSUER;
    auth.forget();
    await expect(auth.verify(token)).resolves.toMatchObject({ kind: "user" });
  });
});

describe("an OpenID token", () => {
  const server = createServer((request, response) => {
    const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const isDiscovery = request.url === "/.well-known/openid-configuration";
    const body = isDiscovery
      ? JSON.stringify({ issuer: origin, jwks_uri: `${origin}/keys` })
      : Buffer.from(jwks.split(",")[1] ?? "", "base64").toString();
    response.writeHead(200, { "content-type": "application/json" }).end(body);
  });
  let domain = "";

  beforeAll(async () => {
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    domain = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterAll(() => server.close());

  test("is verified by discovery and gives Convex's names for standard claims", async () => {
    const auth = authenticator(() => ({ providers: [{ domain, applicationID: AUDIENCE }] }));
    const claims = {
      iss: domain,
      given_name: "Ada",
      email: "a@example.test",
      email_verified: true,
      picture: "p",
      custom: 1,
    };
    expect(await auth.verify(await tokenWith({ claims }))).toMatchObject({
      claims: {
        givenName: "Ada",
        email: "a@example.test",
        emailVerified: true,
        pictureUrl: "p",
        custom: 1,
      },
    });
    const other = await tokenWith({ claims: { iss: domain, aud: "other" } });
    await expect(auth.verify(other)).rejects.toMatchObject({ code: "NoAuthProvider" });
  });

  test("is refused while its provider cannot be reached, and tried again after", async () => {
    const auth = authenticator(() => ({
      providers: [{ domain: "http://127.0.0.1:1", applicationID: AUDIENCE }],
    }));
    const token = await tokenWith({ claims: { iss: "http://127.0.0.1:1" } });
    await expect(auth.verify(token)).rejects.toMatchObject({ status: 401 });
    await expect(auth.verify(token)).rejects.toMatchObject({ status: 401 });
  });
});

test("the development issuer keeps one key, for its owner alone, and its tokens verify", async () => {
  const dir = mkdtempSync(path.join(tmpdir(), "issuer-"));
  const names = { issuer: ISSUER, audience: AUDIENCE };
  const [one, two] = await Promise.all([openIssuer(dir, names), openIssuer(dir, names)]);
  expect(one.jwksUrl).toBe(two.jwksUrl);
  const published = Buffer.from(one.jwksUrl.split(",")[1] ?? "", "base64").toString();
  expect(Object.keys((JSON.parse(published) as { keys: object[] }).keys[0] ?? {}).sort()).toEqual([
    "alg",
    "e",
    "kid",
    "kty",
    "n",
    "use",
  ]);
  expect(statSync(path.join(dir, "issuer-key.json")).mode & 0o777).toBe(0o600);
  const config = () => ({ providers: [{ ...customConfig().providers[0], jwks: two.jwksUrl }] });
  const identity = await authenticator(config).verify(await one.token("alice"));
  expect(identity).toMatchObject({
    claims: { subject: "alice", tokenIdentifier: `${ISSUER}|alice` },
  });
});
