import {
  base64url,
  generateKeyPair,
  type JWTHeaderParameters,
  type JWTPayload,
  SignJWT,
} from "jose";
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
  async function refusalOf(
    claims: Record<string, unknown>,
    header: Record<string, unknown> = { alg: "RS256", kid: "new" },
    change = (token: string): string => token,
  ): Promise<[string, number]> {
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
      .setProtectedHeader(header as unknown as JWTHeaderParameters)
      .sign((await keyPair).privateKey);
    const request = {
      headers: new Headers({ authorization: `Bearer ${change(token)}` }),
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
    { exp: "1790003600" },
    { exp: true },
    { exp: null },
    { exp: 1_789_999_700, iat: 1_789_999_000 },
    { iat: undefined },
    { iat: "1790000000" },
    { iat: null },
    { iat: 1_790_000_301 },
    { iat: 1_790_000_000 - 2 * 86_400, exp: 1_790_000_000 - 86_400 },
    { iat: -1e300 },
    { nbf: "1790000000" },
    { nbf: null },
    { nbf: [] },
    { nbf: 1_790_000_301 },
    { nbf: 1e300 },
  ])("is refused without a look where it says %j", async (claims) => {
    expect(await refusalOf(claims)).toEqual(["forbidden", 0]);
  });

  test.each([
    { iat: 1_790_000_300 },
    { nbf: 1_790_000_300 },
    { exp: 1_789_999_701, iat: 1_789_999_000 },
  ])("is looked for where its clock differs within the skew: %j", async (claims) => {
    expect((await refusalOf(claims))[0]).toBe("upstream_unavailable");
  });

  test.each([
    [undefined],
    [null],
    [7],
    [true],
    [["new"]],
    [{ new: 1 }],
    [""],
    ["k".repeat(257)],
    ["\ud83d"],
    ["new\ude00"],
  ])("is refused without a look where its id is %j", async (kid) => {
    expect(await refusalOf({}, { alg: "RS256", kid })).toEqual(["forbidden", 0]);
  });

  const otherHeader = (header: unknown) => (token: string) =>
    token.replace(/^[^.]*/, base64url.encode(JSON.stringify(header)));

  test.each<[string, (token: string) => string]>([
    ["no signature", (token) => token.replace(/[^.]*$/, "")],
    ["a signature in other letters", (token) => token.replace(/[^.]*$/, "é!")],
    ["a part too many", (token) => `${token}.x`],
    ["no algorithm", otherHeader({ kid: "new" })],
    ["the algorithm none", otherHeader({ alg: "none", kid: "new" })],
    ["another algorithm", otherHeader({ alg: "HS256", kid: "new" })],
    [
      "an extension that is not known",
      otherHeader({ alg: "RS256", kid: "new", crit: ["x"], x: 1 }),
    ],
    ["a header that is no object", otherHeader(null)],
  ])("is refused without a look where it has %s", async (_name, change) => {
    expect(await refusalOf({}, undefined, change)).toEqual(["forbidden", 0]);
  });

  test.each(["k".repeat(256), "😀", " "])("is looked for where its id is %j", async (kid) => {
    const [code, looks] = await refusalOf({}, { alg: "RS256", kid });
    expect([code, looks > 0]).toEqual(["upstream_unavailable", true]);
  });
});
