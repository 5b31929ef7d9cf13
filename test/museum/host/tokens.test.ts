import { KeyObject, sign } from "node:crypto";
import { exportJWK, generateKeyPair } from "jose";
import { expect, test } from "vitest";
import { Authenticator } from "../../../src/host/auth";

const ISSUER = "https://issuer.example.test";

// Source: smallrye/smallrye-jwt#391, Convex (custom JWT)
test("smallrye-jwt#391: a signed token whose claims are of other types, or that names no key, is no token", async () => {
  const { privateKey, publicKey } = await generateKeyPair("RS256", { extractable: true });
  const jwk = { ...(await exportJWK(publicKey)), kid: "k1", alg: "RS256" };
  const jwks = `data:application/json,${encodeURIComponent(JSON.stringify({ keys: [jwk] }))}`;
  const provider = { type: "customJwt", issuer: ISSUER, jwks, algorithm: "RS256" };
  const authenticator = new Authenticator(() => ({ providers: [provider] }), fetch);
  const verify = async (header: object, claims: object) => {
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const input = `${part(header)}.${part(claims)}`;
    const signature = sign("sha256", Buffer.from(input), KeyObject.from(privateKey));
    return await authenticator.verify(`${input}.${signature.toString("base64url")}`);
  };
  const header = { alg: "RS256", kid: "k1" };
  const claims = { iss: ISSUER, sub: "alice", exp: 9_999_999_999 };
  expect(await verify(header, claims)).toMatchObject({ claims: { subject: "alice" } });
  const odd = [7, true, null, ["alice"], { a: 1 }];
  for (const wrong of odd)
    for (const changed of [{ sub: wrong }, { iss: wrong }])
      await expect(verify(header, { ...claims, ...changed })).rejects.toMatchObject({
        status: 401,
      });
  for (const kid of [...odd, "", undefined])
    await expect(verify({ ...header, kid }, claims)).rejects.toMatchObject({ status: 401 });
});
