import { generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { describe, expect, test } from "vitest";
import { googleCases } from "../../../test/vectors/googleCases";
import { outcomeOf } from "../../../test/vectors/cases";
import { errorData } from "../../errors/appError";
import type { KeySource } from "./googleKeys";
import { pushAuth, verifyPush } from "./pushAuth";

const cases = await googleCases();

describe("Gmail push verification", () => {
  test.each(cases)("$name: $expect", async (one) => {
    expect(await outcomeOf(one)).toBe(one.expect);
  });
});

describe("a token of a key that is not known", () => {
  const AUDIENCE = "https://ballast.example/api/gmail/push";
  const CLAIMS = {
    iss: "https://accounts.google.com",
    aud: AUDIENCE,
    email: "push@ballast.example",
    email_verified: true,
    iat: 1_790_000_000,
    exp: 1_790_003_600,
  };
  const keyPair = generateKeyPair("RS256");

  /** The code that refuses, and how often the keys were looked at for it. */
  async function refusalOf(claims: Record<string, unknown>): Promise<[string, number]> {
    let looks = 0;
    const keys: KeySource = {
      read: async () => {
        looks += 1;
        return { keys: [], freshUntilMs: 0, attemptedAtMs: 1, fetchedAtMs: 1 };
      },
      beginRefresh: async () => false,
      fetch: async () => ({ keys: [], freshUntilMs: 0 }),
      save: async () => undefined,
      sleep: async () => undefined,
    };
    const token = await new SignJWT(
      JSON.parse(JSON.stringify({ ...CLAIMS, ...claims })) as JWTPayload,
    )
      .setProtectedHeader({ alg: "RS256", kid: "new" })
      .sign((await keyPair).privateKey);
    const request = {
      headers: new Headers({ authorization: `Bearer ${token}` }),
      url: new URL(AUDIENCE),
      nowMs: 1_790_000_000_000,
    };
    const settings = { audience: AUDIENCE, serviceAccount: CLAIMS.email, sharedToken: "" };
    const error: unknown = await verifyPush(request, pushAuth(settings), keys).catch(
      (thrown: unknown) => thrown,
    );
    return [errorData(error).code, looks];
  }

  test("is looked for where it says the right things", async () => {
    const [code, looks] = await refusalOf({});
    expect([code, looks > 0]).toEqual(["upstream_unavailable", true]);
  });

  test.each([
    { iss: "https://issuer.example" },
    { iss: 7 },
    { iss: undefined },
    { aud: "https://elsewhere.example" },
    { aud: [AUDIENCE] },
    { email: "mallory@ballast.example" },
    { email_verified: "true" },
    { exp: undefined },
    { exp: "never" },
    { exp: 1_790_000_000 + 7 * 86_400 },
  ])("is refused without a look where it says %j", async (claims) => {
    expect(await refusalOf(claims)).toEqual(["forbidden", 0]);
  });
});
